"""A rehearsal of a cell: what it takes on this device, found in seconds.

The method is played as in a cell, with its own networks, batches and steps, but nothing that it learns is kept, no data
are read, and no black box from elsewhere is asked. Small cells are simply played for a while; of large ones, what was
carried out a few times is only counted (counting.py). So the steps, the queries and the time are those of the cell, in
a small part of the time.
"""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from bench.boxes import teachers
from bench.boxes.box import black_box
from bench.boxes.defences import defended
from bench.boxes.described import box_of
from bench.cells.asked import Asked
from bench.cells.counting import Counted, OutOfTime, Watched, clock_of, known_on
from bench.cells.curve import Curve, marks
from bench.cells.exam import Exam
from bench.tasks.data import sources
from bench.tasks.students import student_of
from bench.tasks.table import Task
from budgets import Budget, BudgetExhausted, Oracle
from methods import METHODS
from methods.images import Images
from methods.run import Run

ROUNDS = 6  # that tell how the time of a round grows
LONGER = 32  # times the limit that a rehearsal may take which tells nothing yet, or which is near its end
SPLIT = 10_000  # images of a split, where the data set does not say how many it has


@dataclass(frozen=True)
class Rehearsed:
    """rounds: (queries spent, seconds) after each round that was played, examinations included. whole: whether it came
    to the end of its budget; then `seconds` is the whole cell's. kept: (queries spent, bytes of images that the method
    keeps over rounds) at the end."""

    queries: int
    seconds: float
    rounds: list[tuple[int, float]]
    whole: bool
    kept: tuple[int, int]

    @property
    def asks_on(self) -> bool:
        """Whether the method asks in each of its rounds, so that a few of them tell of the others."""
        spent = [queries for queries, _ in self.rounds]
        return len(spent) > 2 and all(later > earlier for earlier, later in pairwise(spent[:-1]))

    @property
    def tells(self) -> bool:
        """Whether it says what its budget takes."""
        return self.whole or self.asks_on


def rehearse(
    task: Task,
    method: str,
    config: BaseModel,
    budget: Budget,
    root: Path,
    device: torch.device,
    limit: float,
    *,
    counting: bool,
) -> Rehearsed:
    """Play the cell's method until its end, or for so many seconds, or LONGER times that where its rounds tell nothing
    of later ones, or where that should do to come to the end.

    counting: whether what was carried out a few times is only counted. On a CPU with one thread the seconds are those
    of the processor, as on a machine that has nothing else to do; else of wall time.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), tempfile.TemporaryDirectory() as aside:
        torch.manual_seed(0)
        stage, clock = _Stage(task, method, budget, root, device, Path(aside)), clock_of(device)
        how = (device, clock, LONGER * limit)
        watch = Counted(*how, known=known_on(device)) if counting else Watched(*how)
        played = Rehearsed(budget.queries, 0.0, [], False, (0, 0))
        with suppress(OutOfTime), watch:
            with suppress(BudgetExhausted):
                for figures in METHODS[method].distill(stage.oracle, stage.student, config, stage.run):
                    stage.curve.end_round(stage.oracle.spent, stage.oracle.distinct, 0, figures)
                    played.rounds.append((stage.oracle.spent, watch.seconds()))
                    enough = watch.passed() > limit and len(played.rounds) >= ROUNDS and played.asks_on
                    if enough and watch.passed() * budget.queries > LONGER * limit * stage.oracle.spent:
                        raise OutOfTime
            stage.curve.finish()
            played = replace(played, whole=bool(played.rounds))
        return replace(played, seconds=watch.seconds(), kept=stage.kept())


class _Stage:
    """The parts of a cell, with images of noise in the place of data and, where there is no teacher yet, one that has
    learnt nothing: none of this changes how long anything takes."""

    def __init__(self, task: Task, method: str, budget: Budget, root: Path, device: torch.device, aside: Path) -> None:
        source = sources.source_of(task.dataset)
        train, test = (size or SPLIT for size in source.sizes)
        asked = Asked(_teacher(task, root, device), budget.answers)
        self.oracle = _Lenient(asked, budget, shape=source.shape, classes=source.classes)
        self.student = student_of(task).to(device)
        data = _images(method, budget, train - source.validation, source, device)
        self.run = Run(device, torch.Generator(device).manual_seed(0), data=data)
        images = torch.randint(256, (test, *source.shape), dtype=torch.uint8, device=device)
        right = torch.zeros(test, dtype=torch.int64, device=device)
        exam = Exam(images, {"accuracy": right, "agreement": right})
        due = marks(METHODS[method].PROTOCOL, budget.queries)
        self.curve = Curve(aside / "curve.json", due, self.student, self.run, exam, asked, None)

    def kept(self) -> tuple[int, int]:
        """Queries spent, and the bytes of images that the method keeps over rounds."""
        return self.oracle.spent, _bytes(self.run.state_dict()["parts"], self.oracle.shape)


class _Lenient(Oracle):
    """A meter that takes noise for what is no image any more, because operations before it were only counted."""

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return super().__call__(images)
        except ValueError:
            return super().__call__(torch.rand_like(images))


def _teacher(task: Task, root: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The task's teacher, or where there is none, one of its kind; for a black box from elsewhere, chance."""
    if box_of(task) is not None:
        classes = sources.source_of(task.dataset).classes
        return lambda images: torch.rand(len(images), classes, device=images.device).softmax(dim=1)
    if teachers.record_of(task, root):
        network = teachers.load(task, root, device)
    else:
        network = teachers.untrained(task).eval().requires_grad_(False).to(device)
        network.std.fill_(1.0)
    return defended(black_box(network), task.defence)


def _images(method: str, budget: Budget, train: int, source: sources.Source, device: torch.device) -> Images | None:
    """Noise in the place of the images that a method asks for."""
    data = METHODS[method].DATA
    if data == "none":
        return None
    count = min(train, budget.queries) if data == "train" else budget.queries
    return Images(torch.randint(256, (count, *source.shape), dtype=torch.uint8), device)


def _bytes(state: Any, shape: tuple[int, ...]) -> int:
    """The size of all tensors of images of that shape in a state dict."""
    if isinstance(state, Tensor):
        return state.nbytes if state.shape[1:] == shape else 0
    parts: Iterable[Any] = (
        state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    )
    return sum(_bytes(part, shape) for part in parts)
