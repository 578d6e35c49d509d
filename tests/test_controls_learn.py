"""The shipped controls learn the labels they pay for on every CPU task: what does not learn, anything would beat."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support import CPU

from bench.boxes import recipes, teachers
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import run_cell
from bench.grids import definition as grids
from bench.grids.plan import runs_of
from bench.tasks.table import TASKS, obstacle, task_of
from budgets import Budget
from results.curves import LEARNT
from results.store import read_json

DATA = Path(os.environ.get("BENCH_DATA", "data"))
ON_CPU = [name for name, task in TASKS.items() if not task.gpu and not task.dataset.endswith("32")]
GRIDS = ("digits", "low-budget", "paper", "architectures")  # the first that has controls on a task
QUERIES = {"digits": 1_000}
ONE_ANSWER = 0.98  # a teacher that says the same of nearly all images has nothing to teach with them


def controls(task: str) -> dict[str, tuple[str, str]]:
    """Label -> method and config of the controls and of `real`, in the first grid that has them on the task; the
    defaults, where none has."""
    for grid in (grids.load(name)[1] for name in GRIDS):
        runs = runs_of(grids.narrowed(grid, {"task": [task]})) if task in grid.tasks else []
        if found := {run.label: (run.method, run.config) for run in runs if run.method in {"noise", "real"}}:
            return found
    defaults = {
        kind: ("noise", canonical_config("noise", {"kind": kind})) for kind in ("uniform", "multiscale", "shapes")
    }
    return {**defaults, "real": ("real", canonical_config("real", {}))}


def learnt(root: Path, task: str, method: str, config: str, teacher: str) -> dict[str, float]:
    """The point of a control as a grid has it."""
    budget = Budget(QUERIES.get(TASKS[task].dataset, 5_000))
    cell = Cell(task, method, config, budget, 0, teacher)
    run_cell(cell, root, DATA, CPU)
    point: dict[str, float] = read_json(root / "cells" / cell.name() / "curve.json")[-1]
    return point


@pytest.mark.parametrize(
    "task",
    [name if TASKS[name].dataset == "digits" else pytest.param(name, marks=pytest.mark.slow) for name in ON_CPU],
)
def test_controls_learn_the_labels_they_pay_for(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := obstacle(task_of(task), DATA, gpu=False):
        pytest.skip(reason)
    kind = TASKS[task].dataset
    if kind != "digits":
        monkeypatch.setitem(recipes.RECIPES, kind, replace(recipes.RECIPES[kind], epochs=1))
    teacher = teachers.train(task_of(task), tmp_path, DATA, CPU, lambda _: None)
    for label, (method, config) in controls(task).items():
        point = learnt(tmp_path, task, method, config, teacher.hash)
        told = f"{label}: agrees on {point['fitted']:.3f}, the commonest answer has {point['commonest']:.3f}"
        beyond = point["fitted"] - point["commonest"]
        assert beyond >= LEARNT * (1 - point["commonest"]) or point["commonest"] > ONE_ANSWER, told
