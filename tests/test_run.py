"""Running a cell: its curve, its end, and what a kill, a failure or a broken file does to it."""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageStat
from support import CPU, digits_cell

from bench.boxes import box, teachers
from bench.cells import assemble, checkpoint, run
from bench.cells.cell import Cell
from bench.cells.checkpoint import Checkpoint
from bench.cells.curve import MARKS
from bench.cells.run import CellFailed, How, Interrupted, run_cell
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.networks import Normalised
from bench.tasks.students import student_of
from bench.tasks.table import Task, task_of
from methods import METHODS
from results.claims import Busy, lock
from results.records import Totals, read
from results.store import read_json, state_of, write_json

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
        run_cell(cell, other, NO_DATA, CPU, killed_after(rounds), how=How(checkpoint_seconds=0))
    run_cell(cell, other, NO_DATA, CPU, how=How(checkpoint_seconds=0))
    assert curve_of(other, cell) == curve_of(trained, cell)
    totals, undisturbed = (read_json(folder_of(root, cell) / "done.json") for root in (other, trained))
    assert {key: totals[key] for key in ("spent", "distinct", "rounds")} == {
        key: undisturbed[key] for key in ("spent", "distinct", "rounds")
    }


def _run_slowly(cell: Cell, root: Path) -> None:
    torch.set_num_threads(1)
    run_cell(cell, root, NO_DATA, CPU, lambda *_: time.sleep(0.05), how=How(checkpoint_seconds=0))


def test_a_process_killed_at_any_moment_loses_nothing_but_time(trained: Path, tmp_path: Path) -> None:
    cell = digits_cell(trained, "ideal", 400)
    run_cell(cell, trained, NO_DATA, CPU)
    (tmp_path / "teachers").symlink_to(trained / "teachers")
    for delay in (0.3, 0.5, 0.4):
        process = multiprocessing.get_context("fork").Process(target=_run_slowly, args=(cell, tmp_path))
        process.start()
        until = time.monotonic() + 60
        while not (folder_of(tmp_path, cell) / "checkpoint.pt").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(delay)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert (folder_of(tmp_path, cell) / "checkpoint.pt").exists(), "else nothing is gone on from"
    spent: list[int] = []
    run_cell(cell, tmp_path, NO_DATA, CPU, lambda now, _: spent.append(now))
    assert spent[0] > 20, "it starts over"
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
    original = assemble.student_of

    def student_of(task: Task) -> torch.nn.Module:
        network = original(task)
        starts.append(teachers.content_hash(network))
        return network

    monkeypatch.setattr(assemble, "student_of", student_of)
    for method in ("ideal", "noise"):
        run_cell(digits_cell(trained, method, 100, seed=5), trained, NO_DATA, CPU)
    first_student, second_student = starts
    assert first_student == second_student


def test_a_student_sees_images_behind_a_scaling_that_knows_nothing_of_the_data_and_is_part_of_the_identity(
    trained: Path,
) -> None:
    student = student_of(task_of("digits-lenet")).eval()
    images = torch.rand(3, 1, 8, 8)
    assert isinstance(student, Normalised)
    assert torch.equal(student(images), student.network((images - 0.5) / 0.25))
    assert digits_cell(trained, "noise", 50).identity()["scaling"] == [0.5, 0.25]


def test_updates_of_the_student_are_counted_and_those_of_other_networks_are_not(trained: Path) -> None:
    cell = digits_cell(trained, "disguide", 100)
    run_cell(cell, trained, NO_DATA, CPU)
    settings = json.loads(cell.config)
    (point,) = curve_of(trained, cell)
    assert point["steps"] == point["round"] * (settings["student_steps"] + settings["replays"])
    assert read_json(folder_of(trained, cell) / "done.json")["steps"] == point["steps"]


def test_a_resumed_cell_counts_on_and_keeps_its_sample_of_what_was_asked(trained: Path) -> None:
    curves = []
    for cell, kills in ((digits_cell(trained, "ideal", 300), 0), (digits_cell(trained, "ideal", 300), 3)):
        if kills:
            with pytest.raises(Killed):
                run_cell(cell, trained, NO_DATA, CPU, killed_after(kills), how=How(checkpoint_seconds=0))
        run_cell(cell, trained, NO_DATA, CPU)
        curves.append(curve_of(trained, cell))
        shutil.rmtree(folder_of(trained, cell))
    assert curves[0] == curves[1]
    assert {"steps", "fitted", "commonest"} <= curves[0][-1].keys()


def test_a_cell_meets_the_teacher_of_its_seed(trained: Path) -> None:
    record = teachers.train(task_of("digits-lenet", 1), trained, NO_DATA, CPU, lambda _: None)
    other = replace(digits_cell(trained, "noise", 64), teacher=record.hash, teacher_seed=1)
    run_cell(other, trained, NO_DATA, CPU)
    assert curve_of(trained, other) != curve_of_new(trained, digits_cell(trained, "noise", 64))
    wrong = replace(digits_cell(trained, "noise", 64), teacher_seed=1)
    with pytest.raises(CellFailed, match="is no longer"):
        run_cell(wrong, trained, NO_DATA, CPU)


def curve_of_new(root: Path, cell: Cell) -> list[dict[str, object]]:
    run_cell(cell, root, NO_DATA, CPU)
    return curve_of(root, cell)


def test_a_finished_cell_is_not_run_again(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 64)
    run_cell(cell, trained, NO_DATA, CPU)
    run_cell(cell, trained, NO_DATA, CPU, killed_after(0))


def test_a_failing_cell_leaves_its_reason_and_a_new_attempt_removes_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = digits_cell(trained, "noise", 70)
    with monkeypatch.context() as patch:
        patch.setattr(METHODS["noise"], "distill", lambda *_: 1 / 0)
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
    file = folder_of(trained, cell) / "checkpoint.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half a checkpoint")
    with pytest.raises(CellFailed, match=r"delete checkpoint.pt to start the cell over"):
        run_cell(cell, trained, NO_DATA, CPU)
    assert file.read_bytes() == b"half a checkpoint"


def test_a_checkpoint_of_other_code_is_not_continued(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = digits_cell(trained, "ideal", 220)
    with monkeypatch.context() as patch:
        patch.setattr(run, "versions_of", lambda _: {"method": 0})
        with pytest.raises(Killed):
            run_cell(cell, trained, NO_DATA, CPU, killed_after(2), how=How(checkpoint_seconds=0))
    spent: list[int] = []
    run_cell(cell, trained, NO_DATA, CPU, lambda now, _: spent.append(now))
    assert spent[0] == 20


def test_a_result_bears_the_version_that_its_cell_began_with(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, edits = digits_cell(trained, "noise", 70), itertools.count()
    monkeypatch.setattr(run, "versions_of", lambda _: {"method": next(edits)})  # as of a plugin that is being edited
    run_cell(cell, trained, NO_DATA, CPU)
    begun, done = (read_json(folder_of(trained, cell) / name) for name in ("cell.json", "done.json"))
    assert done["versions"] == begun["versions"] == {"method": 0}


def test_a_checkpoint_of_another_device_starts_over_and_says_so(trained: Path) -> None:
    cell = digits_cell(trained, "ideal", 240)
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, killed_after(2), how=How(checkpoint_seconds=0))
    file = folder_of(trained, cell) / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "key": {**state["key"], "device": "cuda"}}, file)
    spent: list[int] = []
    said: list[str] = []
    run_cell(cell, trained, NO_DATA, CPU, lambda now, _: spent.append(now), say=said.append)
    assert spent[0] == 20
    assert len(said) == 1
    assert "starts over: its checkpoint is of" in said[0]


def test_a_cell_that_is_told_to_end_leaves_a_checkpoint_and_no_failure(trained: Path) -> None:
    cell = digits_cell(trained, "ideal", 260)

    def end_at_60(spent: int, _: dict[str, float]) -> None:
        if spent == 60:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_cell(cell, trained, NO_DATA, CPU, end_at_60)
    assert state_of(folder_of(trained, cell), None).name == "started"
    spent: list[int] = []
    run_cell(cell, trained, NO_DATA, CPU, lambda now, _: spent.append(now))
    assert spent[0] == 80
    assert state_of(folder_of(trained, cell), None).name == "done"


def test_a_method_that_leaves_the_program_is_a_failure_with_that_reason(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit("no more paper")

    cell = digits_cell(trained, "noise", 71)
    monkeypatch.setattr(METHODS["noise"], "distill", leave)
    with pytest.raises(CellFailed, match="SystemExit: no more paper"):
        run_cell(cell, trained, NO_DATA, CPU)
    assert state_of(folder_of(trained, cell), None).name == "failed"


def test_what_a_newer_version_left_is_not_touched(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 72)
    file = folder_of(trained, cell) / "done.json"
    write_json(file, {"schema": 99, "accuracy": 1})
    with pytest.raises(UsageError, match="has schema 99"):
        run_cell(cell, trained, NO_DATA, CPU)
    assert read_json(file) == {"schema": 99, "accuracy": 1}


def test_the_points_of_an_attempt_that_is_not_gone_on_from_are_taken_away(trained: Path) -> None:
    cell = digits_cell(trained, "ideal", 280)
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, killed_after(8))
    curve = folder_of(trained, cell) / "curve.json"
    assert curve.exists()
    seen: list[bool] = []
    run_cell(cell, trained, NO_DATA, CPU, lambda *_: seen.append(curve.exists()))
    assert not seen[0]


def test_a_loaded_checkpoint_is_let_go(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class State(dict[str, object]):
        """A dictionary that can be pointed to weakly."""

    cell = digits_cell(trained, "ideal", 290)
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, killed_after(3), how=How(checkpoint_seconds=0))
    original, loaded = Checkpoint.load, []

    def load(self: Checkpoint, device: torch.device) -> tuple[object, str]:
        state, why = original(self, device)
        kept = State(state or {})
        loaded.append(weakref.ref(kept))
        return kept, why

    alive: list[bool] = []
    monkeypatch.setattr(Checkpoint, "load", load)
    run_cell(cell, trained, NO_DATA, CPU, lambda *_: alive.append(loaded[0]() is not None))
    assert not any(alive)


def test_checkpoints_take_a_small_part_of_the_time_however_long_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = checkpoint.Pace(20)
    written, took = 0.0, 50.0
    while now[0] < 20_000:
        now[0] += 1
        if pace.is_due():
            now[0] += took
            written += took
            pace.saved(took)
    assert 0 < written < 0.06 * now[0]


def test_what_computed_a_cell_is_on_record_with_it(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 73)
    run_cell(cell, trained, NO_DATA, CPU)
    totals = read(folder_of(trained, cell) / "done.json", Totals)
    assert totals.versions == {"method": 2, "meter": 1, "runner": 2, "exam": 1, "data": 1}
    assert totals.machine
    assert (totals.machine.threads, totals.machine.precision) == (torch.get_num_threads(), "float32")
    assert totals.machine.torch == torch.__version__
    assert totals.machine.device.endswith("cores")


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
    run_cell(cell, trained, NO_DATA, CPU, how=How(keep_student=True))
    student = student_of(task_of("digits-lenet"))
    student.load_state_dict(torch.load(folder_of(trained, cell) / "student.pt", weights_only=True))
    test = sources.load("digits", NO_DATA).test
    assert box.accuracy(student.eval(), test) == curve_of(trained, cell)[-1]["accuracy"]
    (folder_of(trained, cell) / "done.json").unlink()
    run_cell(cell, trained, NO_DATA, CPU)
    assert not (folder_of(trained, cell) / "student.pt").exists(), "of a result that is no more"


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
