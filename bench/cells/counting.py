"""The time of what torch is asked for, found without carrying all of it out.

Each operation, such as a convolution of one shape, is carried out a few times with a clock beside it. From then on it
is counted: its usual time is added, and what it gave before stands for what it would give. Carried out each time are
random numbers, choices, what changes something in place, and what is too short to be worth it.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

SAMPLES = 3  # how often an operation is carried out before it is counted
ENOUGH = 0.05  # seconds: what took so long on the CPU is carried out once; a GPU's first time is no measure
LEAST = 30e-6  # seconds: what takes less is carried out each time
FEW = 10  # values: a result of so few, a loss or the range of images, may decide what happens and is worked out
LARGE = 1_000_000  # values: larger results are stood for by zeros that all share, so that they take no memory
LOOK = 50  # operations between two looks at the clock, which may take as long as an operation
# Whose results are no values of their inputs: they are chosen, random, or of a size that the values decide.
WORKED_OUT = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """The processor's own for a CPU with one thread, which knows nothing of what else is running; else of wall time."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


class OutOfTime(BaseException):
    """Ends what takes too long; no Exception, so that no method holds it."""


class Watched:
    """Looks at the clock while a method plays; OutOfTime where `limit` seconds are over."""

    def __init__(self, device: torch.device, clock: Clock, limit: float) -> None:
        self._device, self._clock, self._limit = device, clock, limit
        self._begun = clock()

    def __enter__(self) -> "Watched":
        self._hook = register_optimizer_step_post_hook(lambda *_: self._stepped())
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def seconds(self) -> float:
        """What has been played so far."""
        return self._now() - self._begun

    def passed(self) -> float:
        """Seconds since the beginning, of those that are limited."""
        return self._clock() - self._begun

    def _stepped(self) -> None:
        if self.passed() > self._limit:
            raise OutOfTime

    def _now(self) -> float:
        """The time when the device has done what it was told to."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


@dataclass(frozen=True)
class Prices:
    """Seconds that this module adds to an operation that it passes on, to one that it knows as too short, and to one
    that it counts; and to what it times, for looking at the clock."""

    passed: float = 0.0
    short: float = 0.0
    counted: float = 0.0
    timed: float = 0.0


@dataclass
class Operation:
    """One operation at one shape. usual: seconds, once they are known. counts: whether it is then only counted, as soon
    as there is something that stands for its result, `given`."""

    taken: list[float]
    usual: float | None = None
    counts: bool = False
    given: Any = None


Known = dict[Any, Operation]  # by what decides how long an operation takes


@cache
def known_on(device: torch.device) -> Known:
    """The operations that this process has timed on a device, whatever it rehearsed: a student's steps are the same
    with many methods."""
    del device  # each has its own
    return {}


def forget_results(known: Known) -> None:
    """Keep what operations take, and free what they gave, which may be gigabytes."""
    for operation in known.values():
        operation.given = None


@dataclass(frozen=True)
class _Large:
    """A large tensor, of which only the shape matters."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def span(self) -> int:
        """How many values it reaches over."""
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class Counted(Watched):
    """Carries out what is asked of torch, and counts the operations that it knows. The time of those that are carried
    out with the clock beside them is not part of the limit."""

    def __init__(
        self,
        device: torch.device,
        clock: Clock,
        limit: float,
        *,
        known: Known | None = None,
        prices: Prices | None = None,
        least: float = LEAST,
    ) -> None:
        self._prices, self._least = prices or prices_of(clock), least
        self._known: Known = {} if known is None else known
        self._zeros: dict[torch.dtype, Tensor] = {}
        self._counted = self._timing = self._own = 0.0  # seconds: not carried out; with the clock beside it; of this
        self._calls = 0
        super().__init__(device, clock, limit)

    def __enter__(self) -> "Counted":
        self._mode = _Mode(self)
        self._hooks = [
            register_optimizer_step_pre_hook(lambda optimizer, *_: self._leave_alone(optimizer)),
            register_optimizer_step_post_hook(lambda *_: self._count()),
        ]
        self._count()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_counting()
        for hook in self._hooks:
            hook.remove()

    def seconds(self) -> float:
        """What has been played so far would have taken this long."""
        return super().seconds() + self._counted - self._own

    def passed(self) -> float:
        return super().passed() - self._timing

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry an operation out, or count it."""
        self._calls += 1
        if self._calls % LOOK == 0 and self.passed() > self._limit:
            raise OutOfTime
        if not _is_pure(func):
            self._own += self._prices.passed
            return func(*args, **kwargs)
        key = func, _shapes(args), tuple((name, _shapes(value)) for name, value in kwargs.items()) if kwargs else ()
        operation = self._known.get(key)
        if operation is None:
            operation = self._known[key] = Operation([])
        if operation.given is not None:
            self._counted += operation.usual or 0.0
            self._own += self._prices.counted
            return self._stand_in(operation.given)
        if operation.usual is None:
            return self._timed(operation, lambda: func(*args, **kwargs))
        self._own += self._prices.short
        given = func(*args, **kwargs)
        if operation.counts:
            operation.given = _in_short(given)
        return given

    def _count(self) -> None:
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _stop_counting(self) -> None:
        self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _leave_alone(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer take its step: of its many short operations most are in place, and would not be counted. It
        learns nothing, for gradients that stood for others would lead networks out of all numbers."""
        self._stop_counting()
        for parameter in (one for group in optimizer.param_groups for one in group["params"]):
            if parameter.grad is not None and not parameter.grad.is_sparse:
                parameter.grad.zero_()

    def _timed(self, operation: Operation, carry_out: Callable[[], Any]) -> Any:
        """Carry the operation out with the clock beside it; at the last time, keep what it gives."""
        begun = self._now()
        given = carry_out()
        took = max(0.0, self._now() - begun - self._prices.timed)
        operation.taken.append(took)
        long = self._device.type == "cpu" and sum(operation.taken) > ENOUGH
        if len(operation.taken) == SAMPLES or long:
            operation.usual = statistics.median(operation.taken)
            operation.counts = operation.usual >= self._least and _may_stand_in(given)
            operation.given = _in_short(given) if operation.counts else None
        self._timing += took
        self._own += self._prices.short + 2 * self._prices.timed
        return given

    def _stand_in(self, given: Any) -> Any:
        """What an operation gave before, as tensors of their own, which autograd takes for new ones."""
        if isinstance(given, Tensor):
            return given.data
        if isinstance(given, _Large):
            if given.span > len(self._zeros.get(given.dtype, ())):
                self._zeros[given.dtype] = torch.zeros(given.span, dtype=given.dtype, device=self._device)
            return self._zeros[given.dtype].data.as_strided(given.shape, given.stride)
        return tuple(map(self._stand_in, given)) if isinstance(given, tuple | list) else given


class _Mode(TorchDispatchMode):
    """Shows each operation to what counts."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._of = counted

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and skipping takes a tenth of the time of counting

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
    return tuple([_shapes(part) for part in value]) if isinstance(value, tuple | list) else value


def _may_stand_in(given: Any) -> bool:
    """Whether an old result does as well as a new one: many numbers do, classes, choices and single numbers do not."""
    tensors = [part for part in (given if isinstance(given, tuple | list) else [given]) if isinstance(part, Tensor)]
    if not tensors or tensors[0].numel() <= FEW:
        return False
    return tensors[0].is_floating_point() and all(part.layout == torch.strided for part in tensors)


def _in_short(given: Any) -> Any:
    """What an operation gave, without the values of large tensors."""
    if isinstance(given, Tensor):
        large = given.numel() > LARGE and given.is_floating_point()
        return _Large(given.shape, given.stride(), given.dtype) if large else given.data
    return tuple(map(_in_short, given)) if isinstance(given, tuple | list) else given


@cache
def prices_of(clock: Clock) -> Prices:
    """What counting costs on this machine, by what it makes of operations of which nothing else is to be said."""
    images, kernel = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 3, 3)
    convolve, look = (lambda: torch.nn.functional.conv2d(images, kernel)), (lambda: images.view(64))
    timed = statistics.median(-clock() + clock() for _ in range(200))
    passed = _price(look, clock, math.inf)
    short = _price(convolve, clock, math.inf)
    return Prices(passed, short, _price(convolve, clock, 0.0), timed)


def _price(operation: Callable[[], object], clock: Clock, least: float, times: int = 500) -> float:
    """Seconds by which the operation seems to take longer where those of at least `least` seconds are counted."""

    def took(seconds: Callable[[], float]) -> float:
        begun = seconds()
        for _ in range(times):
            operation()
        return seconds() - begun

    operation()
    plain = min(took(clock) for _ in range(3))
    with Counted(torch.device("cpu"), clock, math.inf, prices=Prices(), least=least) as counted:
        for _ in range(SAMPLES):
            operation()
        return max(0.0, min(took(counted.seconds) for _ in range(3)) - plain) / times
