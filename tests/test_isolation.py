"""A black box in a process of its own: what methods that do not keep to the rules get out of it, and that all others
come to the same results as without."""

import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import hostile
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import CLASSES, CPU, SHAPE, RecordingTeacher, digits_cell
from torch import Tensor

from bench.boxes import process, teachers
from bench.boxes.box import black_box
from bench.boxes.process import OwnProcess, Served, packed, unpacked
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import CellFailed, How, run_cell
from bench.contract.plugins import from_file
from bench.errors import UsageError
from bench.tasks.table import task_of
from budgets import Budget, BudgetExhausted, Oracle
from budgets.answers import reveal
from methods import METHODS
from results.store import read_json, state_of

NO_DATA = Path("no-data")
BUDGET = 40
APART = How(checkpoint_seconds=0, isolate=True)
WITHIN = How(checkpoint_seconds=0)
DIFFER = r"the black box answered (\d+) images, the method's meter counted (\d+)"
PATIENCE = 60.0  # seconds: a busy machine is no failure


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "hostile", from_file(Path(hostile.__file__)))


@pytest.fixture
def loot(tmp_path: Path) -> Path:
    folder = tmp_path / "loot"
    folder.mkdir()
    return folder


def attack(root: Path, name: str, loot: Path, answers: str = "labels") -> Cell:
    honest = digits_cell(root, "noise", BUDGET)
    config = canonical_config("hostile", {"attack": name, "loot": str(loot)})
    return replace(honest, method="hostile", config=config, budget=Budget(BUDGET, answers))


def folder_of(root: Path, cell: Cell) -> Path:
    return root / "cells" / cell.name()


def curve_of(root: Path, cell: Cell) -> bytes:
    return (folder_of(root, cell) / "curve.json").read_bytes()


def _attempt(cell: Cell, root: Path, how: How) -> None:
    torch.set_num_threads(1)
    run_cell(cell, root, NO_DATA, CPU, how=how)


def begun(cell: Cell, root: Path, how: How) -> multiprocessing.process.BaseProcess:
    """The cell in a process of its own, as it always is: what it patches is gone with it."""
    started = multiprocessing.get_context("fork").Process(target=_attempt, args=(cell, root, how))
    started.start()
    return started


def ended(cell: Cell, root: Path, how: How) -> tuple[str, str]:
    """The state that the cell comes to, and the reason."""
    started = begun(cell, root, how)
    started.join(PATIENCE)
    assert started.exitcode is not None, "it does not end"
    state = state_of(folder_of(root, cell), None)
    return state.name, state.reason or ""


def answered(loot: Path) -> int:
    """Images of which somebody got an answer."""
    return sum(len(torch.load(file)) for file in loot.glob("answer-*.pt"))


def children(parent: int) -> list[int]:
    """The processes that it started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def waited_for(condition: Callable[[], object]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def is_alive(number: int) -> bool:
    try:
        return (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What holds by the meter in the method's own process alone, and how many answers a method gets where that does not.
IN_ONE_PROCESS = {
    "honest": 40,
    "go_back_to_an_earlier_count": 40,
    "patch_the_count_meanwhile": 20,
    "reset_the_count": 100,
    "patch_the_call": 100,
    "patch_the_count": 100,
    "say_that_many_images_are_one": 100,
    "ask_from_a_fork": 60,
    "ask_from_a_process": 60,
}


@pytest.mark.parametrize("name", IN_ONE_PROCESS)
def test_without_isolation_a_method_gets_what_it_patches_its_way_to(trained: Path, loot: Path, name: str) -> None:
    assert ended(attack(trained, name, loot), trained, WITHIN) == ("done", "")
    assert answered(loot) == IN_ONE_PROCESS[name]


# How many answers it gets, and what the meter in its own process had counted if that is another number.
APART_FROM_IT: dict[str, tuple[int, int | None]] = {
    "honest": (40, None),
    "go_back_to_an_earlier_count": (40, None),
    "ask_from_a_fork": (40, None),
    "ask_from_a_process": (40, None),
    "patch_the_count_meanwhile": (20, 1),
    "reset_the_count": (40, 20),
    "patch_the_call": (40, 0),
    "patch_the_count": (40, 0),
    "say_that_many_images_are_one": (40, 3),
    "ask_from_a_fork_at_the_pipe": (40, 20),
}


@pytest.mark.parametrize("name", APART_FROM_IT)
def test_with_isolation_no_patch_and_no_fork_gets_more_than_was_bought_and_none_gets_a_result_out_of_step(
    trained: Path, loot: Path, name: str
) -> None:
    got, counted = APART_FROM_IT[name]
    cell = attack(trained, name, loot)
    told = "" if counted is None else f"the black box answered {got} images, the method's meter counted {counted}"
    assert ended(cell, trained, APART) == ("failed" if told else "done", told)
    assert answered(loot) == got
    assert (folder_of(trained, cell) / "done.json").exists() == (not told)


def test_threads_that_spend_one_budget_at_once_never_get_more_than_it(trained: Path, loot: Path) -> None:
    cell = attack(trained, "ask_from_threads", loot)
    state, reason = ended(cell, trained, APART)
    assert answered(loot) <= BUDGET
    if state == "done":
        assert read_json(folder_of(trained, cell) / "done.json")["spent"] == answered(loot)
    else:
        found = re.fullmatch(DIFFER, reason)
        assert found, reason
        assert int(found[1]) == answered(loot) != int(found[2])


@pytest.mark.parametrize("answers", ["labels", "top-3", "round-1"])
def test_no_score_that_was_not_bought_reaches_a_method_that_patches_what_is_revealed(
    trained: Path, loot: Path, answers: str
) -> None:
    got = {}
    for how in (WITHIN, APART):
        (loot / answers).mkdir(exist_ok=True)
        assert ended(attack(trained, "patch_what_is_revealed", loot, answers), trained, how) == ("done", "")
        (raw,) = (torch.load(file) for file in loot.glob("raw-*.pt"))
        got[how.isolate] = raw
        for file in [*loot.glob("raw-*.pt"), *folder_of(trained, attack(trained, "patch_what_is_revealed", loot, answers)).glob("*.json")]:
            file.unlink()
    teacher = black_box(teachers.load(task_of("digits-lenet"), trained, CPU))
    probs = teacher(torch.load(loot / "images.pt"))
    assert torch.equal(got[False], probs)
    assert torch.equal(got[True].nan_to_num(nan=-1.0), reveal(probs, answers).nan_to_num(nan=-1.0))
    assert got[True].is_floating_point() == (answers != "labels")
