"""A run folder as `bench run` leaves it, of made-up cells: for tests of the report."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KINDS = {"ideal-once": "ideal", "dfme": "dfme", "noise-uniform": "noise", "real": "real"}
SKILL = {"ideal-once": 0.7, "dfme": 0.5, "noise-uniform": 0.3, "real": 0.9}


def write_run(
    root: Path,
    *,
    kinds: dict[str, str] | None = None,
    tasks: Iterable[str] = ("digits-lenet",),
    answers: Iterable[str] = ("labels",),
    seeds: int = 3,
    budgets: Iterable[int] = (250, 500, 1000),
) -> Path:
    """One finished cell for each task, kind of answer, method, seed and budget; returns the run's folder.

    kinds: label -> method. Accuracy rises with the budget, and from method to method, with noise of a fixed seed.
    """
    kinds, tasks, answers, budgets = kinds or KINDS, list(tasks), list(answers), list(budgets)
    draw = random.Random(0)
    entries = [
        _entry(task, answer, label, kind, seed, budget)
        for task in tasks
        for answer in answers
        for label, kind in kinds.items()
        for seed in range(seeds)
        for budget in budgets
    ]
    for entry in entries:
        skill = SKILL.get(entry["method"], 0.2 + 0.05 * list(kinds).index(entry["method"]))
        finish(root, entry, min(0.99, skill * (0.6 + 0.4 * entry["budget"] / max(budgets)) + draw.gauss(0, 0.02)))
    return plan(root, entries)


def plan(root: Path, entries: list[dict[str, Any]]) -> Path:
    """Write run.json for the entries; returns the run's folder."""
    tasks = list(dict.fromkeys(entry["task"] for entry in entries))
    record = {"hash": "0123456789abcdef", "validation_accuracy": 0.97, "test_accuracy": 0.96}
    _write(
        root / "made-up" / "run.json",
        {
            "grid": "made-up",
            "definition": {"description": "cells that were never run", "tasks": tasks, "seeds": [0, 1, 2]},
            "tasks": {task: _parts(task) for task in tasks},
            "teachers": dict.fromkeys(tasks, record),
            "provenance": {
                "command": "bench run --grid made-up",
                "bench": "0.1.0",
                "commit": "abcdef0",
                "python": "3.11.7",
                "packages": {"torch": "2.15.0"},
                "device": "CPU, 2 cores",
            },
            "entries": entries,
        },
    )
    return root / "made-up"


def finish(root: Path, entry: dict[str, Any], accuracy: float, **more: float) -> None:
    """The files of a finished cell with one point, at its budget; `more` goes into the point."""
    spent = entry["budget"] - entry["budget"] % 60
    point = {"budget": entry["budget"], "round": 5, "spent": spent, "distinct": spent // 2, "figures": {"loss": 0.1}}
    folder = root / "cells" / entry["cell"]
    _write(folder / "curve.json", [{**point, "accuracy": accuracy, "agreement": accuracy - 0.01, **more}])
    totals = {"spent": spent, "distinct": spent // 2, "rounds": 5, "seconds": entry["budget"] / 100, "code": "abc"}
    _write(folder / "done.json", totals)


def _entry(task: str, answers: str, label: str, kind: str, seed: int, budget: int) -> dict[str, Any]:
    return {
        "task": task,
        "answers": answers,
        "inputs": "float",
        "method": label,
        "kind": kind,
        "data": "train" if kind == "real" else "none",
        "protocol": "per_budget",
        "seed": seed,
        "budget": budget,
        "budgets": [budget],
        "config": "{}",
        "cell": f"{task}.{label}.{budget}-{answers}.s{seed}",
        "reason": None,
    }


def _parts(task: str) -> dict[str, str]:
    """`mnist-lenet5` -> its data set and network."""
    dataset, _, network = task.partition("-")
    return {"dataset": dataset, "teacher": network, "student": network}


def _write(path: Path, content: Any) -> None:
    """JSON without the care of results.store, whose every file waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
