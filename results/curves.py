"""Tidy frames of a run: one row a run, one row a point, one row a mean over seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results.records import Entry, Point, RunRecord, Versions, plain, read
from results.statistics import area_over_log, half_width, queries_to_reach, spread
from results.store import CellState, state_of

SETTING = ["task", "answers", "inputs", "method"]
MEASURED = ["accuracy", "spread", "n", "low", "high", "agreement", "agreement_spread", "optimistic"]
MEASURED += ["queries", "distinct", "claimed", "optimistic_spread"]
MEASURED += ["agreement_low", "agreement_high", "optimistic_low", "optimistic_high"]
POINT = {"budget", "round", "spent", "distinct", "figures", "accuracy", "agreement"}  # what every point has
TOTALS = ["spent", "distinct", "rounds", "seconds"]
MACHINE = ["device", "threads", "precision", "commit", "torch"]
WHOLE = ["seed", "budget", "spent", "distinct", "rounds", "threads"]  # numbers that are counted, never measured
TARGETS = (0.5, 0.75, 0.9)


def cells(run: Path, versions: Mapping[str, Versions] | None = None) -> pd.DataFrame:
    """One row for each run that was planned: its setting, seed, budget, state, reason, and totals where it is done.

    spent, distinct: what the meter counted over the whole run, the last unfinished round included. versions: kind ->
    the result versions of the code that is asked about; of a kind that is not there, those of the code that planned it.
    """
    record = read(run / "run.json", RunRecord)
    rows = [_row(entry, _state(run, entry.cell, entry, record, versions)) for entry in record.entries]
    columns = [*SETTING, "kind", "data", "protocol", "seed", "budget", "state", "reason", "cell", "config"]
    frame = pd.DataFrame(rows).reindex(columns=[*columns, *TOTALS, *MACHINE, "versions"])
    return frame.astype(dict.fromkeys(WHOLE, "Int64"))


def points(run: Path, versions: Mapping[str, Versions] | None = None) -> pd.DataFrame:
    """One row for each budget that a finished run answers for.

    budget: the budget that was asked about; `listed` where the grid names it, the others lie between.
    queries: what the student had cost at its last round within that budget. claimed: the images its
    method had made for it, which is what papers that count images and not questions report.
    optimistic: the best accuracy on test data at any point so far, which no one could have chosen.
    Whatever else a point has is carried over, such as `accuracy_ensemble`: a part that a method shows apart.
    An `anytime` run that is not done may have been run to a narrower budget, whose points are its own.
    """
    record = read(run / "run.json", RunRecord)
    rows: list[dict[str, Any]] = []
    for entry in record.entries:
        cell = _answering(run, entry, record, versions)
        if cell is None:
            continue
        best = 0.0
        for point in read(run.parent / "cells" / cell / "curve.json", list[Point]):
            best = max(best, point["accuracy"])
            if entry.protocol == "per_budget" and point["budget"] not in entry.budgets:
                continue  # a point on the way stands for no run of its own
            rows.append(
                {
                    **{key: getattr(entry, key) for key in (*SETTING, "kind", "data", "protocol", "seed")},
                    "cell": cell,
                    "budget": point["budget"],
                    "listed": point["budget"] in entry.budgets,
                    "queries": point["spent"],
                    "distinct": point["distinct"],
                    "claimed": int((point["figures"] or {}).get("pool", point["spent"])),
                    "round": point["round"],
                    "accuracy": point["accuracy"],
                    "agreement": point["agreement"],
                    "optimistic": best,
                    **{key: value for key, value in point.items() if key not in POINT},
                }
            )
    columns = [*SETTING, "kind", "data", "protocol", "seed", "cell", "budget", "listed", "queries", "distinct"]
    measured = ["claimed", "round", "accuracy", "agreement", "optimistic"]
    return pd.DataFrame(rows, columns=None if rows else [*columns, *measured]).astype({"listed": bool})


def apart(frame: pd.DataFrame) -> list[str]:
    """The columns of parts that a method shows apart, `accuracy_NAME` and `agreement_NAME`, of points or a summary."""
    ours = {*MEASURED, *SETTING}
    return [name for name in map(str, frame) if name.startswith(("accuracy_", "agreement_")) and name not in ours]


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """Mean, spread and n over seeds for each setting and budget, with a 95 % interval where n is 3 or more.

    listed: whether the grid names the budget. Of parts shown apart there is the mean alone.
    """
    groups = points.groupby([*SETTING, "protocol", "budget", "listed"], sort=False)
    parts = apart(points)
    table = groups[["accuracy", "agreement", "optimistic", "queries", "distinct", "claimed", *parts]].mean()
    table["n"] = groups.size()
    for measure, prefix in (("accuracy", ""), ("agreement", "agreement_"), ("optimistic", "optimistic_")):
        table[f"{prefix}spread"] = groups[measure].std()
        half = half_width(table[f"{prefix}spread"], table["n"])
        table[f"{prefix}low"], table[f"{prefix}high"] = table[measure] - half, table[measure] + half
    return table.reset_index()[[*SETTING, "protocol", "budget", "listed", *MEASURED, *parts]]


def efficiency(points: pd.DataFrame, teachers: dict[str, float]) -> pd.DataFrame:
    """For each setting, over its listed budgets: the area under accuracy over log queries, and the queries
    needed to reach a share of the teacher's accuracy.

    teachers: task -> the teacher's test accuracy. Each seed is a curve; the figures are means over
    seeds, with n, and with how many seeds reached each target.
    """
    rows = []
    for key, group in points[points["listed"]].groupby(SETTING, sort=False):
        row: dict[str, Any] = dict(zip(SETTING, key, strict=True))
        curves = [curve.sort_values("budget") for _, curve in group.groupby("seed")]
        areas = [area_over_log(curve["budget"], curve["accuracy"]) for curve in curves]
        row |= {"area": sum(areas) / len(areas), "area_spread": spread(areas), "n": len(areas)}
        for share in TARGETS:
            target = share * teachers[row["task"]]
            needed = pd.Series([queries_to_reach(target, curve["budget"], curve["accuracy"]) for curve in curves])
            name = f"queries_to_{share:.0%}".replace("%", "")
            row |= {name: needed.mean() if needed.notna().all() else float("nan"), f"{name}_seeds": needed.count()}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else SETTING)


def teacher_accuracies(run: Path) -> dict[str, float]:
    """Task -> its teacher's test accuracy, for the tasks whose teacher is trained."""
    teachers = read(run / "run.json", RunRecord).teachers
    return {task: record.test_accuracy for task, record in teachers.items() if record}


def _state(
    run: Path, cell: str | None, entry: Entry, record: RunRecord, versions: Mapping[str, Versions] | None
) -> CellState:
    """The state of one of the entry's cells, as it is on disk now."""
    now = (versions or {}).get(entry.kind) or record.versions.get(entry.kind)
    return state_of(run.parent / "cells" / str(cell), now, entry.reason)


def _answering(run: Path, entry: Entry, record: RunRecord, versions: Mapping[str, Versions] | None) -> str | None:
    """The cell whose points are the entry's: its own, or the widest of the narrower ones that is done."""
    candidates = [entry.cell, *(entry.narrower[budget] for budget in sorted(entry.narrower, reverse=True))]
    return next((cell for cell in candidates if _state(run, cell, entry, record, versions).name == "done"), None)


def _row(entry: Entry, state: CellState) -> dict[str, Any]:
    totals = state.totals if state.name == "done" else None
    row = {**plain(entry), "state": state.name, "reason": state.reason}
    if totals is None:
        return row
    machine = plain(totals.machine) if totals.machine else {}
    told = ", ".join(f"{part} {number}" for part, number in totals.versions.items())
    return {**row, **{key: getattr(totals, key) for key in TOTALS}, **machine, "versions": told}
