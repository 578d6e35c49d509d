"""One run of a method on a small teacher, watched: what the claims of the contract look at afterwards."""

import copy
import io
import os
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.boxes.box import black_box
from bench.errors import told
from budgets import Budget, BudgetExhausted, Oracle
from methods.images import Images
from methods.run import Run

SHAPE, CLASSES = (1, 8, 8), 4
MOST_ROUNDS = 5_000  # more, within a budget of a few hundred queries, is a method that does not end

Complaint = str | None


class StillAsking(BaseException):
    """Ends a method that asks on after its budget is exhausted; no `except Exception` of its own holds it."""


class Unsaved(Exception):
    """The state that a method tracks cannot go into a checkpoint."""


class WatchedOracle(Oracle):
    """An oracle that notes the sizes of the batches it answered, and how often it had to refuse."""

    batches: list[int]
    refused: int

    def __call__(self, images: Tensor) -> Tensor:
        try:
            answers = super().__call__(images)
        except BudgetExhausted as end:
            self.refused += 1
            if self.refused > 3:
                raise StillAsking from end
            raise
        self.batches.append(len(images))
        return answers


class Trial:
    """One run of a method, with all that the claims look at afterwards.

    kills: the rounds after which its process dies; it goes on from its checkpoint, as the runner would.

    seen: images that the teacher was shown, through the oracle or round it.
    after: the queries spent and the student's weights after each round.
    error: why it broke off, if it did. odd: what is wrong with the figures it yields.
    changed: what it left changed of all that it shares with the rest of its process.
    """

    def __init__(
        self,
        method: ModuleType,
        settings: dict[str, Any],
        budget: Budget,
        *,
        seed: int = 0,
        kills: Collection[int] = (),
    ) -> None:
        self.method, self.budget, self._settings, self._kills = method, budget, settings, kills
        self.seen, self.after, self.changed = 0, list[tuple[int, Tensor]](), dict[str, None]()
        self.error: Complaint = None
        self.odd: Complaint = None
        with torch.random.fork_rng(), _surroundings() as self._changes:
            torch.manual_seed(0)
            self.teacher = _teacher()
            self.teacher_before = copy.deepcopy(self.teacher.state_dict())
            self.teacher.register_forward_hook(self._see)
            self._begin()
            self.data = None if method.DATA == "none" else _images()
            self.run = Run(torch.device("cpu"), torch.manual_seed(seed), data=self.data)
            self._play()
            self.reseeded = not kills and torch.initial_seed() != seed

    def __str__(self) -> str:
        """The terms it was played under."""
        inputs = "" if self.budget.inputs == "float" else f", {self.budget.inputs} inputs"
        return f"{self.budget.answers}, {self.budget.queries} queries{inputs}"

    @property
    def rounds(self) -> int:
        """How many it completed."""
        return len(self.after)

    def weights(self) -> Tensor:
        """All of the student's weights and buffers in one vector."""
        return torch.cat([value.flatten().double() for value in self.student.state_dict().values()])

    def _begin(self) -> None:
        """A student that knows nothing, and an oracle of which nothing is spent."""
        self.student = _student()
        self.oracle = WatchedOracle(black_box(self.teacher), self.budget, shape=SHAPE, classes=CLASSES)
        self.oracle.batches, self.oracle.refused = [], 0

    def _play(self) -> None:
        """To the end, through all deaths on the way; whatever the method raises is told and ends it."""
        try:
            while not self._ended():
                self._resume()
        except Unsaved as error:
            self.error = str(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.error = f"it raises {told(error)}{_place(error, self.method)}"
        self.changed |= dict.fromkeys(self._changes())

    def _ended(self) -> bool:
        """Round after round, as the runner does it, until the method or its budget ends, or its process dies."""
        try:
            for figures in self.method.distill(
                self.oracle, self.student, self.method.Config(**self._settings), self.run
            ):
                self._end_round(figures)
                if self.rounds in self._kills:
                    return False
                if self.rounds > MOST_ROUNDS:
                    break
        except (BudgetExhausted, StillAsking):
            pass
        self.run.check_resumed()
        return True

    def _end_round(self, figures: object) -> None:
        self.run.check_resumed()
        self.run.round += 1
        self.after.append((self.oracle.spent, self.weights()))
        self.odd = self.odd or _odd(figures)
        self.changed |= dict.fromkeys(self._changes())

    def _resume(self) -> None:
        """Go on with nothing but what a checkpoint holds, and with random generators that are somewhere else."""
        state = (self.student.state_dict(), self.oracle.state_dict(), self.run.state_dict())
        student, oracle, run = _through_a_file(state)
        self._begin()
        self.student.load_state_dict(student)
        self.oracle.load_state_dict(oracle)
        self.run = Run(torch.device("cpu"), torch.manual_seed(99), data=self.data, saved=run)

    def _see(self, _: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        self.seen += len(inputs[0])


def _teacher() -> nn.Module:
    """A linear classifier at a scale where it meets all its classes."""
    layer = nn.Linear(64, CLASSES, bias=False)
    nn.init.normal_(layer.weight, 0, 0.5)
    return nn.Sequential(nn.Flatten(), layer)


def _images() -> Images:
    return Images(torch.randint(256, (400, *SHAPE), dtype=torch.uint8), torch.device("cpu"))


def _student() -> nn.Module:
    """A convolution, batch norm and a linear layer: enough to have weights, buffers and modes."""
    convolution = nn.Conv2d(1, 4, 3, padding=1, stride=2)
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))


def _through_a_file(state: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """The state as it comes back from a checkpoint; Unsaved if it does not."""
    try:
        torch.save(state, file := io.BytesIO())
        file.seek(0)
        back: tuple[dict[str, Any], ...] = torch.load(file, weights_only=True)
    except Exception as error:
        raise Unsaved(
            "its state cannot be saved and read again: state_dict() of what run.track names may hold tensors, "
            f"numbers, texts, lists and dicts ({type(error).__name__})"
        ) from error
    return back


def _odd(figures: object) -> Complaint:
    """What keeps the figures of a round from being written down, if anything does."""
    if not isinstance(figures, dict):
        return f"it yields a {type(figures).__name__}: wanted a dict of figures"
    for name, value in figures.items():
        if type(name) is not str:
            return f"it yields a figure under {name!r}: wanted a name, a str"
        if type(value) not in {float, int}:
            wanted = ".item()" if hasattr(value, "item") else "a float or an int"
            return f"it yields a {type(value).__name__.lower()} under {name!r}: wanted {wanted}"
    return None


def _place(error: BaseException, method: ModuleType) -> str:
    """The line of the method at which it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == method.__file__]
    return f" (line {lines[-1]})" if lines else ""


def _environment() -> dict[str, str]:
    """All but torch's own variables, some of which it sets when it makes its first optimizer."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}


def _set_environment(values: dict[str, str]) -> None:
    for name in _environment().keys() - values.keys():
        del os.environ[name]
    os.environ.update(values)


# What a method shares with the rest of its process: how to look at it, and how to put it back.
SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of torch's threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "the working folder": (Path.cwd, os.chdir),
    "the environment": (_environment, _set_environment),
}


def surroundings() -> dict[str, Any]:
    """What a method shares with the rest of its process, as it is now."""
    return {name: look() for name, (look, _) in SHARED.items()}


@contextmanager
def _surroundings() -> Iterator[Callable[[], list[str]]]:
    """Gives a function that names what has changed of SHARED, and puts all of it back at the end."""
    before = surroundings()

    def changes() -> list[str]:
        return [name for name, (look, _) in SHARED.items() if look() != before[name]]

    try:
        yield changes
    finally:
        for name in changes():
            SHARED[name][1](before[name])
