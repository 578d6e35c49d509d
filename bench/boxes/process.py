"""A black box in a process of its own, with the meter that counts: the method's process holds no weights and no scores.

A method can reach into its own process: patch the oracle, ask past it, from threads or from forked children. Here that
buys it nothing. The other process never loads the method's file, answers as many images as the budget has, reveals what
the budget reveals, and says how many it answered; a cell whose own meter counted otherwise has no result. Between the
two pass JSON and plain numbers, no pickles: nothing that a method sends is code on the other side.

Not stopped: whatever a process may do to others of the same user, such as to start them with other code, to read their
memory, the teacher's file or what an earlier attempt kept; and what a method does to the rest of its own process, where
the test images lie, the student is examined and its result is written. Who does that is found by reading the method.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.boxes.described import Attached, attach
from bench.boxes.door import Door, open_door
from bench.errors import UsageError
from bench.provenance import set_precision
from bench.tasks import image_folder
from bench.tasks.data import sources
from bench.tasks.image_folder import Folder
from bench.tasks.table import Task
from budgets import Budget, BudgetExhausted, Oracle

GRACE = 5.0  # seconds in which the other process may end by itself
PATIENCE = 600  # seconds after SIGTERM in which its cell may still ask
HEAD = 1000  # bytes that a question may have besides its images
DTYPES = {"uint8": torch.uint8, "int64": torch.int64, "float32": torch.float32}
RAISED: dict[str, type[Exception]] = {kind.__name__: kind for kind in (BudgetExhausted, UsageError, ValueError)}


class WentRound(Exception):
    """The black box and the cell's meter do not agree on how many images were answered."""


class OwnProcess:
    """The door to a black box in another process, for one cell. UsageError where it does not open.

    outside: of these, it loads the folder of images and the black box that the task is made of.
    """

    def __init__(
        self,
        task: Task,
        budget: Budget,
        folder: Path,
        root: Path,
        device: torch.device,
        outside: Sequence[Path | Folder | Attached],
    ) -> None:
        self._turn, self._owner = threading.Lock(), os.getpid()
        context = multiprocessing.get_context("spawn")  # not forked: a fork would hold what the method has patched
        self._connection, theirs = context.Pipe()
        needed = [item for item in outside if not isinstance(item, Path)]
        arguments = (theirs, task, budget, folder, root, str(device), torch.get_num_threads(), needed, self._owner)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._told()
        except BaseException:
            self.close()
            raise

    def __call__(self, images: Tensor) -> Tensor:
        answered = self._told({"ask": "answers"}, images)[1]
        assert answered is not None
        return answered.to(images.device)

    def right(self, part: str, images: Tensor) -> Tensor | None:
        answered = self._told({"ask": "right", "part": part}, images)[1]
        return None if answered is None else answered.to(images.device)

    def resume(self, spent: int) -> None:
        """Go on behind so many images. From here on the meter counts, and there is no other way to an answer."""
        self._told({"ask": "resume", "spent": spent})

    def check(self, counted: int) -> None:
        """Raise WentRound unless the black box has answered as many images as the cell's meter counted."""
        answered = self._told({"ask": "spent"})[0]["spent"]
        if answered != counted:
            raise WentRound(f"the black box answered {answered:,} images, the method's meter counted {counted:,}")

    def close(self) -> None:
        with suppress(OSError):  # of a method that has closed it
            self._connection.close()
        if os.getpid() == self._owner:
            self._process.join(GRACE)
            self._process.kill()
            self._process.join()

    def _told(self, question: dict[str, Any] | None = None, images: Tensor | None = None) -> "Message":
        """The answer of the other process, or its first word, if it was asked nothing; raises what it raised."""
        if os.getpid() != self._owner:  # two processes at one pipe would read each other's answers
            raise UsageError("the black box answers the cell's own process alone, none that it forks")
        with self._turn:
            said, numbers = self._exchanged(packed(question, images) if question else b"")
        if "raised" in said:
            raise RAISED[said["raised"]](said["why"])
        return said, numbers

    def _exchanged(self, question: bytes) -> "Message":
        try:
            if question:
                self._connection.send_bytes(question)
            return unpacked(self._connection.recv_bytes())
        except BaseException as error:  # also Ctrl-C: what comes next would be taken for the answer to another question
            self._connection.close()
            if isinstance(error, EOFError | OSError):
                raise UsageError(f"the process of the black box {self._end()}") from error
            raise

    def _end(self) -> str:
        self._process.join(GRACE)
        code = self._process.exitcode
        return f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"


Message = tuple[dict[str, Any], Tensor | None]


def packed(said: dict[str, Any], numbers: Tensor | None = None) -> bytes:
    """A message: a line of JSON, and behind it the bytes of the numbers."""
    if numbers is None:
        return json.dumps(said).encode()
    array = numbers.detach().cpu().contiguous().numpy()
    head = {**said, "dtype": array.dtype.name, "shape": array.shape}
    return b"\n".join([json.dumps(head).encode(), array.data])


def unpacked(message: bytes) -> Message:
    """What `packed` was given; all kinds of errors for what is no message."""
    head, newline, _ = message.partition(b"\n")
    said = json.loads(head)
    if not newline:
        return said, None
    content = bytearray(memoryview(message)[len(head) + 1 :])
    return said, torch.frombuffer(content, dtype=DTYPES[said["dtype"]]).view(said["shape"])


def _serve(
    connection: Connection,
    task: Task,
    budget: Budget,
    folder: Path,
    root: Path,
    device: str,
    threads: int,
    needed: Sequence[Folder | Attached],
    parent: int,
) -> None:
    """The life of the other process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C is for the cell, which asks on until it has saved its work
        signal.signal(number, signal.SIG_IGN)
    # SIGTERM too, as clusters send it to all processes of a job at once; but whoever ends this one alone shall have it.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    set_precision()
    try:
        _load(needed)
        door = open_door(task, folder, root, torch.device(device))
        source = sources.source_of(task.dataset)
        oracle = Oracle(door, budget, shape=source.shape, classes=source.classes)
    except Exception as error:
        connection.send_bytes(_raised(UsageError(str(error))))
        return
    connection.send_bytes(packed({}))
    Served(door, oracle, device).talk(connection)
    door.close()
    os._exit(0)  # taking the interpreter down would take half a second, while the cell waits


def _end_with(parent: int) -> None:
    """End this process when the cell's has ended, whatever it is at. The pipe may outlive that in a forked child."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _load(needed: Sequence[Folder | Attached]) -> None:
    """Make the task known that these make: its images and its black box, not its student."""
    for item in needed:
        if isinstance(item, Folder):
            image_folder.register(item, anew=False)
        elif item.box:
            attach(replace(item, student=""))


class Served:
    """The questions that the other process answers: first those that pass no meter, then those that do."""

    def __init__(self, door: Door, oracle: Oracle, device: str) -> None:
        self._door, self._oracle, self._device = door, oracle, device
        self._metered = False
        self._most: int | None = None  # bytes of a question

    def talk(self, connection: Connection) -> None:
        """Answer until nobody asks any more, or until a question is longer than the budget lets it be."""
        with suppress(EOFError, OSError):
            while True:
                connection.send_bytes(self.answered(connection.recv_bytes(self._most)))

    def answered(self, message: bytes) -> bytes:
        """The answer to a question, or what is wrong with it, be it never so odd."""
        try:
            said, images = unpacked(message)
            return packed(*self._answer(said, images))
        except Exception as error:
            return _raised(error)

    def _answer(self, said: dict[str, Any], images: Tensor | None) -> Message:
        asked = said["ask"]
        if asked == "spent":
            return {"spent": self._oracle.spent}, None
        if (asked == "answers") != self._metered:
            raise ValueError(f"{asked}: wanted {'before' if self._metered else 'after'} the meter begins to count")
        if asked == "resume":
            self._resume(said["spent"])
            return {}, None
        if images is None:
            raise ValueError(f"{asked}: wanted images")
        images = images.to(self._device)
        return {}, self._oracle(images) if self._metered else self._door.right(said["part"], images)

    def _resume(self, spent: int) -> None:
        self._oracle.load_state_dict({**self._oracle.state_dict(), "spent": int(spent)})
        self._door.resume(int(spent))
        pixel = torch.float32.itemsize
        self._most = HEAD + pixel * self._oracle.remaining * torch.Size(self._oracle.shape).numel()
        self._metered = True


def _raised(error: Exception) -> bytes:
    """An error as the cell's process is to raise it."""
    kind = next((name for name, known in RAISED.items() if isinstance(error, known)), None)
    why = str(error) if kind else f"{type(error).__name__}: {error}"
    return packed({"raised": kind or "ValueError", "why": why})
