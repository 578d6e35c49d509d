"""bench teachers: what it trains, what it lists, and what a check finds."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from support import bench, rewrite_teacher

from bench.boxes import listing, teachers
from bench.boxes.recipes import EXPECTED, RECIPES, Expected, name_of, recipe_of
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.table import TASKS, task_of

TASK = task_of("digits-lenet")
CHOSEN = {"digits-lenet-bn": TASK}
NO_DATA = Path("no-data")


def test_a_teacher_is_listed_once_for_all_tasks_that_share_it() -> None:
    assert listing.choose(["digits-*"]) == {"digits-lenet-bn": TASKS["digits-mlp"]}
    assert set(listing.choose([])) == {name_of(task) for task in TASKS.values()}


def test_a_task_that_is_unknown_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown task 'digits-lenett'; did you mean digits-lenet"):
        listing.choose(["digits-lenett"])


def test_only_what_is_missing_and_can_run_here_is_trained(trained: Path, tmp_path: Path) -> None:
    chosen = listing.choose(["digits-lenet", "mnist-lenet5", "cifar10-resnet18"])
    assert set(listing.trainable(chosen, tmp_path, NO_DATA, gpu=False)) == {"digits-lenet-bn"}
    assert not listing.trainable(chosen, trained, NO_DATA, gpu=False)
    states = {line.teacher: (line.state, line.note) for line in listing.lines(chosen, trained, NO_DATA, gpu=False)}
    assert states["digits-lenet-bn"] == ("trained", "")
    assert states["mnist-lenet5"][0] == states["cifar10-resnet18"][0] == "cannot run here"
    assert "no-data" in states["mnist-lenet5"][1]
    assert "no GPU here" in states["cifar10-resnet18"][1]


def test_a_teacher_that_falls_short_is_pointed_out(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPECTED, "digits-lenet-bn", Expected(0.999, "a dream"))
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False)
    assert line.note == "1.7 points short of what is expected"
    assert "99.90 (a dream)" in line.cells()
    assert not line.wrong


def test_a_sound_teacher_is_right_and_a_changed_one_wrong(trained: Path) -> None:
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert (line.state, line.wrong) == ("right", False)
    file, sound = teachers.file_of(TASK, trained), asdict(teachers.record_of(TASK, trained))
    rewrite_teacher(file, record={**sound, "test_accuracy": 0.5})
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert line.wrong
    assert line.note == "test accuracy is 98.20 %"
    rewrite_teacher(file, record={**sound, "hash": "0" * 16})
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert line.wrong
    assert "its weights are not those on record" in line.note


def test_a_broken_file_is_a_line_among_the_others_checked_or_not(trained: Path) -> None:
    teachers.file_of(TASK, trained).write_bytes(b"broken")
    chosen = listing.choose(["digits-lenet", "mnist-lenet5"])
    for check_on in (None, "cpu"):
        states = {line.teacher: line for line in listing.lines(chosen, trained, NO_DATA, gpu=False, check_on=check_on)}
        assert states["digits-lenet-bn"].wrong
        assert "delete the folder" in states["digits-lenet-bn"].note
        assert states["mnist-lenet5"].state == "cannot run here"


def test_a_teacher_without_its_data_set_cannot_be_checked_and_is_not_called_wrong(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "missing", lambda *_: "data set digits is gone")
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert (line.state, line.note, line.wrong) == ("cannot check here", "data set digits is gone", False)


def test_every_task_has_a_recipe_and_every_expectation_a_teacher() -> None:
    names = {name_of(task) for task in TASKS.values()}
    assert all(recipe_of(task).epochs > 0 for task in TASKS.values())
    assert EXPECTED.keys() <= names
    assert {key for key in RECIPES if key not in names} == {task.dataset for task in TASKS.values()} | {"folder"}


def test_a_network_with_a_recipe_of_its_own_is_not_trained_by_that_of_its_data_set() -> None:
    assert recipe_of(task_of("cifar10-cnn3")) == RECIPES["cifar10-cnn3"] != RECIPES["cifar10"]
    assert recipe_of(task_of("cifar10-resnet18")) == RECIPES["cifar10"]


def test_digits_and_mnist_teachers_lie_where_they_always_did() -> None:
    names = [teachers.folder_of(task_of(task), Path()).name for task in ("digits-lenet", "mnist-lenet5")]
    assert names == ["digits-lenet-bn-09afa62f", "mnist-lenet5-87f5b5b0"]


# The command


def test_the_command_trains_what_is_missing_and_lists_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("teachers", "--task", "digits*,mnist-lenet5") == 0
    told = capsys.readouterr().out
    assert "1/1 teacher digits-lenet-bn" in told
    record = teachers.record_of(TASK, tmp_path / "runs")
    assert record is not None
    assert record.hash in told
    assert "cannot run here" in told


def test_the_command_checks_and_ends_with_1_where_one_is_wrong(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["teachers", "--task", "digits*", "--out", str(trained), "--check"]
    assert bench(*command) == 0
    assert "right" in capsys.readouterr().out
    file = teachers.file_of(TASK, trained)
    state = torch.load(file, weights_only=True)
    state["mean"] += 0.1
    rewrite_teacher(file, state)
    assert bench(*command) == 1
    assert "wrong" in capsys.readouterr().out


def test_a_dry_run_lists_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("teachers", "--task", "digits*", "--dry-run") == 0
    assert "missing" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
