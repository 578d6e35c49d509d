"""A run folder as `bench run` leaves it, of made-up cells: for tests of the report."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from results.records import Entry, Machine, Point, Provenance, RunRecord, TaskParts, TeacherRecord, Totals, plain

KINDS = {"ideal-once": "ideal", "dfme": "dfme", "noise-uniform": "noise", "real": "real"}
SKILL = {"ideal-once": 0.7, "dfme": 0.5, "noise-uniform": 0.3, "real": 0.9}
VERSIONS: dict[str, int | str] = {"method": 1, "meter": 1}
MACHINE = Machine("CPU, 2 cores", threads=1, precision="float32", bench="0.1.0", commit="abcdef0", torch="2.15.0")
ENTRY = Entry(
    task="digits-lenet",
    answers="labels",
    inputs="float",
    method="ideal",
    kind="ideal",
    data="none",
    protocol="per_budget",
    teacher_seed=0,
    seed=0,
    budget=400,
    budgets=[400],
    config="{}",
    cell=None,
    narrower={},
    reason=None,
)


def write_run(
    root: Path,
    *,
    kinds: dict[str, str] | None = None,
    tasks: Iterable[str] = ("digits-lenet",),
    answers: Iterable[str] = ("labels",),
    seeds: int = 3,
    teachers: int = 1,
    budgets: Iterable[int] = (250, 500, 1000),
    **definition: Any,
) -> Path:
    """One finished cell for each task, kind of answer, method, seed and budget; returns the run's folder.

    kinds: label -> method. Accuracy rises with the budget, and from method to method, with noise of a fixed seed.
    """
    kinds, budgets = kinds or KINDS, list(budgets)
    draw = random.Random(0)
    entries = planned(kinds, tasks, answers, seeds, budgets, teachers)
    for entry in entries:
        skill = SKILL.get(entry.method, 0.2 + 0.05 * list(kinds).index(entry.method))
        finish(root, entry, min(0.99, skill * (0.6 + 0.4 * entry.budget / max(budgets)) + draw.gauss(0, 0.02)))
    return plan(root, entries, **definition)


def planned(
    kinds: dict[str, str],
    tasks: Iterable[str],
    answers: Iterable[str],
    seeds: int,
    budgets: Iterable[int],
    teachers: int = 1,
) -> list[Entry]:
    """One entry for each task, kind of answer, method, teacher, seed and budget."""
    answers, budgets = list(answers), list(budgets)
    return [
        replace(
            ENTRY,
            task=task,
            answers=answer,
            method=label,
            kind=kind,
            data="train" if kind == "real" else "none",
            protocol="anytime" if kind == "ideal" else "per_budget",
            teacher_seed=teacher,
            seed=seed,
            budget=budget,
            budgets=[budget],
            cell=f"{task}.{label.replace('/', ' ')}.{budget}-{answer}.{f't{teacher}.' if teacher else ''}s{seed}",
        )
        for task in tasks
        for answer in answers
        for label, kind in kinds.items()
        for teacher in range(teachers)
        for seed in range(seeds)
        for budget in budgets
    ]


def plan(root: Path, entries: list[Entry], **definition: Any) -> Path:
    """Write run.json for the entries; returns the run's folder. definition: of the grid, beside what any has."""
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    record = RunRecord(
        grid="made-up",
        id="0",
        definition={"description": "cells that were never run", "tasks": tasks, "seeds": [0, 1, 2], **definition},
        tasks={task: _parts(task) for task in tasks},
        teachers={task: _teachers(task, entries) for task in tasks},
        provenance=Provenance(
            "bench run --grid made-up", "0.1.0", "abcdef0", "3.11.7", {"torch": "2.15.0"}, "2026-01-02 03:04 UTC"
        ),
        versions={entry.kind: VERSIONS for entry in entries},
        entries=entries,
    )
    _write(root / "made-up" / "run.json", plain(record))
    return root / "made-up"


def finish(root: Path, entry: Entry, accuracy: float, **more: float) -> None:
    """The files of a finished cell with one point, at its budget; `more` goes into the point."""
    finish_with(root, entry, [point(entry.budget, accuracy, **more)])


def finish_with(root: Path, entry: Entry, points: list[Point], **totals: Any) -> None:
    """The files of a finished cell with those points. totals: what differs from the usual ones."""
    assert entry.cell
    _write(root / "cells" / entry.cell / "curve.json", points)
    usual = Totals(points[-1]["spent"], points[-1]["distinct"], 5, entry.budget / 100, VERSIONS, MACHINE)
    _write(root / "cells" / entry.cell / "done.json", plain(replace(usual, **totals)))


def point(budget: int, accuracy: float, **more: Any) -> Point:
    """A point of a curve. more: what differs from the usual one, or what a method shows apart."""
    spent = budget - budget % 60
    usual = {"budget": budget, "round": 5, "spent": spent, "distinct": spent // 2, "figures": {"loss": 0.1}}
    return {**usual, "accuracy": accuracy, "agreement": accuracy - 0.01, **more}  # type: ignore[typeddict-item]


def _parts(task: str) -> TaskParts:
    """`mnist-lenet5` -> its data set and network."""
    dataset, _, network = task.partition("-")
    return TaskParts(dataset, network, network, classes=10, scaling=(0.5, 0.25))


def _teachers(task: str, entries: list[Entry]) -> dict[int, TeacherRecord | None]:
    """All as good as each other."""
    seeds = sorted({entry.teacher_seed for entry in entries if entry.task == task})
    return {seed: TeacherRecord(f"{seed}123456789abcdef", 0.97, 0.96) for seed in seeds}


def _write(path: Path, content: Any) -> None:
    """JSON without the care of results.store, whose every file waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
