"""Running a cell: its curve, its end, and what a kill, a failure or a broken file does to it."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageStat
from support import CPU, digits_cell

from bench.boxes import box, teachers
from bench.cells import run
from bench.cells.cell import Cell
from bench.cells.run import MARKS, CellFailed, run_cell
from results.store import Busy, lock, read_json

NO_DATA = Path("no-data")


def folder_of(root: Path, cell: Cell) -> Path:
    return root / "cells" / cell.name()


def curve_of(root: Path, cell: Cell) -> list[dict[str, object]]:
    points: list[dict[str, object]] = read_json(folder_of(root, cell) / "curve.json")
    return points


class Killed(BaseException):
    """Stands for a kill at a round: nothing in the runner catches it."""


def killed_after(rounds: int) -> Callable[..., None]:
    seen = 0

    def report(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > rounds:
            raise Killed

    return report


@pytest.mark.parametrize("method", ["ideal", "dfme", "disguide", "noise", "real"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_cell_killed_between_rounds_ends_with_the_same_curve_as_one_left_alone(
    trained: Path, tmp_path: Path, method: str, rounds: int
) -> None:
    cell = digits_cell(trained, method, 200)
    run_cell(cell, trained, NO_DATA, CPU)
    other = tmp_path / "other"
    other.mkdir()
    (other / "teachers").symlink_to(trained / "teachers")
    with pytest.raises(Killed):
        run_cell(cell, other, NO_DATA, CPU, killed_after(rounds), checkpoint_seconds=0)
    run_cell(cell, other, NO_DATA, CPU, checkpoint_seconds=0)
    assert curve_of(other, cell) == curve_of(trained, cell)
    totals, undisturbed = (read_json(folder_of(root, cell) / "done.json") for root in (other, trained))
    assert {key: totals[key] for key in ("spent", "distinct", "rounds")} == {
        key: undisturbed[key] for key in ("spent", "distinct", "rounds")
    }


def _run_slowly(cell: Cell, root: Path) -> None:
    torch.set_num_threads(1)
    run_cell(cell, root, NO_DATA, CPU, lambda *_: time.sleep(0.05), checkpoint_seconds=0)


def test_a_process_killed_at_any_moment_loses_nothing_but_time(trained: Path, tmp_path: Path) -> None:
    cell = digits_cell(trained, "ideal", 400)
    run_cell(cell, trained, NO_DATA, CPU)
    (tmp_path / "teachers").symlink_to(trained / "teachers")
    for delay in (0.3, 0.5, 0.4):
        process = multiprocessing.get_context("fork").Process(target=_run_slowly, args=(cell, tmp_path))
        process.start()
        time.sleep(delay)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    run_cell(cell, tmp_path, NO_DATA, CPU)
    assert curve_of(tmp_path, cell) == curve_of(trained, cell)


@pytest.mark.parametrize("relabel", ["once", "every_view"])
def test_an_anytime_point_is_what_a_run_of_that_budget_ends_with(trained: Path, relabel: str) -> None:
    along = digits_cell(trained, "ideal", 400, relabel=relabel)
    run_cell(along, trained, NO_DATA, CPU)
    for queries in (100, 250):
        alone = digits_cell(trained, "ideal", queries, relabel=relabel)
        run_cell(alone, trained, NO_DATA, CPU)
        point = next(point for point in curve_of(trained, along) if point["budget"] == queries)
        assert curve_of(trained, alone)[-1] == point


def test_a_per_budget_method_answers_for_its_own_budget_alone(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 200)
    run_cell(cell, trained, NO_DATA, CPU)
    assert [point["budget"] for point in curve_of(trained, cell)] == [200]


def test_every_point_was_measured_within_its_budget(trained: Path) -> None:
    cell = digits_cell(trained, "ideal", 400, relabel="every_view")
    run_cell(cell, trained, NO_DATA, CPU)
    points = curve_of(trained, cell)
    assert [point["budget"] for point in points] == [mark for mark in MARKS if 20 <= mark <= 400]
    assert all(point["spent"] <= point["budget"] for point in points)
    assert points[-1]["spent"] <= read_json(folder_of(trained, cell) / "done.json")["spent"] <= 400


def test_all_methods_start_from_the_same_student_with_the_same_seed(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[str] = []
    original = run.networks.build

    def build(name: str, shape: tuple[int, int, int], classes: int) -> torch.nn.Module:
        network = original(name, shape, classes)
        starts.append(teachers.content_hash(network))
        return network

    monkeypatch.setattr(run.networks, "build", build)
    for method in ("ideal", "noise"):
        run_cell(digits_cell(trained, method, 100, seed=5), trained, NO_DATA, CPU)
    _, first_student, _, second_student = starts  # a teacher to load the weights into, then the student
    assert first_student == second_student


def test_a_finished_cell_is_not_run_again(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 64)
    run_cell(cell, trained, NO_DATA, CPU)
    run_cell(cell, trained, NO_DATA, CPU, killed_after(0))


def test_a_failing_cell_leaves_its_reason_and_a_new_attempt_removes_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = digits_cell(trained, "noise", 70)
    with monkeypatch.context() as patch:
        patch.setattr(run.METHODS["noise"], "distill", lambda *_: 1 / 0)
        with pytest.raises(CellFailed, match="ZeroDivisionError: division by zero"):
            run_cell(cell, trained, NO_DATA, CPU)
    failure = read_json(folder_of(trained, cell) / "failed.json")
    assert failure["reason"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in failure["traceback"]
    run_cell(cell, trained, NO_DATA, CPU)
    assert not (folder_of(trained, cell) / "failed.json").exists()
    assert (folder_of(trained, cell) / "done.json").exists()


def test_a_budget_below_one_round_is_a_failure_with_that_reason(trained: Path) -> None:
    cell = digits_cell(trained, "dfme", 3)
    with pytest.raises(CellFailed, match="3 queries do not cover one round of dfme"):
        run_cell(cell, trained, NO_DATA, CPU)


def test_a_corrupt_checkpoint_fails_the_cell_in_one_line_and_stays_where_it_is(trained: Path) -> None:
    cell = digits_cell(trained, "ideal", 300)
    checkpoint = folder_of(trained, cell) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"half a checkpoint")
    with pytest.raises(CellFailed, match="delete it to start the cell over"):
        run_cell(cell, trained, NO_DATA, CPU)
    assert checkpoint.read_bytes() == b"half a checkpoint"


def test_a_checkpoint_of_other_code_is_not_continued(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = digits_cell(trained, "ideal", 220)
    with monkeypatch.context() as patch:
        patch.setattr(run, "code_version", lambda _: "older")
        with pytest.raises(Killed):
            run_cell(cell, trained, NO_DATA, CPU, killed_after(2), checkpoint_seconds=0)
    spent: list[int] = []
    run_cell(cell, trained, NO_DATA, CPU, lambda now, _: spent.append(now))
    assert spent[0] == 20


def test_a_cell_that_another_process_runs_is_left_to_it(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 60)
    with lock(folder_of(trained, cell)), pytest.raises(Busy):
        run_cell(cell, trained, NO_DATA, CPU)


def test_a_teacher_that_is_not_the_planned_one_fails_the_cell(trained: Path) -> None:
    cell = replace(digits_cell(trained, "noise", 50), teacher="0" * 16)
    with pytest.raises(CellFailed, match="plan again"):
        run_cell(cell, trained, NO_DATA, CPU)


def test_the_final_student_is_kept_on_request_and_scores_as_the_curve_says(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 90)
    run_cell(cell, trained, NO_DATA, CPU, keep_student=True)
    student = run.networks.build("lenet-bn", (1, 8, 8), 10)
    student.load_state_dict(torch.load(folder_of(trained, cell) / "student.pt", weights_only=True))
    test = run.sources.load("digits", NO_DATA).test
    assert box.accuracy(student.eval(), test) == curve_of(trained, cell)[-1]["accuracy"]


def test_a_network_shown_beside_the_student_has_figures_of_its_own(trained: Path) -> None:
    cell = digits_cell(trained, "disguide", 100)
    run_cell(cell, trained, NO_DATA, CPU)
    (point,) = curve_of(trained, cell)
    assert {"accuracy", "agreement", "accuracy_ensemble", "agreement_ensemble"} <= point.keys()
    assert point["agreement"] != point["agreement_ensemble"]


def test_the_images_last_sent_to_the_teacher_are_kept_for_the_report(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 100)
    run_cell(cell, trained, NO_DATA, CPU)
    with Image.open(folder_of(trained, cell) / "samples.png") as picture:
        assert picture.size == (16 * 8, 8)
        assert ImageStat.Stat(picture).stddev[0] > 50  # uniform noise
