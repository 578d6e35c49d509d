"""A black box in a process of its own, with the meter that counts: the method's process holds no weights and no scores.

A method can reach into its own process: patch the oracle, ask past it, from threads or from forked children. Here that
buys it nothing. The other process answers so many images as the budget has, reveals what the budget reveals, and says
at the end how many it answered; a cell whose own meter counted less has no result.
"""

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.boxes.door import open_door
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.table import Task
from budgets import Budget, BudgetExhausted, Oracle

GRACE = 5.0  # seconds in which the other process may end by itself


class WentRound(Exception):
    """The black box answered more images than the cell's meter counted."""


class OwnProcess:
    """The door to a black box in another process, for one cell.

    load: what that process is to call first, to know the task. Raises UsageError where the box does not open.
    """

    def __init__(
        self,
        task: Task,
        budget: Budget,
        folder: Path,
        root: Path,
        device: torch.device,
        load: Callable[[], object],
    ) -> None:
        self._turn = threading.Lock()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, task, budget, folder, root, str(device), torch.get_num_threads(), load)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._said()

    def __call__(self, images: Tensor) -> Tensor:
        answered: Tensor = torch.from_numpy(self._told("ask", images.detach().cpu().numpy())).to(images.device)
        return answered

    def right(self, part: str, images: Tensor) -> Tensor | None:
        answered = self._told("right", (part, images.cpu().numpy()))
        return None if answered is None else torch.from_numpy(answered).to(images.device)

    def resume(self, spent: int) -> None:
        self._told("resume", spent)

    def close(self) -> None:
        self._connection.close()
        self._process.join(GRACE)
        self._process.kill()

    def check(self, counted: int) -> None:
        """Raise WentRound where the black box has answered more images than the cell's meter counted."""
        answered = self._told("spent", None)
        if answered != counted:
            raise WentRound(f"the black box answered {answered:,} images, the method's meter counted {counted:,}")

    def _told(self, what: str, content: Any) -> Any:
        with self._turn:
            self._connection.send((what, content))
            return self._said()

    def _said(self) -> Any:
        """The answer of the other process, or what it raised."""
        try:
            kind, content = self._connection.recv()
        except (EOFError, OSError) as error:
            raise UsageError("the process of the black box has died") from error
        if kind == "raised":
            raise content
        return content


def _serve(
    connection: Connection,
    task: Task,
    budget: Budget,
    folder: Path,
    root: Path,
    device: str,
    threads: int,
    load: Callable[[], object],
) -> None:
    """The life of the other process: what is right first, then what is metered, until the cell is done."""
    from bench.provenance import set_precision

    torch.set_num_threads(threads)
    set_precision()
    try:
        load()
        door = open_door(task, folder, root, torch.device(device))
        source = sources.source_of(task.dataset)
        served = _Served(door, Oracle(door, budget, shape=source.shape, classes=source.classes), device)
    except Exception as error:
        connection.send(("raised", UsageError(str(error))))
        return
    connection.send(("opened", None))
    while True:
        try:
            what, content = connection.recv()
        except (EOFError, OSError):
            door.close()
            return
        try:
            connection.send(("answered", served.answer(what, content)))
        except (BudgetExhausted, ValueError, UsageError) as error:
            connection.send(("raised", error))
        except Exception as error:  # a question that no oracle asks
            connection.send(("raised", ValueError(f"{type(error).__name__}: {error}")))


class _Served:
    """The questions that the other process answers. The first metered one ends those that pass no meter."""

    def __init__(self, door: Any, oracle: Oracle, device: str) -> None:
        self._door, self._oracle, self._device, self._metered = door, oracle, device, False

    def answer(self, what: str, content: Any) -> Any:
        if what == "ask":
            self._metered = True
            return self._oracle(torch.from_numpy(content).to(self._device)).cpu().numpy()
        if what == "spent":
            return self._oracle.spent
        if self._metered:
            raise ValueError(f"{what}: wanted before the first metered question")
        if what == "resume":
            self._oracle.load_state_dict({"spent": content, "distinct": torch.empty(0, dtype=torch.int64)})
            return self._door.resume(content)
        part, images = content
        found = self._door.right(part, torch.from_numpy(np.asarray(images)).to(self._device))
        return None if found is None else found.cpu().numpy()
