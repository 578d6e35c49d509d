"""What comes of a study: a table of trials, the best settings as a file for grids, figures, a last measurement."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from bench.boxes.door import record_of
from bench.cells.cell import Cell
from bench.cells.code import versions_of
from bench.errors import shown
from bench.grids.plan import Planned, entry
from bench.mirror import Mirror, TrackingError
from bench.provenance import public
from bench.tasks.table import task_of
from bench.tuning.study import BUDGET, Places, Study, counted
from methods import METHODS
from methods.search import value_at
from results.records import Entry
from results.report import studies
from results.statistics import half_width, spread
from results.store import read_json, state_of, write_bytes


def trials(study: Study, searched: optuna.Study) -> pd.DataFrame:
    """One row a trial: its state, the figure and what was traded off against it, its queries, its settings.

    A pruned trial's figure is the last that it reported. `lost`: its worker died, and its settings were tried again.
    """
    rows = [
        {
            "trial": trial.number,
            "state": _state(trial),
            **dict(zip((study.figure, *study.against), _values(trial), strict=False)),
            "charged": sum(trial.user_attrs.get("cells", {}).values()),
            **trial.params,
            "reason": trial.user_attrs.get("reason"),
        }
        for trial in searched.get_trials(deepcopy=False)
    ]
    columns = ["trial", "state", study.figure, *study.against, "charged", *study.space(), "reason"]
    return pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))


def charged(study: Study, searched: optuna.Study) -> int:
    """The queries that all trials cost, each cell once, and the held-out ones."""
    cells: dict[str, int] = {}
    for trial in searched.get_trials(deepcopy=False):
        cells |= trial.user_attrs.get("cells", {})
    return sum(cells.values()) + study.held_out


def ended(searched: optuna.Study) -> int:
    """How many trials have come to an end."""
    return sum(trial.state.is_finished() for trial in counted(searched))


def best(searched: optuna.Study) -> FrozenTrial | None:
    """The trial with the highest figure among those that were neither pruned nor dominated; the earlier of equals."""
    complete = [trial for trial in searched.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: (trial.values[0], -trial.number), default=None)


def start_value(study: Study, searched: optuna.Study) -> float | None:
    """The figure of the settings that the search started from, or None if they have none."""
    start = study.config(study.starting_point())
    tried = [trial for trial in counted(searched) if trial.params and study.config(trial.params) == start]
    return next((trial.values[0] for trial in tried if trial.state == TrialState.COMPLETE), None)


def write(study: Study, searched: optuna.Study, places: Places, command: list[str]) -> list[Path]:
    """Write trials.csv, best.yaml and the figures of a study that has a complete trial; returns their paths."""
    folder, table, winner = places.folder(study), trials(study, searched), best(searched)
    assert winner
    write_bytes(folder / "trials.csv", table.to_csv(index=False, float_format="%.6g").encode())
    settings = {"method": study.method, "config": json.loads(study.config(winner.params))}
    content = {**settings, "provenance": provenance(study, searched, winner, command)}
    write_bytes(folder / "best.yaml", yaml.safe_dump(content, sort_keys=False, width=120).encode())
    drawn = studies.draw(
        folder / "figures", table, study.figure, list(study.space()), importances(searched), list(study.against)
    )
    return [folder / "best.yaml", folder / "trials.csv", *drawn]


def provenance(study: Study, searched: optuna.Study, winner: FrozenTrial, command: list[str]) -> dict[str, Any]:
    """Where tuned settings come from, and what it cost to find them."""
    needs = {"transfer": f"yes: validation split of {study.tried_on}", "validation": "yes: the task's validation split"}
    start = start_value(study, searched)
    return {
        "command": shlex.join(["bench", *public(command)]),
        "task": study.task,
        "budget": study.budget.queries,
        "answers": study.budget.answers,
        "inputs": study.budget.inputs,
        "objective": study.objective,
        "needs data": needs.get(study.objective, "no"),
        "trials": ended(searched),
        "best trial": winner.number,
        study.figure: round(winner.values[0], 4),
        f"{study.figure} at the start": None if start is None else round(start, 4),
        "queries of tuning": charged(study, searched),
        "held-out among them": study.held_out,
        "versions": study.identity()["versions"],
    }


def importances(searched: optuna.Study) -> dict[str, float]:
    """The share of the figure's variance that each setting explains, by fANOVA; empty for fewer than four trials."""
    complete = [trial.values[0] for trial in searched.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    if len(complete) < 4 or len(set(complete)) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(
        searched, evaluator=evaluator, target=lambda trial: float(trial.values[0])
    )


@dataclass(frozen=True)
class Outcome:
    """What a study came to. settings: the best, as far as they were searched. started, found: the figure of the
    settings at the start and of those. means: settings -> mean test accuracy, interval and n.

    reason: why there is nothing, or not all that was asked for. bad_input: whether the budget is to blame.
    """

    study: Study
    trials: int = 0
    queries: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    found: float | None = None
    means: pd.DataFrame | None = None
    reason: str | None = None
    bad_input: bool = False


def nothing(study: Study, searched: optuna.Study) -> Outcome:
    """The outcome of a study none of whose trials came to an end, with the first reason of many."""
    reasons = [trial.user_attrs["reason"] for trial in counted(searched) if "reason" in trial.user_attrs]
    too_small = bool(reasons) and all("do not cover one round" in reason for reason in reasons)
    told = f"{len(reasons)} trials failed and none was completed: {reasons[0]}" if reasons else "no trial has ended"
    return Outcome(study, len(reasons), charged(study, searched), reason=told, bad_input=too_small)


def outcome(study: Study, searched: optuna.Study, places: Places, cells: list[Cell], *, complete: bool) -> Outcome:
    """The outcome of a study with a complete trial, from what its last measurement left; writes final.csv."""
    winner, table = best(searched), measured(study, cells, places)
    assert winner
    if cells:
        write_bytes(places.folder(study) / "final.csv", table.to_csv(index=False, float_format="%.6g").encode())
    reason = None if complete else "its workers are gone; the same command goes on"
    if lacking := len({cell.name() for cell in cells}) - table["cell"].nunique():
        reason = f"{lacking} runs of the last measurement failed"
    started = start_value(study, searched)
    config = json.loads(study.config(winner.params))
    settings = {key: value_at(config, key) for key in study.space() if key in winner.params and key != BUDGET}
    queries = charged(study, searched)
    return Outcome(study, ended(searched), queries, settings, started, winner.values[0], means(table), reason)


def final_cells(study: Study, searched: optuna.Study, places: Places, seeds: int) -> list[Cell]:
    """Ordinary cells, examined on the test split, of the settings at the start and of the best, over fresh seeds."""
    winner, teacher = best(searched), record_of(task_of(study.task), places.root)
    assert winner
    assert teacher
    configs = dict.fromkeys((study.start, study.config(winner.params)))
    return [
        Cell(study.task, study.method, config, study.budget, seed, teacher.hash)
        for config in configs
        for seed in range(seeds)
    ]


def measured(study: Study, cells: list[Cell], places: Places) -> pd.DataFrame:
    """One row a seed of what the last measurement found; a cell that failed is left out."""
    rows = []
    for cell in cells:
        folder = places.root / "cells" / cell.name()
        if state_of(folder, versions_of(cell.method)).name == "done":
            point = read_json(folder / "curve.json")[-1]
            row = {"settings": "start" if cell.config == study.start else "tuned", "seed": cell.seed}
            row |= {name: point[name] for name in ("accuracy", "agreement")}
            rows.append({**row, "queries": point["spent"], "cell": cell.name()})
    return pd.DataFrame(rows, columns=["settings", "seed", "accuracy", "agreement", "queries", "cell"])


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean test accuracy of each settings with n, and a 95 % interval where there are three seeds or more."""
    rows = []
    for label, group in table.groupby("settings", sort=False):
        mean, half = group["accuracy"].mean(), half_width(spread(group["accuracy"]), len(group)).item()
        rows.append({"settings": label, "accuracy": mean, "low": mean - half, "high": mean + half, "n": len(group)})
    return pd.DataFrame(rows, columns=["settings", "accuracy", "low", "high", "n"])


def mirror(
    study: Study,
    searched: optuna.Study,
    places: Places,
    files: list[Path],
    uri: str,
    warn: Callable[[str], None],
) -> None:
    """Show the study in MLflow; a dead server costs one warning."""
    if uri == "off":
        return
    try:
        with Mirror(places.folder(study), uri, places.root) as mirrored:
            mirrored.sync_study(entries(study, searched), files)
    except TrackingError as error:
        warn(f"MLflow at {shown(uri)} does not answer, the study is on disk: the same command tries again ({error})")


def entries(study: Study, searched: optuna.Study) -> list[Entry]:
    """The trials' cells as the MLflow mirror wants them."""
    protocol = METHODS[study.method].PROTOCOL
    listed: dict[str, Entry] = {}
    for trial in searched.get_trials(deepcopy=False):
        for cell in study.cells(trial.params) if trial.user_attrs.get("cells") else ():
            parts = (
                cell.task,
                cell.method,
                cell.config,
                cell.budget,
                (),
                protocol,
                cell.teacher_seed,
                cell.seed,
                cell.budget.queries,
                cell,
            )
            listed.setdefault(cell.name(), entry(Planned(f"trial {trial.number}", *parts)))
    return list(listed.values())


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed" if "reason" in trial.user_attrs else "lost"
    return str(trial.state.name).lower()


def _values(trial: FrozenTrial) -> list[float]:
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        return [trial.intermediate_values[max(trial.intermediate_values)]]
    return trial.values or []
