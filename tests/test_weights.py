"""Weights from elsewhere: which become a teacher, and that all others are told in one line and leave nothing behind."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import CPU, bench
from torch import Tensor

from bench.boxes import listing, teachers, weights
from bench.errors import UsageError
from bench.tasks import networks
from bench.tasks.table import task_of
from results.claims import lock

TASK = task_of("digits-lenet")
CHOSEN = {"digits-lenet-bn": TASK}
NO_DATA = Path("no-data")


def weights_of(root: Path) -> dict[str, Tensor]:
    """The network of the trained teacher as someone else would have saved it."""
    return {name: value.clone() for name, value in teachers.load(TASK, root, CPU).network.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "module.network."])
def test_weights_from_elsewhere_become_the_same_teacher(trained: Path, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "theirs.pt"
    torch.save({f"{prefix}{name}": value for name, value in weights_of(trained).items()}, file)
    record = weights.install(CHOSEN, file, tmp_path, NO_DATA)
    assert record == teachers.record_of(TASK, trained)  # the training set's moments are what ours was made with
    assert record == teachers.record_of(TASK, tmp_path)
    description = teachers.description_of(TASK, tmp_path)
    assert description is not None
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert description.origin == {"weights": {"file": "theirs.pt", "sha256": sha256}}
    [line] = listing.lines(CHOSEN, tmp_path, NO_DATA, gpu=False)
    assert line.state == "from elsewhere"


def test_a_teacher_of_ours_brings_its_normalisation_with_it(trained: Path, tmp_path: Path) -> None:
    theirs = teachers.load(TASK, trained, CPU)
    theirs.mean += 0.25
    torch.save(theirs.state_dict(), tmp_path / "teacher.pt")  # as the first versions kept it
    weights.install(CHOSEN, tmp_path / "teacher.pt", tmp_path, NO_DATA)
    assert torch.equal(teachers.load(TASK, tmp_path, CPU).mean, theirs.mean)
    weights.install(CHOSEN, teachers.file_of(TASK, tmp_path), tmp_path / "another", NO_DATA)
    assert teachers.record_of(TASK, tmp_path / "another") == teachers.record_of(TASK, tmp_path)


def test_a_given_normalisation_is_the_teachers_own(trained: Path, tmp_path: Path) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    weights.install(CHOSEN, tmp_path / "theirs.pt", tmp_path, NO_DATA, weights.normalisation("0.5", "0.25"))
    teacher = teachers.load(TASK, tmp_path, CPU)
    assert (teacher.mean.item(), teacher.std.item()) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        ("0.5", None, "wanted both, numbers such as"),
        (None, "0.5", "wanted both, numbers such as"),
        ("", "", "wanted both, numbers such as"),
        ("a", "b", "wanted both, numbers such as"),
        ("0.5,", "1", "wanted both, numbers such as"),
        ("0.5", "0", "wanted finite numbers, those of std above 0"),
        ("0.5", "-1", "wanted finite numbers, those of std above 0"),
        ("0.5", "nan", "wanted finite numbers, those of std above 0"),
        ("0.5", "inf", "wanted finite numbers, those of std above 0"),
        ("nan", "1", "wanted finite numbers, those of std above 0"),
        ("-inf", "1", "wanted finite numbers, those of std above 0"),
        ("1e300", "1", "wanted finite numbers, those of std above 0"),
        ("0.5,0.5,0.5", "1,1,1", "wanted 1 numbers each, given 3"),
        ("0.5", "1,1,1", "wanted 1 numbers each, given 3"),
    ],
)
def test_a_normalisation_that_is_none_is_told_in_one_line_and_leaves_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mean: str | None, std: str | None, told: str
) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    given = [f"--{name}={value}" for name, value in (("mean", mean), ("std", std)) if value is not None]
    where = ["--task", "digits-lenet", "--out", str(tmp_path / "runs"), "--weights", str(tmp_path / "theirs.pt")]
    assert bench("teachers", *where, *given) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs" / "teachers").exists()


def another(state: dict[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    """The state with another value for its first name."""
    return {**state, next(iter(state)): value}


def spoilt(state: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    first = next(iter(state.values())).clone()
    first[0] = share
    return another(state, first)


UNFIT: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one lacks": (lambda state: dict([*state.items()][1:]), "the file lacks 0.weight"),
    "one too many": (lambda state: {**state, "fc.bias": torch.zeros(3)}, "the file has unknown fc.bias"),
    "half a normalisation": (lambda state: {**state, "mean": torch.zeros(1, 1, 1)}, "the file has unknown mean"),
    "std 0": (lambda state: {**state, "mean": torch.zeros(1, 1, 1), "std": torch.zeros(1, 1, 1)}, "std above 0"),
    "another shape": (lambda state: another(state, torch.zeros(3)), "the file has another shape for 0.weight"),
    "another network": (lambda _: networks.build("mlp", (1, 8, 8), 10).state_dict(), "do not fit lenet-bn on digits"),
    "not a number": (lambda state: spoilt(state, torch.nan), "has no plain finite numbers for 0.weight"),
    "infinite": (lambda state: spoilt(state, torch.inf), "has no plain finite numbers for 0.weight"),
    "complex": (lambda state: another(state, torch.zeros(16, 1, 5, 5, dtype=torch.complex64)), "no plain finite"),
    "sparse": (lambda state: another(state, torch.zeros(16, 1, 5, 5).to_sparse()), "no plain finite"),
    "a whole checkpoint": (lambda state: {"state_dict": state, "epoch": 3}, "names and tensors and nothing else"),
    "a list": (lambda _: [1, 2], "wanted a state dict"),
    "nothing": (lambda _: {}, "the file lacks 0.bias"),
    "code": (lambda _: {"0.weight": Runs()}, "cannot be read (UnpicklingError)"),
}


class Runs:
    """What runs a command when it is unpickled carelessly."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch was-run",)


def assert_refused(file: Path, root: Path, told: str) -> None:
    with pytest.raises(UsageError) as error:
        weights.install(CHOSEN, file, root, NO_DATA)
    assert told in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (root / "teachers").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", UNFIT)
def test_weights_that_do_not_fit_are_told_in_one_line_and_leave_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change, told = UNFIT[kind]
    torch.save(change(weights_of(trained)), tmp_path / "theirs.pt")
    assert_refused(tmp_path / "theirs.pt", tmp_path, told)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pt"]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_of_weights_cut_short_is_told_in_one_line(
    trained: Path, tmp_path: Path, legacy: bool, share: float
) -> None:
    file = tmp_path / "theirs.pt"
    torch.save(weights_of(trained), file, _use_new_zipfile_serialization=not legacy)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert_refused(file, tmp_path, "cannot be read")


NO_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda _: None, "there is no such file"),
    "a folder": (Path.mkdir, "there is no such file"),
    "a pipe": (os.mkfifo, "there is no such file"),
    "a device without end": (lambda file: file.symlink_to("/dev/zero"), "there is no such file"),
    "a link that loops": (lambda file: file.symlink_to(file), "there is no such file"),
    "text": (lambda file: file.write_text("no weights"), "cannot be read (UnpicklingError)"),
    "a terabyte of nothing": (lambda file: (file.touch(), os.truncate(file, 2**40)), "cannot be read"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_file_of_weights_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    make, told = NO_WEIGHTS[kind]
    make(tmp_path / "theirs.pt")
    assert_refused(tmp_path / "theirs.pt", tmp_path, told)


def test_a_place_that_is_taken_or_being_trained_is_left_alone(trained: Path, tmp_path: Path) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    with pytest.raises(UsageError, match=r"there is a teacher in .* already"):
        weights.install(CHOSEN, tmp_path / "theirs.pt", trained, NO_DATA)
    with (
        lock(teachers.folder_of(TASK, tmp_path)),
        pytest.raises(UsageError, match="another process is training the teacher in"),
    ):
        weights.install(CHOSEN, tmp_path / "theirs.pt", tmp_path, NO_DATA)
    assert teachers.record_of(TASK, tmp_path) is None


def test_the_command_takes_weights(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights_of(trained), tmp_path / "theirs.pt")
    where = ["--task", "digits-lenet", "--out", str(tmp_path), "--weights", str(tmp_path / "theirs.pt")]
    assert bench("teachers", *where) == 0
    assert "from elsewhere" in capsys.readouterr().out
    assert bench("teachers", "--weights", "x.pt") == 2
    assert "wanted one teacher to put them to" in capsys.readouterr().err
