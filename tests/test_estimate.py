"""What a plan says it will take."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from support import digits_cell

from bench.cells.cell import Cell
from bench.grids.estimate import estimate, seconds_at
from bench.grids.plan import Planned
from bench.tasks.table import task_of
from results.records import CellRecord, Machine, Totals, plain
from results.store import write_json


def planned(cell: Cell, state: str = "to do") -> Planned:
    budget = cell.budget
    return Planned(
        cell.method, cell.task, cell.method, cell.config, budget, (budget.queries,), "", 0, 0, 0, cell, state
    )


def done(root: Path, cell: Cell, seconds: float, device: str) -> None:
    folder = root / "cells" / cell.name()
    machine = Machine(device, 1, "float32", "0", None, "0")
    write_json(folder / "cell.json", plain(CellRecord(cell.identity())))
    write_json(folder / "curve.json", [])
    write_json(folder / "done.json", plain(Totals(1, 1, 1, seconds, machine=machine)))


def test_time_follows_the_power_law_of_the_budgets_measured() -> None:
    assert seconds_at([(100, 1.0), (1000, 100.0)], 10_000) == pytest.approx(10_000)  # the square
    assert seconds_at([(100, 2.0)], 300) == pytest.approx(6)
    assert seconds_at([(100, 2.0), (100, 8.0)], 100) == pytest.approx(4)  # the geometric mean
    assert math.isnan(seconds_at([], 100))


def test_a_larger_budget_is_never_said_to_take_less_and_beyond_what_was_measured_grows_as_the_queries_do() -> None:
    flat = [(250, 20.0), (500, 19.0), (1000, 20.0), (2500, 18.0), (5000, 20.0)]  # the least time of a training
    assert seconds_at(flat, 1_000_000) >= 200 * 20 * 0.99
    falling = [(100, 3.0), (1000, 2.0)]
    assert seconds_at(falling, 1000) <= seconds_at(falling, 10_000)


def test_a_run_is_judged_by_others_of_its_settings_on_the_same_device(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 100)
    larger = replace(cell, budget=replace(cell.budget, queries=1000))
    other = digits_cell(trained, "noise", 100, kind="multiscale")
    done(trained, cell, 3.0, "this one")
    done(trained, replace(cell, seed=1), 3000.0, "another")
    cost = estimate([planned(larger), planned(other)], [], trained, "this one")
    assert cost.seconds == pytest.approx(30)
    assert (cost.judged, cost.unjudged) == (1, 1)
    content = sum(file.stat().st_size for file in (trained / "cells" / cell.name()).iterdir())
    assert cost.bytes == pytest.approx(2 * content, rel=0.05)


def test_teachers_to_be_trained_count_with_their_weights(trained: Path) -> None:
    size = (trained / "teachers").glob("*/teacher.pt")
    cost = estimate([], [task_of("digits-lenet")], trained, "any")
    assert cost.bytes == pytest.approx(next(size).stat().st_size, rel=0.2)
