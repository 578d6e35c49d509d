"""All teachers of some tasks: which are there, whether they are what their records say, and weights from elsewhere."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.boxes import teachers
from bench.boxes.recipes import EXPECTED, name_of
from bench.errors import UsageError
from bench.globs import matching
from bench.tasks.data import sources
from bench.tasks.table import TASKS, Task, obstacle, task_of
from results.records import TeacherRecord
from results.store import read_json

SHORT_BY = 0.01  # a teacher that falls short of its expected accuracy by more is pointed out
SAME = 0.002  # accuracies measured on another machine or device may differ by so much
COLUMNS = ["teacher", "state", "hash", "validation %", "test %", "expected %", "note"]


@dataclass(frozen=True)
class Line:
    """What is said of one teacher. wrong: whether it is not what its record says."""

    teacher: str
    state: str
    record: TeacherRecord | None = None
    note: str = ""
    wrong: bool = False

    def cells(self) -> list[str]:
        """In the order of COLUMNS."""
        expected = EXPECTED.get(self.teacher)
        aim = f"{100 * expected.accuracy:.2f} ({expected.source})" if expected else ""
        if self.record is None:
            return [self.teacher, self.state, "", "", "", aim, self.note]
        reached = [f"{100 * share:.2f}" for share in (self.record.validation_accuracy, self.record.test_accuracy)]
        return [self.teacher, self.state, self.record.hash, *reached, aim, self.note]


def choose(globs: Iterable[str]) -> dict[str, Task]:
    """The teachers of all tasks that match, one task for each teacher; UsageError for a glob that matches none."""
    wanted = [glob for text in globs for glob in text.split(",")] or ["*"]
    names = matching("task", list(TASKS), wanted, lambda name: (name,))
    return {name_of(task): task for task in map(task_of, names)}


def trainable(chosen: Mapping[str, Task], root: Path, data_folder: Path, *, gpu: bool) -> dict[str, Task]:
    """Those that are missing and can be trained here."""
    return {
        name: task
        for name, task in chosen.items()
        if teachers.record_of(task, root) is None and obstacle(task, data_folder, gpu) is None
    }


def _line(name: str, task: Task, record: TeacherRecord | None, root: Path, data_folder: Path, *, gpu: bool) -> Line:
    """What is on record of a teacher, or why there is none."""
    if record is None:
        reason = obstacle(task, data_folder, gpu)
        return Line(name, "cannot run here" if reason else "missing", note=reason or "")
    weights = read_json(teachers.folder_of(task, root) / "teacher.json").get("weights")
    return Line(name, "from elsewhere" if weights else "trained", record, _shortfall(name, record))


def _check(name: str, task: Task, record: TeacherRecord, root: Path, data_folder: Path, device: torch.device) -> Line:
    """Whether a teacher on record has the hash and the accuracies that it should."""
    if reason := sources.missing(task.dataset, data_folder):
        return Line(name, "cannot check here", record, reason)
    try:
        found = teachers.examine(teachers.load(task, root, device), sources.load(task.dataset, data_folder))
    except UsageError as error:
        return Line(name, "wrong", record, str(error), wrong=True)
    for split, on_record, measured in (
        ("validation", record.validation_accuracy, found.validation_accuracy),
        ("test", record.test_accuracy, found.test_accuracy),
    ):
        if abs(on_record - measured) > SAME:
            return Line(name, "wrong", record, f"{split} accuracy is {100 * measured:.2f} %", wrong=True)
    return Line(name, "right", record, _shortfall(name, record))


def lines(
    chosen: Mapping[str, Task], root: Path, data_folder: Path, *, gpu: bool, check_on: str | None = None
) -> list[Line]:
    """A line for each teacher; check_on: a device on which to measure those there are again."""
    found = []
    for name, task in chosen.items():
        record = teachers.record_of(task, root)
        if check_on and record:
            found.append(_check(name, task, record, root, data_folder, torch.device(check_on)))
        else:
            found.append(_line(name, task, record, root, data_folder, gpu=gpu))
    return found


def moments(mean: str | None, std: str | None) -> tuple[Tensor, Tensor] | None:
    """`--mean` and `--std` as two vectors, or None if neither is given."""
    if mean is None and std is None:
        return None
    try:
        first, second = (torch.tensor([float(part) for part in (text or "").split(",")]) for text in (mean, std))
    except ValueError as error:
        raise UsageError(f"mean {mean}, std {std}: wanted both, numbers such as 0.5 or 0.5,0.4,0.4") from error
    return first, second


def install(
    chosen: Mapping[str, Task],
    file: Path,
    root: Path,
    data_folder: Path,
    normalisation: tuple[Tensor, Tensor] | None = None,
) -> TeacherRecord:
    """Make weights from elsewhere the one chosen teacher, measured like a trained one, the file's SHA-256 on record.

    normalisation: what the network's images are lessened and then divided by, each one number a channel; else what is
    in the file, if it is of a teacher of ours, else the moments of the training split. Raises UsageError for what does
    not fit.
    """
    if len(chosen) != 1:
        raise UsageError(f"weights {file}: wanted one teacher to put them to, --task names {len(chosen)}")
    [task] = chosen.values()
    folder = teachers.folder_of(task, root)
    if (folder / "teacher.json").exists():
        raise UsageError(f"there is a teacher in {folder} already; delete the folder to put another there")
    teacher, state = teachers.untrained(task), _state(file)
    dataset = sources.load(task.dataset, data_folder)
    mean, std = state.pop("mean", None), state.pop("std", None)
    if normalisation is not None:
        mean, std = (_per_channel(values, teacher.mean) for values in normalisation)
    elif mean is None or std is None:
        mean, std = teachers.moments(dataset.train.images)
    weights = {f"network.{key}": value for key, value in state.items()}
    _fill(teacher, {**weights, "mean": mean, "std": std}, file, task)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return teachers.keep(teacher, task, root, dataset, {"weights": {"file": file.name, "sha256": sha256}})


def _state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without the prefixes that wrappers leave."""
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"weights {file} cannot be read ({type(error).__name__}): wanted a state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights {file}: wanted a state dict, names and tensors and nothing else")
    return {str(key).removeprefix("module.").removeprefix("network."): value for key, value in state.items()}


def _fill(teacher: teachers.Teacher, state: dict[str, Tensor], file: Path, task: Task) -> None:
    """Put the weights in; UsageError with the first names that do not fit."""
    wanted = teacher.state_dict()
    faults = {
        "lacks": sorted(wanted.keys() - state.keys()),
        "has unknown": sorted(state.keys() - wanted.keys()),
        "has another shape for": sorted(
            key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape
        ),
    }
    for fault, keys in faults.items():
        if keys:
            names = ", ".join(key.removeprefix("network.") for key in keys[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise UsageError(
                f"weights {file} do not fit {task.teacher} on {task.dataset}: the file {fault} {names}{more}"
            )
    teacher.load_state_dict(state)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    if len(values) != len(like):
        raise UsageError(f"--mean and --std: wanted {len(like)} numbers each, given {len(values)}")
    return values.reshape(like.shape)


def _shortfall(name: str, record: TeacherRecord) -> str:
    expected = EXPECTED.get(name)
    if expected is None or record.test_accuracy >= expected.accuracy - SHORT_BY:
        return ""
    return f"{100 * (expected.accuracy - record.test_accuracy):.1f} points short of what is expected"
