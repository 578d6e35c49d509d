"""Several commands on one results folder: each cell is run once, and all of them end well."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from results.store import read_json

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
