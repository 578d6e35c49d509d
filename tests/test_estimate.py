"""What a plan says it will take."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import digits_cell

from bench.cells.cell import Cell
from bench.grids.estimate import estimate
from bench.grids.growth import Points, seconds_at
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


BUDGETS = st.integers(10, 20_000_000)
MEASURED = st.lists(st.tuples(BUDGETS, st.floats(0.01, 1e6)), min_size=1, max_size=6)


def test_time_grows_as_it_did_between_the_budgets_measured() -> None:
    assert seconds_at([(100, 1.0), (1000, 100.0)], 10_000) == pytest.approx(10_000)  # the square
    assert seconds_at([(100, 2.0)], 300) == pytest.approx(6)
    assert seconds_at([(100, 2.0), (100, 8.0)], 100) == pytest.approx(4)  # the geometric mean
    assert seconds_at([(100, 12.0), (1100, 22.0)], 10) == pytest.approx(11.1)  # 11 once, 0.01 a query
    assert math.isnan(seconds_at([], 100))


@given(MEASURED, MEASURED, BUDGETS, BUDGETS)
def test_a_larger_budget_is_never_said_to_take_less(measured: Points, calibrated: Points, one: int, two: int) -> None:
    less, more = sorted((one, two))
    for points in ([], calibrated):
        assert seconds_at(measured, less, points) <= seconds_at(measured, more, points) * (1 + 1e-9)


@given(MEASURED, MEASURED, BUDGETS)
def test_no_run_beyond_those_measured_is_said_to_be_faster_than_the_largest_of_them(
    measured: Points, calibrated: Points, queries: int
) -> None:
    largest = max(queries for queries, _ in measured)
    least = min(seconds for budget, seconds in measured if budget == largest)
    beyond = max(queries, largest)
    for points in ([], calibrated):
        assert seconds_at(measured, beyond, points) >= least * beyond / largest * (1 - 1e-9)


def test_the_least_time_of_a_training_says_nothing_of_a_large_budget() -> None:
    flat = [(250, 20.0), (500, 19.0), (1000, 20.0), (2500, 18.0), (5000, 20.0)]
    assert seconds_at(flat, 1_000_000) >= 200 * 20 * 0.99


def test_a_least_time_and_a_line_are_not_taken_for_a_square() -> None:
    trained = [(250, 1.97), (1000, 1.96), (4000, 2.39), (5000, 2.85)]
    assert 200 * 2.85 * 0.99 <= seconds_at(trained, 1_000_000) < 300 * 2.85


def test_runs_that_were_done_are_right_about_their_budgets_and_rehearsals_about_the_growth_beyond() -> None:
    rehearsed = [(100, 1.0), (1000, 5.0), (10_000, 500.0)]
    assert seconds_at([(1000, 10.0)], 1000, rehearsed) == pytest.approx(10)
    assert seconds_at([(1000, 10.0)], 10_000, rehearsed) == pytest.approx(1000)
    assert seconds_at([(1000, 10.0)], 100, rehearsed) == pytest.approx(2)


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
