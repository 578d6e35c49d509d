"""The door to a task's black box, whichever kind it is: what a cell is given, and what a plan knows of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from bench.boxes import examined, files, teachers
from bench.boxes.box import black_box, predict
from bench.boxes.defences import defended
from bench.boxes.described import Endpoint, ModelFile, box_of
from bench.boxes.examined import BATCH
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.table import Task
from budgets.answers import top_1
from budgets.journal import Journal
from results import claims
from results.records import TeacherRecord


class Door(Protocol):
    """What answers a cell. Closed at the end of the cell."""

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities N x K, NaN where none is revealed, or top-1 classes of N, of float images in [0, 1]."""

    def right(self, part: str, images: Tensor) -> Tensor | None:
        """Its top-1 classes of the uint8 images of a split, which pass no meter; None where they are not to be had."""

    def resume(self, spent: int) -> None:
        """Go on behind so many images."""

    def close(self) -> None: ...


def record_of(task: Task, root: Path) -> TeacherRecord | None:
    """What is known of the task's black box, or None before it was trained or examined."""
    if box_of(task) is None:
        return teachers.record_of(task, root)
    known = examined.examined(task, root)
    return known.record if known else None


def open_door(task: Task, folder: Path, root: Path, device: torch.device) -> Door:
    """The door to the task's black box, for the cell in that folder; UsageError where it does not open."""
    box, source = box_of(task), sources.source_of(task.dataset)
    if box is None:
        return OfNetwork(teachers.load(task, root, device), task)
    if isinstance(box, ModelFile):
        ask, content = files.opened(box, source.shape, source.classes, device)
        known = examined.examined(task, root)
        if known is None or known.record.hash != examined.hash_of(box, content):
            raise UsageError(f"the model {box.file} is no longer the one that was examined; plan again")
        return OfFile(ask, task, root, device)
    return OfEndpoint(box, folder, task, root, device)


class OfNetwork:
    """To a network of ours, in this process."""

    _answered: ClassVar[dict[tuple[Task, str, str, str], Tensor]] = {}  # of the process: a slot's cells often share it

    def __init__(self, network: nn.Module, task: Task) -> None:
        self._network, self._task = network, task
        self._ask = defended(black_box(network), task.defence)

    def __call__(self, images: Tensor) -> Tensor:
        return self._ask(images)

    def right(self, part: str, images: Tensor) -> Tensor | None:
        key = (self._task, teachers.content_hash(self._network), part, str(images.device))
        if key not in self._answered:
            self._answered.clear()  # those of the last teacher alone are kept
            self._answered[key] = self._right(images)
        return self._answered[key].clone()

    def _right(self, images: Tensor) -> Tensor:
        if self._task.defence:
            return torch.cat([top_1(self(batch.float().div(255))) for batch in images.split(BATCH)])
        return predict(self._network, images)

    def resume(self, spent: int) -> None: ...

    def close(self) -> None: ...


class OfFile:
    """To a model in a file, in this process."""

    def __init__(self, ask: Callable[[Tensor], Tensor], task: Task, root: Path, device: torch.device) -> None:
        self._ask, self._task, self._root, self._device = ask, task, root, device

    def __call__(self, images: Tensor) -> Tensor:
        return self._ask(images)

    def right(self, part: str, images: Tensor) -> Tensor | None:  # noqa: ARG002 - they were answered before
        return examined.right_answers(self._task, self._root, self._device) if part == "test" else None

    def resume(self, spent: int) -> None: ...

    def close(self) -> None: ...


class OfEndpoint(OfFile):
    """To a model behind a URL; what a cell pays for is in the cell's journal."""

    def __init__(self, box: Endpoint, folder: Path, task: Task, root: Path, device: torch.device) -> None:
        from bench.boxes.http.client import Client

        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / "journal", {"cell": folder.name, "batch": box.batch})
        classes = sources.source_of(task.dataset).classes
        known = examined.examined(task, root)
        version = known.version if known else ""
        held = partial(claims.guard, folder)
        self._client = Client(box, classes, journal, examined.bill_of(task, root), folder.name, version, held)
        super().__init__(self._client, task, root, device)

    def resume(self, spent: int) -> None:
        self._client.resume(spent)

    def close(self) -> None:
        self._client.close()
