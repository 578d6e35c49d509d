"""All teachers of some tasks: which are there, and whether they are what their records say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.boxes import teachers
from bench.boxes.recipes import EXPECTED, kind_of, name_of
from bench.errors import UsageError
from bench.globs import matching, parted
from bench.provenance import set_precision
from bench.tasks.data import sources
from bench.tasks.table import TASKS, Task, obstacle, task_of
from results.records import TeacherRecord

SHORT_BY = 0.01  # a teacher that falls short of its expected accuracy by more is pointed out
SAME = 0.002  # accuracies measured on another machine or device may differ by so much
COLUMNS = ["teacher", "state", "hash", "validation %", "test %", "expected %", "note"]


@dataclass(frozen=True)
class Line:
    """What is said of one teacher. wrong: whether it is not what its record says."""

    task: Task
    state: str
    record: TeacherRecord | None = None
    note: str = ""
    wrong: bool = False

    @property
    def teacher(self) -> str:
        """Its name."""
        return name_of(self.task)

    def cells(self) -> list[str]:
        """In the order of COLUMNS."""
        expected = EXPECTED.get(kind_of(self.task))
        aim = f"{100 * expected.accuracy:.2f} ({expected.source})" if expected else ""
        if self.record is None:
            return [self.teacher, self.state, "", "", "", aim, self.note]
        measured = (self.record.validation_accuracy, self.record.test_accuracy)
        reached = ["" if share is None else f"{100 * share:.2f}" for share in measured]
        return [self.teacher, self.state, self.record.hash, *reached, aim, self.note]


def choose(globs: Iterable[str], seeds: Iterable[int] = (0,)) -> dict[str, Task]:
    """The teachers, of those seeds, of all tasks that match; UsageError for a glob that matches none."""
    wanted = parted(globs) or ["*"]
    names = matching("task", list(TASKS), wanted, lambda name: (name,))
    tasks = [task_of(name, seed) for name in names for seed in seeds]
    return {name_of(task): task for task in tasks}


def trainable(chosen: Mapping[str, Task], root: Path, data_folder: Path, *, gpu: bool) -> dict[str, Task]:
    """Those that are missing and can be trained here."""
    return {
        name: task
        for name, task in chosen.items()
        if teachers.record_of(task, root) is None and obstacle(task, data_folder, gpu) is None
    }


def _line(task: Task, root: Path, data_folder: Path, *, gpu: bool) -> Line:
    """What is on record of a teacher, or why there is none."""
    description = teachers.description_of(task, root)
    if description is None:
        reason = obstacle(task, data_folder, gpu)
        return Line(task, "cannot run here" if reason else "missing", note=reason or "")
    state = "from elsewhere" if "weights" in description.origin else "trained"
    return Line(task, state, description.record, _shortfall(task, description.record))


def _check(task: Task, record: TeacherRecord, root: Path, data_folder: Path, device: torch.device) -> Line:
    """Whether a teacher on record has the hash and the accuracies that it should."""
    if reason := sources.missing(task.dataset, data_folder):
        return Line(task, "cannot check here", record, reason)
    try:
        found = teachers.examine(teachers.load(task, root, device), sources.load(task.dataset, data_folder))
    except UsageError as error:
        return Line(task, "wrong", record, str(error), wrong=True)
    for split, on_record, measured in (
        ("validation", record.validation_accuracy, found.validation_accuracy),
        ("test", record.test_accuracy, found.test_accuracy),
    ):
        if on_record is None or measured is None or abs(on_record - measured) > SAME:
            return Line(task, "wrong", record, f"{split} accuracy is {100 * (measured or 0.0):.2f} %", wrong=True)
    return Line(task, "right", record, _shortfall(task, record))


def lines(
    chosen: Mapping[str, Task], root: Path, data_folder: Path, *, gpu: bool, check_on: str | None = None
) -> list[Line]:
    """A line for each teacher; check_on: a device on which to measure those there are again."""
    if check_on:
        set_precision()  # in which the accuracies on record were measured
    found = []
    for task in chosen.values():
        try:
            line = _line(task, root, data_folder, gpu=gpu)
        except UsageError as error:
            line = Line(task, "wrong", note=str(error), wrong=True)
        if check_on and line.record:
            line = _check(task, line.record, root, data_folder, torch.device(check_on))
        found.append(line)
    return found


def _shortfall(task: Task, record: TeacherRecord) -> str:
    expected = EXPECTED.get(kind_of(task))
    if expected is None or record.test_accuracy is None or record.test_accuracy >= expected.accuracy - SHORT_BY:
        return ""
    return f"{100 * (expected.accuracy - record.test_accuracy):.1f} points short of what is expected"
