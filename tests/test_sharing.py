"""Several commands, on one machine or many, on one results folder: each cell is run once, and all of them end well."""

import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import elsewhere
import pytest
import torch
from support import CPU, digits_cell

from bench.cells.cell import Cell
from bench.cells.run import How, run_cell
from results import claims
from results.claims import Busy, Robbed, lock
from results.store import read_json, state_of

GRID = """
description: cells that note that they were run
tasks: [digits-lenet]
budgets: [40, 60, 80, 100]
answers: [labels]
seeds: 3
methods:
  noting: {}
"""
METHOD = '''"""Trains on uniform noise, and notes each run.

Differs from the paper: there is none.
Differs from the released code: there is none.
"""

import os
import time
from pathlib import Path

import torch
from pydantic import BaseModel

ANSWERS, DATA, PROTOCOL = ("labels",), "none", "per_budget"


class Config(BaseModel, frozen=True, extra="forbid"):
    """No settings."""


def distill(oracle, student, config, run):
    with Path("notes.txt").open("a") as notes:
        notes.write(f"{oracle.budget.queries} {torch.initial_seed()} {os.getpid()}\\n")
    while True:
        oracle(torch.rand(20, *oracle.shape, generator=run.rng, device=run.device))
        time.sleep(0.15)
        yield {}
'''


@pytest.mark.parametrize("commands", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_commands_on_one_folder_share_the_work_and_all_end_with_0(trained: Path, commands: int) -> None:
    home = trained.parent / f"{trained.name}-home"
    home.mkdir()
    trained.rename(home / "runs")
    (home / "g.yaml").write_text(GRID)
    (home / "noting.py").write_text(METHOD)
    command = [sys.executable, "-m", "bench", "run", "--grid", "g.yaml", "--plugin", "noting.py", "--mlflow", "off"]
    running = [
        subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(commands)
    ]
    told = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * commands, told
    runs = Counter(line.rpartition(" ")[0] for line in (home / "notes.txt").read_text().splitlines())
    assert len(runs) == 12
    assert set(runs.values()) == {1}, "each cell is run once"
    assert len({line.rpartition(" ")[2] for line in (home / "notes.txt").read_text().splitlines()}) == 12
    assert not list(home.glob("runs/cells/*/failed.json"))
    assert len(read_json(home / "runs/g/run.json")["entries"]) == 12


MACHINES, CELLS = 8, 24
APART = ["unshare", "--user", "--map-root-user", "--pid", "--uts", "--fork", "--kill-child"]


@functools.cache
def namespaces() -> bool:
    """Whether a process can have process numbers and a host's name of its own here."""
    return bool(shutil.which("unshare")) and subprocess.run([*APART, "true"], capture_output=True).returncode == 0


def start(folder: Path, number: int, flock: str, *options: str, apart: bool) -> subprocess.Popen[bytes]:
    """A worker on a machine of its own, with all that tells it from the others if they are namespaces of one kernel."""
    machine = "one kernel" if flock == "everywhere" else f"machine {number}"
    prefix, host = (APART, ["--host", f"host-{number}"]) if apart else ([], [])
    command = [sys.executable, elsewhere.__file__, str(folder), str(CELLS), machine, flock, *host, *options]
    return subprocess.Popen([*prefix, *command])


def notes(folder: Path, kind: str) -> list[list[str]]:
    file = folder / "notes.txt"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [words for first, *words in lines if first == kind]


@pytest.mark.parametrize("flock", elsewhere.FLOCKS)
def test_of_eight_machines_two_die_and_each_cell_is_done_once(tmp_path: Path, flock: str) -> None:
    apart = namespaces()
    dying = [start(tmp_path, number, flock, "--slow", apart=apart) for number in range(2)]
    while len(notes(tmp_path, "begun")) < len(dying):
        assert all(worker.poll() is None for worker in dying)
        time.sleep(0.02)
    lost = [cell for cell, *_ in notes(tmp_path, "begun")]
    others = [start(tmp_path, number, flock, apart=apart) for number in range(2, MACHINES)]
    for worker in dying:
        worker.kill()
        worker.wait()
    assert [worker.wait(timeout=120) for worker in others] == [0] * len(others)
    assert sorted(int(cell) for (cell,) in notes(tmp_path, "done")) == list(range(CELLS))
    begun = Counter(cell for cell, *_ in notes(tmp_path, "begun"))
    assert begun == Counter([*map(str, range(CELLS)), *lost]), "again is begun what the dead were at, and nothing else"
    if apart:
        assert len({number for _, _, number in notes(tmp_path, "begun")}) == 1, "process numbers tell nobody apart"
        assert len({host for _, host, _ in notes(tmp_path, "begun")}) > 2


def _run_and_say(cell: Cell, root: Path, said: Connection) -> None:
    torch.set_num_threads(1)
    elsewhere.pretend("machine 1", "none", stale=1.0)

    def report(spent: int, _: dict[str, float]) -> None:
        said.send(spent)
        time.sleep(0.02)

    try:
        run_cell(cell, root, Path("no-data"), CPU, report, how=How(checkpoint_seconds=0))
    except Robbed as robbed:
        said.send(str(robbed))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_cell_that_slept_and_was_robbed_stops_without_writing_and_the_robber_goes_on_to_the_same_curve(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "teachers").symlink_to(trained / "teachers")
    cell = digits_cell(trained, "ideal", 400)
    run_cell(cell, tmp_path, Path("no-data"), CPU)
    folder, whole = trained / "cells" / cell.name(), tmp_path / "cells" / cell.name()
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    sleeper = multiprocessing.get_context("fork").Process(target=_run_and_say, args=(cell, trained, theirs))
    sleeper.start()
    for _ in range(4):
        assert isinstance(ours.recv(), int)
    assert state_of(folder, None).name == "running"
    assert sleeper.pid
    os.kill(sleeper.pid, signal.SIGSTOP)
    while ours.poll():
        ours.recv()

    monkeypatch.setattr(claims, "STALE", 1.0)
    monkeypatch.setattr(claims, "_kernel", lambda: "machine 2")
    monkeypatch.setattr(claims.fcntl, "flock", elsewhere.FLOCKS["none"])
    with ExitStack() as held:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                held.enter_context(lock(folder))
                break
            except Busy:
                time.sleep(0.1)
        before = contents(folder)
        assert "checkpoint.pt" in before
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.join(60)
        told = [ours.recv() for _ in range(2) if ours.poll()]
        assert "was taken over by another process" in told[-1], "it stops"
        assert len(told) <= 2, "at once"
        assert contents(folder) == before
    spent: list[int] = []
    run_cell(cell, trained, Path("no-data"), CPU, lambda now, _: spent.append(now))
    assert spent[0] > 20, "it goes on from the checkpoint"
    assert read_json(folder / "curve.json") == read_json(whole / "curve.json")
