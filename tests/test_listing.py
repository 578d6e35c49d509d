"""bench teachers: what it trains, what it lists, what a check finds, and which weights from elsewhere it takes."""

import hashlib
from pathlib import Path

import pytest
import torch
from support import CPU, bench
from torch import Tensor

from bench.boxes import listing, teachers
from bench.boxes.recipes import EXPECTED, RECIPES, Expected, name_of, recipe_of
from bench.errors import UsageError
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import TASKS, task_of
from results.store import read_json, write_json

TASK = task_of("digits-lenet")
CHOSEN = {"digits-lenet-bn": TASK}
NO_DATA = Path("no-data")


def weights_of(root: Path) -> dict[str, Tensor]:
    """The network of the trained teacher as someone else would have saved it."""
    return {name: value.clone() for name, value in teachers.load(TASK, root, CPU).network.state_dict().items()}


def moments_of_digits() -> tuple[Tensor, Tensor]:
    mean, std = teachers.moments(sources.load("digits", NO_DATA).train.images)
    return mean.flatten(), std.flatten()


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
    path = teachers.folder_of(TASK, trained) / "teacher.json"
    sound = read_json(path)
    write_json(path, {**sound, "record": {**sound["record"], "test_accuracy": 0.5}})
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert line.wrong
    assert line.note == "test accuracy is 98.20 %"
    write_json(path, {**sound, "record": {**sound["record"], "hash": "0" * 16}})
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert line.wrong
    assert "is not the one on record" in line.note


def test_a_teacher_without_its_data_set_cannot_be_checked_and_is_not_called_wrong(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "missing", lambda *_: "data set digits is gone")
    [line] = listing.lines(CHOSEN, trained, NO_DATA, gpu=False, check_on="cpu")
    assert (line.state, line.note, line.wrong) == ("cannot check here", "data set digits is gone", False)


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "module.network."])
def test_weights_from_elsewhere_become_the_same_teacher(trained: Path, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "theirs.pt"
    torch.save({f"{prefix}{name}": value for name, value in weights_of(trained).items()}, file)
    record = listing.install(CHOSEN, file, tmp_path, NO_DATA)
    assert record == teachers.record_of(TASK, trained)  # the training set's moments are what ours was made with
    assert record == teachers.record_of(TASK, tmp_path)
    kept = read_json(teachers.folder_of(TASK, tmp_path) / "teacher.json")
    assert kept["weights"] == {"file": "theirs.pt", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    [line] = listing.lines(CHOSEN, tmp_path, NO_DATA, gpu=False)
    assert line.state == "from elsewhere"


def test_a_teacher_of_ours_brings_its_normalisation_with_it(trained: Path, tmp_path: Path) -> None:
    theirs = teachers.load(TASK, trained, CPU)
    theirs.mean += 0.25
    torch.save(theirs.state_dict(), tmp_path / "teacher.pt")
    listing.install(CHOSEN, tmp_path / "teacher.pt", tmp_path, NO_DATA)
    assert torch.equal(teachers.load(TASK, tmp_path, CPU).mean, theirs.mean)


def test_a_given_normalisation_is_the_teachers_own(trained: Path, tmp_path: Path) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    listing.install(CHOSEN, tmp_path / "theirs.pt", tmp_path, NO_DATA, listing.moments("0.5", "0.25"))
    teacher = teachers.load(TASK, tmp_path, CPU)
    assert (teacher.mean.item(), teacher.std.item()) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("mean", "std"),
    [("0.5", None), (None, "0.5"), ("a", "b"), ("0.5,", "1")],
    ids=["no std", "no mean", "words", "gap"],
)
def test_half_a_normalisation_is_refused(mean: str | None, std: str | None) -> None:
    with pytest.raises(UsageError, match="wanted both, numbers such as"):
        listing.moments(mean, std)


def test_a_normalisation_of_another_number_of_channels_is_refused(trained: Path, tmp_path: Path) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    moments = listing.moments("0.5,0.5,0.5", "1,1,1")
    with pytest.raises(UsageError, match="wanted 1 numbers each, given 3"):
        listing.install(CHOSEN, tmp_path / "theirs.pt", tmp_path, NO_DATA, moments)


def unfit(kind: str, weights: dict[str, Tensor]) -> object:
    first = next(iter(weights))
    mlp = networks.build("mlp", (1, 8, 8), 10).state_dict()
    return {
        "one lacks": {name: value for name, value in weights.items() if name != first},
        "one too many": {**weights, "fc.bias": torch.zeros(3)},
        "another shape": {**weights, first: torch.zeros(3)},
        "another network": mlp,
        "a whole checkpoint": {"state_dict": weights, "epoch": 3},
        "a list": [1, 2],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("one lacks", "the file lacks 0.weight"),
        ("one too many", "the file has unknown fc.bias"),
        ("another shape", "the file has another shape for 0.weight"),
        ("another network", "do not fit lenet-bn on digits"),
        ("a whole checkpoint", "wanted a state dict, names and tensors and nothing else"),
        ("a list", "wanted a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_told_in_one_line_and_leave_nothing(
    trained: Path, tmp_path: Path, kind: str, told: str
) -> None:
    file = tmp_path / "theirs.pt"
    torch.save(unfit(kind, weights_of(trained)), file)
    with pytest.raises(UsageError) as error:
        listing.install(CHOSEN, file, tmp_path, NO_DATA)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "teachers").exists()


def test_a_file_that_is_no_weights_and_a_place_that_is_taken_are_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.pt").write_text("no weights")
    with pytest.raises(UsageError, match="cannot be read"):
        listing.install(CHOSEN, tmp_path / "theirs.pt", tmp_path, NO_DATA)
    with pytest.raises(UsageError, match=r"there is a teacher in .* already"):
        listing.install(CHOSEN, tmp_path / "theirs.pt", trained, NO_DATA)


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
    weights = teachers.folder_of(TASK, trained) / "teacher.pt"
    state = torch.load(weights, weights_only=True)
    state["mean"] += 0.1
    torch.save(state, weights)
    assert bench(*command) == 1
    assert "wrong" in capsys.readouterr().out


def test_the_command_takes_weights(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    where = ["--task", "digits-lenet", "--out", str(tmp_path), "--weights", str(tmp_path / "theirs.pt")]
    assert bench("teachers", *where) == 0
    assert "from elsewhere" in capsys.readouterr().out
    assert bench("teachers", "--weights", "x.pt") == 2
    assert "wanted one teacher to put them to" in capsys.readouterr().err


def test_a_dry_run_lists_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("teachers", "--task", "digits*", "--dry-run") == 0
    assert "missing" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
