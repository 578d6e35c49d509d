"""Rehearsals: what they tell of time and memory, and what they leave alone."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CPU, QUICK, bench, digits_cell

from bench.boxes.described import Attached, Endpoint, attach
from bench.cells.cell import canonical_config
from bench.cells.counting import SAMPLES, Counted, Known, forget_results
from bench.cells.rehearsal import Rehearsed, rehearse
from bench.cells.run import run_cell
from bench.grids.calibration import Calibration, calibrate, file_of, key_of, known, points_of, to_calibrate
from bench.grids.estimate import estimate
from bench.grids.growth import seconds_at
from bench.grids.plan import Planned
from bench.provenance import device_name
from bench.tasks.table import task_of
from budgets import Budget
from methods import METHODS
from results.records import plain
from results.store import state_of, write_json

NO_DATA = Path("no-data")
QUICK_ONES = ("ideal", "dfme", "noise")


def run_of(method: str, *budgets: int, **changed: object) -> Planned:
    """A run of the digits, not yet with a cell, that answers for those budgets."""
    module = METHODS[method]
    config = canonical_config(method, {**QUICK[method], **changed})
    budget = Budget(budgets[-1], module.ANSWERS[0])
    return Planned(method, "digits-lenet", method, config, budget, budgets, module.PROTOCOL, 0, 0, budgets[-1])


def played(
    method: str, queries: int, root: Path, *, counting: bool, limit: float = 60.0, **changed: object
) -> Rehearsed:
    run = run_of(method, queries, **changed)
    config = METHODS[method].Config.model_validate_json(run.config)
    return rehearse(task_of(run.task), method, config, run.budget, root, CPU, limit, counting=counting)


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Calibration]:
    root = tmp_path_factory.mktemp("calibrated")
    return {method: calibrate([run_of(method, 100, 2000)], root, CPU, "here", 0.3) for method in QUICK_ONES}


@settings(deadline=None)
@given(st.sampled_from(QUICK_ONES), st.integers(100, 1_000_000), st.integers(100, 1_000_000))
def test_calibrated_time_never_falls_with_the_budget_nor_below_the_rate_that_was_measured(
    calibrations: dict[str, Calibration], method: str, one: int, two: int
) -> None:
    points, (less, more) = calibrations[method].points, sorted((one, two))
    assert 0 < seconds_at(points, less) <= seconds_at(points, more)
    largest, seconds = max(points)
    assert seconds_at(points, max(more, largest)) >= seconds * max(more, largest) / largest * (1 - 1e-9)


@pytest.mark.parametrize("method", sorted(QUICK))
def test_a_rehearsal_that_counts_has_the_rounds_and_the_queries_of_the_run(method: str, tmp_path: Path) -> None:
    plain, counted = (played(method, 200, tmp_path, counting=counting) for counting in (False, True))
    assert plain.whole
    assert counted.whole
    assert [spent for spent, _ in counted.rounds] == [spent for spent, _ in plain.rounds]
    assert counted.kept == plain.kept


def test_what_is_only_counted_takes_the_time_that_it_would_take(tmp_path: Path) -> None:
    wide = {"generator_width": 64, "batch_size": 100, "generator_steps": 12}
    begun = time.process_time()
    counted = played("ideal", 300, tmp_path, counting=True, **wide)
    real = time.process_time() - begun
    plain = played("ideal", 300, tmp_path, counting=False, **wide)
    assert plain.seconds / 2 < counted.seconds < plain.seconds * 2
    assert real < counted.seconds / 2


def test_a_rehearsal_ends_when_its_time_is_over_and_says_so(tmp_path: Path) -> None:
    for counting in (False, True):
        begun = time.process_time()
        assert not played("dfme", 1_000_000, tmp_path, counting=counting, limit=0.3).whole
        assert time.process_time() - begun < 5


def test_chance_is_worked_out_and_only_numbers_stand_in_for_others() -> None:
    weights = torch.rand(300, 300, requires_grad=True)
    images = torch.rand(300, 300)
    with Counted(CPU, time.process_time, 60.0) as counted:
        drawn = {torch.rand(()).item() for _ in range(10)}
        results = [images @ weights for _ in range(10)]
        results[-1].sum().backward()
        classes = [(images + k).argmax().item() for k in range(3)]
    assert len(drawn) == 10
    assert all(torch.equal(result, images @ weights) for result in results)
    assert weights.grad is not None
    assert len(classes) == 3
    assert counted._counted > 0


def test_what_is_only_counted_teaches_nothing_so_that_no_number_runs_away() -> None:
    layer = torch.nn.Linear(300, 300)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e6)
    before = [parameter.clone() for parameter in layer.parameters()]
    with Counted(CPU, time.process_time, 60.0) as counted:
        for _ in range(10):
            optimizer.zero_grad()
            layer(torch.rand(300, 300)).square().mean().backward()
            optimizer.step()
        least, most = (value.item() for value in torch.rand(300, 300).aminmax())
    assert all(map(torch.equal, layer.parameters(), before))
    assert counted._counted > 0
    assert 0 <= least < most <= 1  # and not those of weights that were as large


def test_an_operation_is_timed_once_for_all_rehearsals_and_its_result_is_freed() -> None:
    images, known = torch.rand(300, 300), Known()
    for _ in range(2):
        with Counted(CPU, time.process_time, 60.0, known=known):
            for _ in range(SAMPLES + 1):
                product = images @ images
        (operation,) = known.values()
        assert len(operation.taken) <= SAMPLES
        assert torch.equal(operation.given, product)
        forget_results(known)
        assert operation.given is None


def test_calibration_asks_no_black_box_that_costs_money(tmp_path: Path) -> None:
    attached = Attached("digits-lenet", Endpoint(base="http://127.0.0.1:9/none", shape=(1, 8, 8), classes=10))
    attach(attached)
    made = calibrate([replace(run_of("noise", 100), task=attached.name)], tmp_path, CPU, "here", 1.0)
    assert made.ended
    assert made.key["teacher"] == "elsewhere"


def test_a_calibration_is_kept_and_is_no_result(tmp_path: Path) -> None:
    run = run_of("noise", 100, 500)
    made = calibrate([run], tmp_path, CPU, "here", 1.0)
    assert known(key_of(run, "here"), tmp_path) == made
    assert known(key_of(run, "another"), tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]
    assert made.memory > 1e7
    assert made.memory_at(1_000_000) > made.memory + 64 * 900_000


def test_only_what_was_not_rehearsed_to_an_end_is_rehearsed_again(tmp_path: Path) -> None:
    short, endless = run_of("noise", 100), run_of("dfme", 100)
    calibrate([short], tmp_path, CPU, "here", 1.0)
    unended = replace(calibrate([endless], tmp_path, CPU, "here", 1.0), ended=False)
    write_json(file_of(unended.key, tmp_path), plain(unended))
    assert list(to_calibrate([short, endless], "here", tmp_path).values()) == [[endless]]
    assert len(to_calibrate([short, endless], "another", tmp_path)) == 2


def test_runs_that_were_done_win_over_rehearsals(trained: Path) -> None:
    cell, run, here = digits_cell(trained, "noise", 300), run_of("noise", 300), device_name(CPU)
    calibrate([run], trained, CPU, here, 1.0)
    rehearsed = estimate([run], [], trained, here).seconds
    run_cell(cell, trained, NO_DATA, CPU)
    totals = state_of(trained / "cells" / cell.name(), None).totals
    assert totals is not None
    assert estimate([run], [], trained, here).seconds == pytest.approx(totals.seconds) != rehearsed


def test_a_run_whose_end_no_rehearsal_found_takes_longer_than_what_was_seen() -> None:
    unended = Rehearsed(5000, 40.0, [(2500, 20.0), (2500, 40.0)], False, (2500, 10))
    assert points_of([unended], on_the_way=False) == ([(5000.0, 40.0)], False)


def test_rounds_tell_of_later_ones_and_a_smaller_run_of_what_follows_the_last_query() -> None:
    rounds = [(10 * k, 1.0 * k) for k in range(1, 6)]
    half = Rehearsed(1000, 5.0, rounds, False, (0, 0))
    end = Rehearsed(50, 9.0, [*rounds, (50, 6.0), (50, 7.0)], True, (0, 0))
    (_, (queries, seconds)), ended = points_of([end, half], on_the_way=False)
    assert ended
    assert queries == 1000
    assert seconds == pytest.approx(100 + 2 * 20 + 2)  # rounds; two passes over twenty times as much; the exam


def said_at(queries: int, seconds: "np.ndarray[Any, Any]") -> float:
    """What ten rounds of 100 queries each, which ended at those seconds, tell of so many queries."""
    rounds = [(100 * k, float(end)) for k, end in enumerate(seconds, start=1)]
    ((_, said),), _ = points_of([Rehearsed(queries, rounds[-1][1], rounds, False, (0, 0))], on_the_way=False)
    return said


def test_rounds_that_grow_are_told_from_rounds_whose_clock_is_noisy() -> None:
    growing = np.cumsum(10 + 0.1 * np.arange(10))  # a percent of the first more each round
    assert said_at(100_000, growing) == pytest.approx(60_000, rel=0.02)
    noise = np.random.default_rng(0).uniform(0.8, 1.25, (300, 10))
    noisy = [said_at(100_000, np.cumsum(10 * factors)) for factors in noise]
    assert np.mean([7_000 < said < 14_000 for said in noisy]) > 0.98


def test_the_plan_is_calibrated_by_one_command_and_fits_a_hundred_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    choice = ("--grid", "digits", "--method", "dfme", "--out", str(tmp_path), "--jobs", "1")
    assert bench("plan", *choice) == 0
    assert "bench plan --calibrate" in capsys.readouterr().out
    assert bench("plan", *choice, "--calibrate", "--patience", "0.2") == 0
    first = capsys.readouterr().out
    assert bench("plan", *choice) == 0
    again = capsys.readouterr().out
    assert again in first
    assert "GB" in again
    assert not (tmp_path / "cells").exists()


HELD_OUT = {
    "ideal": (run_of("ideal", 200, 800, generator_width=32), 2000),
    "dfme": (run_of("dfme", 500, 2000), 5000),
    "noise": (run_of("noise", 200, 2000), 6000),
    "disguide": (run_of("disguide", 200, 1000), 3000),
    "dip_kd": (run_of("dip_kd", 200, 1000, passes=20, contrast_passes=5), 3000),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", HELD_OUT)
def test_held_out_cells_take_what_was_said_within_a_half(method: str, trained: Path) -> None:
    run, queries = HELD_OUT[method]
    made = calibrate([run], trained, CPU, "here", 2.0)
    cell = digits_cell(trained, method, queries)
    cell = replace(cell, config=run.config)
    begun = time.process_time()
    run_cell(cell, trained, NO_DATA, CPU)
    took = time.process_time() - begun
    said = seconds_at(made.points, queries)
    print(f"{method}: said {said:.2f} s, took {took:.2f} s, {said / took:.2f}")
    assert abs(math.log(said / took)) < math.log(1.5)
