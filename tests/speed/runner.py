"""What the runner takes between cells, and how many it does at once."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from speed.harness import NO_DATA, digits_cell
from speed.item import Item, Setting, clock

from bench.cells.cell import Cell
from bench.executors.jobs import cell_jobs
from bench.executors.local import Slot, cores, execute
from bench.grids.definition import parse
from bench.grids.plan import plan, runs_of
from results.store import read_json, write_json


def run_all(cells: Iterable[Cell], root: Path, slots: list[Slot]) -> list[float]:
    """Run the cells anew; returns the seconds from each one's end to the first round of the next."""
    shutil.rmtree(root / "cells", ignore_errors=True)
    gaps, ended, waiting = list[float](), 0.0, False
    for event in execute(cell_jobs(cells, root, NO_DATA), slots):
        if event is None:
            continue
        if event.kind == "failed":
            raise RuntimeError(event.detail)
        if event.kind == "progress" and waiting:
            gaps.append(time.perf_counter() - ended)
            waiting = False
        if event.kind == "done":
            ended, waiting = time.perf_counter(), True
    return gaps


def slots(setting: Setting) -> Iterator[Item]:
    """Cells in two slots of one thread each against one slot, by the clock: only an idle machine shows what it can."""
    if cores() < 2:
        return
    many = setting.size(8, 2)
    cells = [digits_cell(setting.folder, "ideal-once", setting.size(2_500, 50), seed) for seed in range(many)]
    device = "cpu" if setting.device.type == "cpu" else "cuda:0"
    run_all(cells[:1], setting.folder, [Slot(device, 1)])  # whatever is started once is started here
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(setting.runs):
        for many, taken in seconds.items():
            begun = clock()
            run_all(cells, setting.folder, [Slot(device, 1)] * many)
            taken.append(clock() - begun)
    note = f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the end"
    yield Item(
        f"{many} cells of digits in two slots", "s", median(seconds[2]), median(seconds[1]), "ratio >= 1.8", note
    )


def start(setting: Setting) -> Iterator[Item]:
    """From the end of a cell of digits to the end of the first round of the next, which is part of it."""
    cells = [digits_cell(setting.folder, "noise-uniform", 250, seed) for seed in range(setting.size(12, 3))]
    device = "cpu" if setting.device.type == "cpu" else "cuda:0"
    gaps = run_all(cells, setting.folder, [Slot(device, 1)])
    note = "with the first round of the next, 4 steps"
    yield Item("start of a cell of digits after another", "s", median(gaps), None, "ours <= 0.2", note)


def recognition(setting: Setting) -> Iterator[Item]:
    """Planning a grid of finished cells: each is found to be done, and by which code."""
    many, root = setting.size(1_000, 20), setting.folder
    grid = {"description": "finished cells", "tasks": ["digits-lenet"], "budgets": [250], "answers": ["labels"]}
    runs = runs_of(parse({**grid, "seeds": many, "methods": {"noise": {}}}, "grid"))
    cell = digits_cell(root, "noise-uniform", 250)
    run_all([cell], root, [Slot("cpu", 1)])
    of = root / "cells" / cell.name()
    for run in plan(runs, root, NO_DATA, gpu=False):
        assert run.cell
        folder = shutil.copytree(of, root / "cells" / run.cell.name())
        write_json(folder / "cell.json", {**read_json(of / "cell.json"), "identity": run.cell.identity()})
    found = plan(runs, root, NO_DATA, gpu=False)
    assert all(run.state == "done" for run in found)
    (seconds,) = setting.medians(lambda: plan(runs, root, NO_DATA, gpu=False))
    yield Item(f"{many:,} finished cells are recognised", setting.unit, seconds, None, "ours <= 2")


def help_(setting: Setting) -> Iterator[Item]:
    """`bench --help`, against a Python that does nothing."""

    def python(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    ours, plain = setting.medians(lambda: python("-m", "bench", "--help"), lambda: python("-c", "pass"))
    yield Item("bench --help", setting.unit, ours, plain, "", "plain: a Python that does nothing")
