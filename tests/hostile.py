"""Methods that do not keep to the rules: each an attack on the meter or on the teacher, run as any plugin is.

What a cell gets out of the black box, it leaves in the folder `loot`, a file for each answer; what it heard or saw
besides, in texts there.
"""

import gc
import json
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

import budgets.oracle
from budgets import BudgetExhausted, Oracle
from methods.run import Run

ANSWERS, DATA, PROTOCOL = ("labels", "probs", "rounded", "partial"), "none", "anytime"
HERE = Path(__file__).parent
TRIES = 3  # batches, one more than the budget of the tests covers
BATCH = 20
NUMBERS = count()
if "IMPORTED" in os.environ:
    (Path(os.environ["IMPORTED"]) / str(os.getpid())).touch()


class Config(BaseModel, frozen=True, extra="forbid"):
    """attack: a name in ATTACKS. loot: an existing folder."""

    attack: str = "honest"
    loot: str = ""


class Thief:
    """What all attacks are made of."""

    def __init__(self, oracle: Oracle, run: Run, loot: Path) -> None:
        self.oracle, self.run, self.loot = oracle, run, loot

    def images(self, n: int = BATCH) -> Tensor:
        return torch.rand(n, *self.oracle.shape, generator=self.run.rng)

    def keep(self, answers: Tensor, name: str = "answer") -> None:
        file = self.loot / f"{name}-{os.getpid()}-{next(NUMBERS)}.pt"
        torch.save(answers.as_subclass(Tensor), file.with_suffix(".new"))
        file.with_suffix(".new").rename(file)

    def tell(self, name: str, content: object) -> None:
        (self.loot / name).write_text(json.dumps(content))

    def ask(self, ask: Callable[[Tensor], Tensor] | None = None, n: int = BATCH) -> None:
        self.keep((ask or self.oracle)(self.images(n)))

    def ask_on(self, ask: Callable[[Tensor], Tensor] | None = None, n: int = BATCH) -> None:
        """More often than the budget allows, until somebody says no."""
        with suppress(BudgetExhausted):
            for _ in range(TRIES * BATCH // n):
                self.ask(ask, n)

    @property
    def door(self) -> Any:
        """What the oracle asks, by its private names."""
        return self.oracle._Oracle__ask._teacher  # type: ignore[attr-defined]

    def said(self, question: bytes) -> str:
        """What the other process answers to bytes at its pipe, or what becomes of the pipe; a tensor is kept."""
        from bench.boxes.process import unpacked

        pipe = self.door._connection
        try:
            pipe.send_bytes(question)
            told, answers = unpacked(pipe.recv_bytes())
        except (EOFError, OSError) as error:
            return type(error).__name__
        if answers is not None:
            self.keep(answers)
        return json.dumps(told)


def honest(thief: Thief) -> Iterator[None]:
    thief.ask()
    yield
    thief.ask()
    yield


def reset_the_count(thief: Thief) -> Iterator[None]:
    def ask(images: Tensor) -> Tensor:
        answers = thief.oracle(images)
        object.__setattr__(thief.oracle, "_Oracle__spent", 0)
        return answers

    thief.ask_on(ask)
    yield


def go_back_to_an_earlier_count(thief: Thief) -> Iterator[None]:
    """By the meter's own way to be carried over a restart, which leads forward alone."""
    before = thief.oracle.state_dict()
    thief.ask()
    with suppress(ValueError):
        thief.oracle.load_state_dict(before)
    thief.ask_on()
    yield


def patch_the_call(thief: Thief) -> Iterator[None]:
    def call(oracle: Oracle, images: Tensor) -> Tensor:
        answers: Tensor = oracle._Oracle__ask(images)  # type: ignore[attr-defined]
        return answers

    Oracle.__call__ = call  # type: ignore[method-assign]
    thief.ask_on()
    yield


def patch_the_count(thief: Thief) -> Iterator[None]:
    """It seems that nothing was spent; the meter itself still knows."""
    Oracle.spent = property(lambda _: 0)  # type: ignore[assignment]
    thief.ask_on()
    yield


def patch_the_count_meanwhile(thief: Thief) -> Iterator[None]:
    """The truth at last, but each round seems to have been cheap."""
    true = Oracle.spent
    thief.ask()
    Oracle.spent = property(lambda _: 1)  # type: ignore[assignment]
    yield
    Oracle.spent = true  # type: ignore[method-assign]


def patch_what_is_revealed(thief: Thief) -> Iterator[None]:
    def reveal(answered: Tensor, _: str) -> Tensor:
        thief.keep(answered, "raw")
        return answered

    budgets.oracle.reveal = reveal
    images = thief.images()
    torch.save(images, thief.loot / "images.pt")
    thief.keep(thief.oracle(images))
    yield


def ask_past_the_last_round(thief: Thief) -> Iterator[None]:
    thief.ask()
    yield
    thief.ask(thief.oracle._Oracle__ask)  # type: ignore[attr-defined]


class Few(Tensor):
    """Many images that say they are one."""

    def __len__(self) -> int:
        return 1


def say_that_many_images_are_one(thief: Thief) -> Iterator[None]:
    thief.ask_on(lambda images: thief.oracle(images.as_subclass(Few)))
    yield


def ask_from_threads(thief: Thief) -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=thief.ask_on, kwargs={"n": 3}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    yield


def ask_from_a_fork(thief: Thief) -> Iterator[None]:
    thief.ask()
    if not (child := os.fork()):
        with suppress(BaseException):
            thief.ask_on()
        os._exit(0)
    os.waitpid(child, 0)
    thief.ask_on()
    yield


def ask_from_a_process(thief: Thief) -> Iterator[None]:
    thief.ask()
    child = multiprocessing.get_context("fork").Process(target=thief.ask_on)
    child.start()
    child.join()
    thief.ask_on()
    yield


def ask_from_a_fork_at_the_pipe(thief: Thief) -> Iterator[None]:
    from bench.boxes.process import packed

    thief.ask()
    if not (child := os.fork()):
        for _ in range(TRIES):
            thief.said(packed({"ask": "answers"}, thief.images()))
        os._exit(0)
    os.waitpid(child, 0)
    yield


def take_long(thief: Thief) -> Iterator[None]:
    thief.ask()
    time.sleep(30)
    yield


def leave_a_fork_behind(thief: Thief) -> Iterator[None]:
    """Which holds all that this process has open, and outlives it."""
    if not (child := os.fork()):
        time.sleep(30)
        os._exit(0)
    thief.tell("child", child)
    yield from take_long(thief)


class Bomb:
    """A pickle that runs code where it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


def send_pickles(thief: Thief) -> Iterator[None]:
    bomb = pickle.dumps(Bomb(thief.loot / "exploded"))
    thief.tell("heard", [thief.said(bomb), thief.said(pickle.dumps({"ask": "answers"})), thief.said(bomb + b"\n")])
    thief.ask()
    yield


def forge_questions(thief: Thief) -> Iterator[None]:
    from bench.boxes.process import packed

    thief.ask()
    images = thief.images()
    questions = [
        packed({"ask": "resume", "spent": 0}),
        packed({"ask": "right", "part": "test"}, images.mul(255).to(torch.uint8)),
        packed({"ask": "weights"}, images),
        packed({"ask": "spent", "spent": 0}),
        packed({"ask": "answers"}, images.repeat(2, 1, 1, 1)),
        packed({"ask": "answers", "dtype": "object"}),
        b"",
        b"\xff" * 100,
    ]
    thief.tell("heard", [thief.said(question) for question in questions])
    thief.ask_on()
    yield


def send_a_huge_question(thief: Thief) -> Iterator[None]:
    from bench.boxes.process import packed

    thief.ask()
    thief.tell("heard", [thief.said(packed({"ask": "answers"}, thief.images(1000)))])
    with suppress(Exception):
        thief.ask()
    yield


def look_around(thief: Thief) -> Iterator[None]:
    """Keeps every tensor that can be reached from the oracle, and every one that there is in this process."""
    thief.ask()
    near = reachable(thief.oracle)
    networks = [type(item).__name__ for item in near if isinstance(item, nn.Module)]
    thief.tell("networks", networks)
    torch.save([numbers(item) for item in near if is_numbers(item)], thief.loot / "near.pt")
    everywhere = [referent for item in gc.get_objects() for referent in [item, *gc.get_referents(item)]]
    kept = {id(item): numbers(item) for item in everywhere if is_numbers(item)}
    torch.save(list(kept.values()), thief.loot / "everywhere.pt")
    yield


def reachable(start: object) -> list[object]:
    """Every object that a chain of attributes, slots, closures, items and bound methods leads to from that one; not by
    way of modules and of what is global to a function, which lead everywhere."""
    found: dict[int, object] = {}
    waiting = [start]
    while waiting:
        item = waiting.pop()
        if id(item) in found or isinstance(item, ModuleType):
            continue
        found[id(item)] = item
        hidden = id(item.__globals__) if isinstance(item, FunctionType) else None
        waiting += [referent for referent in gc.get_referents(item) if id(referent) != hidden]
    return list(found.values())


def is_numbers(item: object) -> bool:
    return type(item) in {Tensor, nn.Parameter, np.ndarray}


def numbers(item: Any) -> Tensor:
    with suppress(TypeError):  # an array of texts or objects
        return item.detach().clone() if isinstance(item, Tensor) else torch.from_numpy(item.copy())
    return torch.empty(0)


def leave_the_program(thief: Thief) -> Iterator[None]:
    thief.ask()
    yield
    sys.exit("no more paper")


ATTACKS: dict[str, Callable[[Thief], Iterator[None]]] = {
    attack.__name__: attack
    for attack in (
        honest,
        reset_the_count,
        go_back_to_an_earlier_count,
        patch_the_call,
        patch_the_count,
        patch_the_count_meanwhile,
        patch_what_is_revealed,
        ask_past_the_last_round,
        say_that_many_images_are_one,
        ask_from_threads,
        ask_from_a_fork,
        ask_from_a_process,
        ask_from_a_fork_at_the_pipe,
        take_long,
        leave_a_fork_behind,
        send_pickles,
        forge_questions,
        send_a_huge_question,
        look_around,
        leave_the_program,
    )
}


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    for _ in ATTACKS[config.attack](Thief(oracle, run, Path(config.loot))):
        with torch.no_grad():
            next(student.parameters()).add_(0.01)
        yield {}
