"""What commands cost on a run of very many cells: seconds of CPU and most memory of each, on cells that were never run.

    python tests/speed/many_cells.py               # 10,000 cells
    python tests/speed/many_cells.py 100000 /tmp/many

Makes a grid, its teachers and, as run_cell leaves them, the files of all its cells, every one of which the planner then
finds done; and gives the commands one after another. A folder that is named is kept, and used again as it is.
"""

import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from bench.boxes import teachers
from bench.cells.cell import Cell
from bench.cells.code import versions_of
from bench.cells.curve import marks
from bench.grids.definition import parse
from bench.grids.plan import Planned, plan, runs_of
from bench.provenance import machine
from bench.tasks.table import task_of
from methods import METHODS
from results.records import CellRecord, Point, Totals, plain

DEFENCES = [f"{kind}-{strength}" for kind in ("noise", "flips") for strength in (0.1, 0.3, 0.5, 0.7)]
TASKS = [f"digits-{student}{defence}" for student in ("lenet", "mlp") for defence in ["", *(f"+{d}" for d in DEFENCES)]]
NOISE = [{"kind": kind, "recipe": {"passes": passes}} for kind in ("uniform", "multiscale") for passes in (10, 20, 30)]
GRID = {
    "description": "cells that were never run",
    "tasks": TASKS,
    "budgets": ["250", "500", "1k", "2.5k", "5k"],
    "methods": {
        "ideal-once": {"method": "ideal", "config": {"relabel": "once"}},
        "disguide": {},
        **{f"{one['kind']}-{one['recipe']['passes']}": {"method": "noise", "config": one} for one in NOISE},
        "real": {},
    },
}
PER_SEED = 18 * 2 * (8 * 5 + 1)  # ideal is anytime: one cell for all budgets
TEACHERS = 3
# The most memory is asked for before the process ends: torch's destructors touch another 120 MiB of its code.
MEASURED = """
import atexit, resource, sys
from pathlib import Path
from bench.cli.app import main

def tell():
    (most,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(int(most) / 1024)

atexit.register(tell)
main()
"""
COMMANDS = {  # what is shown -> the command, and whether it finds the index of earlier ones
    "plan, first": ("plan --grid {grid}", False),
    "plan": ("plan --grid {grid}", True),
    "status, first": ("status many", False),
    "status": ("status many", True),
    "report, first": ("report many", False),
    "report": ("report many", True),
}


def main(cells: int, root: Path) -> None:
    grid = root / "many.yaml"
    if not grid.exists():
        make(root, grid, cells)
    print(f"{'command':20} {'CPU, s':>8} {'wall, s':>8} {'memory, MiB':>11}")
    for name, (text, indexed) in COMMANDS.items():
        if not indexed:
            shutil.rmtree(root / "index", ignore_errors=True)
        words = [*text.format(grid=grid).split(), "--out", str(root)]
        seconds, wall, memory = measured(words, root / "told.txt")
        print(f"{name:20} {seconds:8.1f} {wall:8.1f} {memory:11,.0f}", flush=True)


def content_of(cells: int) -> dict[str, Any]:
    """What stands in the file of a grid of about so many cells."""
    return {**GRID, "seeds": max(1, round(cells / TEACHERS / PER_SEED)), "teachers": TEACHERS}


def train(root: Path) -> None:
    """The teachers of the grid."""
    for seed in range(TEACHERS):
        teachers.train(task_of("digits-lenet", seed), root, root, torch.device("cpu"), lambda _: None)


def make(root: Path, file: Path, cells: int) -> None:
    """The grid's file, its teachers, all its cells, and the record of the run."""
    content = content_of(cells)
    grid = parse(content, "grid")
    train(root)
    begun, draw = time.process_time(), random.Random(0)
    runs = plan(runs_of(grid), root, root, gpu=False)
    for run in runs:
        assert run.cell
        finish(root / "cells" / run.cell.name(), run.cell, run, draw)
    file.write_text(yaml.safe_dump(content))
    words = ["run", "--grid", str(file), "--out", str(root), "--mlflow", "off", "--device", "cpu", "--jobs", "1"]
    measured(words, root / "told.txt")
    print(f"{len(runs):,} cells made in {time.process_time() - begun:,.0f} s")


def finish(folder: Path, cell: Cell, run: Planned, draw: random.Random) -> None:
    """The files of a cell that was never run."""
    folder.mkdir(parents=True)
    leave(folder, cell, list(curve(cell, run.label, draw)), draw.uniform(1, 60))
    (folder / "lock").touch()


def leave(folder: Path, cell: Cell, points: list[Point], seconds: float) -> None:
    """What run_cell leaves of a cell that is done."""
    versions, last, here = versions_of(cell.method), points[-1], machine(torch.device("cpu"))
    totals = Totals(last["spent"], last["distinct"], 7, seconds, versions, here, last["steps"])
    written = {"cell": plain(CellRecord(cell.identity(), versions)), "curve": points, "done": plain(totals)}
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if cell.seed == 0:
        (folder / "samples.png").write_bytes(b"\x89PNG")


def curve(cell: Cell, label: str, draw: random.Random) -> Iterator[Point]:
    """The points of a cell, the better the more queries."""
    skill = draw.gauss(0.1 * (len(label) % 5), 0.03)
    for mark in marks(METHODS[cell.method].PROTOCOL, cell.budget.queries):
        accuracy = min(1.0, max(0.1, 0.4 + skill + mark / 50_000))
        yield {
            "budget": mark,
            "round": 7,
            "steps": 600,
            "spent": mark - mark % 25 or mark,
            "distinct": mark - mark % 25 or mark,
            "figures": {"loss": draw.random()},
            "accuracy": accuracy,
            "agreement": accuracy - 0.01,
            "fitted": 0.97,
            "commonest": 0.2,
        }


def measured(words: list[str], told: Path) -> tuple[float, float, float]:
    """Seconds of CPU and of wall time of a command, and its most memory in MiB; its output goes into a file."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with told.open("w") as file:
        ended = subprocess.run([sys.executable, "-c", MEASURED, *words], stdout=file, stderr=subprocess.STDOUT)
    if ended.returncode:
        raise SystemExit(f"bench {' '.join(words)}: {told.read_text()}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return seconds, time.monotonic() - begun, float(told.read_text().split()[-1])


if __name__ == "__main__":
    given = sys.argv[1:]
    place = Path(given[1]) if len(given) > 1 else Path(tempfile.mkdtemp(prefix="many-cells-"))
    place.mkdir(exist_ok=True)
    try:
        main(int(given[0]) if given else 10_000, place)
    finally:
        if len(given) < 2:
            shutil.rmtree(place)
