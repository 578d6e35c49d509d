"""What a GPU has to finish its work for, counted round by round: on the CPU by what is asked of torch, on a GPU by its
own warnings."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from support import SHAPE, RecordingTeacher, linear_network, make_oracle, small_student
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from budgets import BudgetExhausted
from methods.images import Images, as_pixels
from methods.run import Run

# Kind -> operations. read: numbers come to the host. sized: how many there are is known only when they were counted.
# There is a third, sent: what is on the host goes to where the other tensors are.
OPERATIONS = {
    "read": {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero"},
    "sized": {
        *("aten::nonzero", "aten::masked_select", "aten::bincount", "aten::repeat_interleave", "aten::_unique2"),
        *("aten::unique_dim", "aten::unique_consecutive", "aten::unique_dim_consecutive"),
    },
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}  # sized, where a mask is among the indices
READING = {Tensor.tolist, Tensor.cpu}  # these leave no trace among the operations of the CPU
WRITING = {torch.tensor, torch.as_tensor, Tensor.to}  # sent, where a device is named and Python waits
ONLY_ON_THE_CPU = {F.one_hot}  # looks at its input there; on a GPU it leaves that to an assertion


class Counting(Protocol):
    """Something that counts while `counted` is open; `take` returns what was counted since the last time."""

    def counted(self) -> Any: ...

    def take(self) -> "Counter[str]": ...


class Syncs:
    """Counts on the CPU. What an optimizer's step looks at is left out: its numbers of steps are on the host."""

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()
        self._paused = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = register_optimizer_step_pre_hook(lambda *_: self._pause(1))
        after = register_optimizer_step_post_hook(lambda *_: self._pause(-1))
        try:
            with _Functions(self), _Operations(self):
                yield
        finally:
            before.remove()
            after.remove()

    def take(self) -> Counter[str]:
        found, self._found = self._found, Counter()
        return found

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is called by its name in Python."""
        given = (*args, *kwargs.values())
        self._note("read", function in READING)
        named = function in WRITING and any(isinstance(value, torch.device) for value in given)
        waited = not any(value is True for value in given)  # else non_blocking
        self._note("sent", function == Tensor.new_tensor or (named and waited))
        self._pause(only_here := function in ONLY_ON_THE_CPU)
        try:
            return function(*args, **kwargs)
        finally:
            self._pause(-only_here)

    def operate(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What comes to the dispatcher, of backward passes too."""
        name = operation.name().partition(".")[0]
        for kind, names in OPERATIONS.items():
            self._note(kind, name in names)
        self._note("sized", name in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1]))
        return operation(*args, **kwargs)

    def _note(self, kind: str, happens: bool) -> None:
        if happens and not self._paused:
            self._found[kind] += 1

    def _pause(self, change: int) -> None:
        self._paused += change


class _Functions(TorchFunctionMode):
    def __init__(self, syncs: Syncs) -> None:
        super().__init__()
        self._syncs = syncs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._syncs.call(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __init__(self, syncs: Syncs) -> None:
        super().__init__()
        self._syncs = syncs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._syncs.operate(func, args, kwargs or {})


class Warned:
    """Counts on a GPU, all as `read`, by what CUDA's synchronisation debug mode warns of."""

    def __init__(self) -> None:
        self._seen: list[warnings.WarningMessage] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as self._seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def take(self) -> Counter[str]:
        found = sum("synchronizing CUDA operation" in str(warning.message) for warning in self._seen)
        self._seen.clear()
        return Counter(read=found) if found else Counter()


def rounds_of(
    method: ModuleType, settings: dict[str, Any], answers: str, counting: Counting, device: torch.device, queries: int
) -> list[tuple[int, Counter[str]]]:
    """The rounds of a run on small images, each with how often the oracle was called and what was counted."""
    teacher = RecordingTeacher(linear_network().to(device))
    oracle, student = make_oracle(teacher, queries, answers), small_student().to(device)
    rng = torch.Generator(device).manual_seed(7)
    some = as_pixels(torch.rand(600, *SHAPE, generator=rng, device=device))
    data = Images(some, device) if method.DATA != "none" else None
    run, rounds, calls = Run(device, rng, data=data), [], 0
    config = method.Config(**settings)
    with counting.counted():
        try:
            for _ in method.distill(oracle, student, config, run):
                run.round += 1
                rounds.append((len(teacher.calls) - calls, counting.take()))
                calls = len(teacher.calls)
        except BudgetExhausted:
            pass
    return rounds
