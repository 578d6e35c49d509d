"""A rehearsal of a cell: what it takes on this device, found in seconds.

The method is played as in a cell, with its own networks, batches and steps, but nothing that it learns is kept, no data
are read, and no black box from elsewhere is asked. Small cells are simply played for a while. Of large ones, each
operation, such as a convolution of one shape, is carried out a few times with a clock beside it. From then on it is
counted: its usual time is added, and what it gave before stands for what it would give. The random numbers, the choices
and what is too short to be worth it are still carried out. So the steps, the queries and the time are those of the
cell, in a small part of the time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

from bench.boxes import teachers
from bench.boxes.box import black_box
from bench.boxes.defences import defended
from bench.boxes.described import box_of
from bench.cells.asked import Asked
from bench.cells.curve import Curve, marks
from bench.cells.exam import Exam
from bench.tasks.data import sources
from bench.tasks.students import student_of
from bench.tasks.table import Task
from budgets import Budget, BudgetExhausted, Oracle
from methods import METHODS
from methods.images import Images
from methods.run import Run

SAMPLES = 3  # how often an operation is carried out before it is counted
ENOUGH = 0.05  # seconds: what took so long on the CPU is carried out once; a GPU's first time is no measure
LEAST = 30e-6  # seconds: what takes less is carried out each time
SPLIT = 10_000  # images of a split, where the data set does not say how many it has
# Whose results are no values of their inputs: they are chosen, random, or of a size that the values decide.
WORKED_OUT = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """The clock by which runs on the device are rehearsed."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


class OutOfTime(BaseException):
    """Ends a rehearsal that takes too long; no Exception, so that no method holds it."""


@dataclass(frozen=True)
class Rehearsed:
    """rounds: (queries spent, seconds) after each round that was played, examinations included. whole: whether it came
    to the end of its budget; then `seconds` is the whole cell's. kept: (queries spent, bytes that the method keeps over
    rounds) after the first round and after the last."""

    queries: int
    seconds: float
    rounds: list[tuple[int, float]]
    whole: bool
    kept: list[tuple[int, int]]


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
    """Play the cell's method until its end, or until `limit` seconds are over.

    counting: whether what was carried out a few times is only counted. On a CPU with one thread the seconds are those
    of the processor, as on a machine that has nothing else to do; else of wall time.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), tempfile.TemporaryDirectory() as aside:
        torch.manual_seed(0)
        stage = _Stage(task, method, budget, root, device, Path(aside))
        clock = clock_of(device)
        counted = _Counted(device, clock, limit) if counting else _Watched(device, clock, limit)
        rounds, kept, whole = list[tuple[int, float]](), list[tuple[int, int]](), False
        with suppress(OutOfTime), counted:
            with suppress(BudgetExhausted):
                for figures in METHODS[method].distill(stage.oracle, stage.student, config, stage.run):
                    stage.curve.end_round(stage.oracle.spent, stage.oracle.distinct, 0, figures)
                    rounds.append((stage.oracle.spent, counted.seconds()))
                    if not kept:
                        with counted.pause():
                            kept.append(stage.kept())
            stage.curve.finish()
            whole = bool(rounds)
        return Rehearsed(budget.queries, counted.seconds(), rounds, whole, [*kept, stage.kept()])


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
        """Queries spent, and the bytes that the method keeps over rounds."""
        return self.oracle.spent, _bytes(self.run.state_dict()["parts"])


class _Lenient(Oracle):
    """A meter that takes what is no image any more, because operations before it were only counted."""

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return super().__call__(images)
        except ValueError:
            return super().__call__(images.nan_to_num(0.0).clamp(0, 1))


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
    return defended(black_box(network), task.defence) if task.defence else black_box(network)


def _images(method: str, budget: Budget, train: int, source: sources.Source, device: torch.device) -> Images | None:
    """Noise in the place of the images that a method asks for."""
    data = METHODS[method].DATA
    if data == "none":
        return None
    count = min(train, budget.queries) if data == "train" else budget.queries
    return Images(torch.randint(256, (count, *source.shape), dtype=torch.uint8), device)


def _bytes(state: Any) -> int:
    """The size of all tensors in a state dict."""
    if isinstance(state, Tensor):
        return state.nbytes
    parts: Iterable[Any] = (
        state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    )
    return sum(map(_bytes, parts))


@dataclass
class _Operation:
    """One of a network's operations at one shape. given: what stands for its result, once it is only counted."""

    taken: list[float]
    usual: float = 0.0
    given: Any = None


class _Watched:
    """Looks at the clock while a method plays; OutOfTime where `limit` seconds are over."""

    def __init__(self, device: torch.device, clock: Clock, limit: float) -> None:
        self._device, self._clock, self._limit = device, clock, limit
        self._aside = 0.0  # seconds that do not belong to the cell
        self._begun = clock()

    def __enter__(self) -> "_Watched":
        self._hook = register_optimizer_step_post_hook(lambda *_: self.check())
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def check(self) -> None:
        if self._clock() - self._begun > self._limit:
            raise OutOfTime

    def seconds(self) -> float:
        """What has been played so far."""
        return self.now() - self._begun - self._aside

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done meanwhile does not belong to the cell."""
        before = self.seconds()
        yield
        self._aside += self.seconds() - before

    def now(self) -> float:
        """The time when the device has done what it was told to."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


class _Counted(_Watched):
    """Carries out what is asked of torch, and counts the operations that it knows."""

    def __init__(self, device: torch.device, clock: Clock, limit: float) -> None:
        self._mode = _Mode(self)
        self._known: dict[Any, _Operation] = {}
        self._counted = 0.0  # seconds of what was not carried out
        self._calls = 0
        self._price = _price_of_a_call(clock)
        super().__init__(device, clock, limit)

    def __enter__(self) -> "_Counted":
        self._open = ExitStack()
        self._open.enter_context(self._mode)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def seconds(self) -> float:
        """What has been played so far would have taken this long."""
        return super().seconds() + self._counted - self._calls * self._price

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry an operation out, or count it."""
        self._calls += 1
        if not _is_pure(func):
            return func(*args, **kwargs)
        begun = self._clock()
        self.check()
        operation = self._known.setdefault((func, _shapes(args), _shapes(tuple(kwargs.items()))), _Operation([]))
        if operation.given is not None:
            self._counted += operation.usual
            given = _again(operation.given)
            self._aside += self._clock() - begun
            return given
        if operation.usual:  # it is too short to be counted
            self._aside += self._clock() - begun
            return func(*args, **kwargs)
        return self._timed(operation, begun, lambda: func(*args, **kwargs))

    def _timed(self, operation: _Operation, begun: float, carry_out: Callable[[], Any]) -> Any:
        """Carry the operation out with the clock beside it; at the last time, keep what it gives."""
        start = self.now()
        given = carry_out()
        end = self.now()
        operation.taken.append(end - start)
        long = self._device.type == "cpu" and sum(operation.taken) > ENOUGH
        if len(operation.taken) == SAMPLES or long:
            operation.usual = statistics.median(operation.taken)
            if operation.usual > LEAST and _may_stand_in(given):
                operation.given = _again(given)
        self._aside += self._clock() - begun - (end - start)
        return given


class _Mode(TorchDispatchMode):
    """Shows each operation to what counts."""

    def __init__(self, counted: "_Counted | _PassingOn") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._of = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._of.call(func, args, kwargs or {})


@cache
def _is_pure(func: Any) -> bool:
    """Whether an operation makes something new of tensors, and nothing else."""
    schema = func._schema
    makes_new = not schema.is_mutable and all(result.alias_info is None for result in schema.returns)
    of_tensors = any("Tensor" in str(argument.type) for argument in schema.arguments)
    return makes_new and of_tensors and not WORKED_OUT & set(func.tags) and "empty" not in schema.name


def _shapes(value: Any) -> Any:
    """What decides how long an operation on these arguments takes, as a key."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    return tuple(map(_shapes, value)) if isinstance(value, tuple | list) else value


def _may_stand_in(given: Any) -> bool:
    """Whether an old result does as well as a new one: numbers do, classes and choices do not."""
    tensors = [part for part in (given if isinstance(given, tuple | list) else [given]) if isinstance(part, Tensor)]
    return bool(tensors) and tensors[0].is_floating_point() and all(part.layout == torch.strided for part in tensors)


def _again(given: Any) -> Any:
    """The same values as tensors of their own, which autograd takes for new ones."""
    if isinstance(given, Tensor):
        return given.data
    return tuple(map(_again, given)) if isinstance(given, tuple | list) else given


class _PassingOn:
    """Counts nothing."""

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        _is_pure(func)
        return func(*args, **kwargs)


def _price_of_a_call(clock: Clock, calls: int = 1000) -> float:
    """Seconds by which an operation takes longer because it passes through Python."""
    value = torch.zeros(16)
    value.add(1)

    def seconds() -> float:
        begun = clock()
        for _ in range(calls):
            value.add(1)
        return clock() - begun

    plain = min(seconds() for _ in range(3))
    with _Mode(_PassingOn()):
        return max(0.0, min(seconds() for _ in range(3)) - plain) / calls
