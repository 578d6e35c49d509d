"""What a plan says it will take."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support import digits_cell

from bench.cells.cell import Cell
from bench.grids.definition import Planned
from bench.grids.estimate import estimate, seconds_at
from bench.tasks.table import task_of
from results.store import write_json


def planned(cell: Cell, state: str = "to do") -> Planned:
    budget = cell.budget
    return Planned(
        cell.method, cell.task, cell.method, cell.config, budget, (budget.queries,), "", 0, cell, None, state
    )


def done(root: Path, cell: Cell, seconds: float, device: str) -> None:
    folder = root / "cells" / cell.name()
    write_json(folder / "cell.json", cell.identity())
    write_json(folder / "done.json", {"seconds": seconds, "device": device})


def test_time_follows_the_power_law_of_the_budgets_measured() -> None:
    assert seconds_at([(100, 1.0), (1000, 100.0)], 10_000) == pytest.approx(10_000)  # the square
    assert seconds_at([(100, 2.0)], 300) == pytest.approx(6)
    assert seconds_at([(100, 2.0), (100, 8.0)], 100) == pytest.approx(4)  # the geometric mean
    assert math.isnan(seconds_at([], 100))


def test_a_run_is_judged_by_others_of_its_settings_on_the_same_device(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 100)
    larger = replace(cell, budget=replace(cell.budget, queries=1000))
    other = digits_cell(trained, "noise", 100, kind="multiscale")
    done(trained, cell, 3.0, "this one")
    done(trained, replace(cell, seed=1), 3000.0, "another")
    cost = estimate([planned(larger), planned(other), planned(cell, "done")], [], trained, "this one")
    assert cost.seconds == pytest.approx(30)
    assert (cost.judged, cost.unjudged) == (1, 1)
    content = sum(
        len(json.dumps(part, indent=1)) + 1 for part in (cell.identity(), {"seconds": 3.0, "device": "this one"})
    )
    assert cost.bytes == pytest.approx(2 * content, rel=0.05)


def test_teachers_to_be_trained_count_with_their_weights(trained: Path) -> None:
    size = (trained / "teachers").glob("*/teacher.pt")
    cost = estimate([], [task_of("digits-lenet")], trained, "any")
    assert cost.bytes == pytest.approx(next(size).stat().st_size, rel=0.2)
