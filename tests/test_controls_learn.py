"""The shipped controls learn the labels they pay for on every CPU task: what does not learn, anything would beat."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support import CPU

from bench.boxes import recipes, teachers
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import run_cell
from bench.tasks.table import TASKS, obstacle, task_of
from budgets import Budget
from results.curves import LEARNT
from results.store import read_json

DATA = Path(os.environ.get("BENCH_DATA", "data"))
ON_CPU = [name for name, task in TASKS.items() if not task.gpu and not task.dataset.endswith("32")]
QUERIES = {"digits": 1_000}
ONE_ANSWER = 0.98  # a teacher that says the same of nearly all images has nothing to teach with them


def learnt(root: Path, task: str, kind: str, teacher: str) -> dict[str, float]:
    """The point of a control with the recipe that it ships with."""
    budget = Budget(QUERIES.get(TASKS[task].dataset, 5_000))
    cell = Cell(task, "noise", canonical_config("noise", {"kind": kind}), budget, 0, teacher)
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
    for noise in ("uniform", "multiscale", "shapes"):
        point = learnt(tmp_path, task, noise, teacher.hash)
        told = f"{noise}: agrees on {point['fitted']:.3f}, the commonest answer has {point['commonest']:.3f}"
        beyond = point["fitted"] - point["commonest"]
        assert beyond >= LEARNT * (1 - point["commonest"]) or point["commonest"] > ONE_ANSWER, told
