"""What a plan will take on this device, judged by the runs that were done on it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.grids.plan import Planned
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import Task
from results.index import Cells
from results.records import CellRecord, read

CELL_BYTES = 30_000  # a cell's folder without its student, where none has been measured
SIZES = 1_000  # folders whose sizes are looked up
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Estimate:
    """seconds: of one slot of the device, over the runs that have others to be judged by. judged, unjudged: how many
    runs have and have not. bytes: what cells and teachers will take on the disk, checkpoints of running cells apart.
    """

    seconds: float
    judged: int
    unjudged: int
    bytes: int


def estimate(waiting: Sequence[Planned], teachers: Iterable[Task], root: Path, device: str) -> Estimate:
    """What the waiting runs will take, and the teachers that are to be trained first.

    Runs are judged by those of the same task, method and settings that were done on a device of that name.
    """
    done, sizes = _measured({run.task for run in waiting}, root, device) if waiting else ({}, [])
    guesses = [seconds_at(done[run.task, run.method, run.config], run.budget.queries) for run in waiting]
    judged = [guess for guess in guesses if not math.isnan(guess)]
    cells = len(waiting) * (sum(sizes) / len(sizes) if sizes else CELL_BYTES)
    return Estimate(
        sum(judged), len(judged), len(guesses) - len(judged), round(cells) + sum(map(_teacher_bytes, teachers))
    )


def seconds_at(measured: Sequence[tuple[int, float]], queries: int) -> float:
    """The time of a run of so many queries: along the power law of (queries, seconds) measured; NaN without any.

    It never falls with the budget, and beyond the largest budget measured it grows at least as the queries do: a
    student's training takes the same least time at every small budget, which says nothing of a large one.
    """
    if not measured:
        return math.nan
    x, y = np.log(np.array(measured, dtype=float)).T
    power = max(0.0, np.polyfit(x, y, 1)[0]) if len(set(x)) > 1 else 1.0
    along = float(np.exp(y.mean() + power * (np.log(queries) - x.mean())))
    largest = float(np.exp(y[x == x.max()].mean()))
    share = queries / float(np.exp(x.max()))
    return max(along, largest * share) if share > 1 else along


def _measured(tasks: set[str], root: Path, device: str) -> tuple[dict[Key, list[tuple[int, float]]], list[int]]:
    """(queries, seconds) of the finished cells of these tasks, and the sizes of some of their folders in bytes."""
    measured: dict[Key, list[tuple[int, float]]] = defaultdict(list)
    prefixes = tuple(f"{task}." for task in tasks)
    sizes: list[int] = []
    with Cells(root) as cells:
        for name in cells:
            if not name.startswith(prefixes):
                continue
            state, folder = cells.state(name, None), root / "cells" / name
            if state.name != "done" or state.totals is None:
                continue
            if len(sizes) < SIZES:
                sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
            if state.totals.machine and state.totals.machine.device == device:
                cell = read(folder / "cell.json", CellRecord).identity
                measured[cell["task"], cell["method"], cell["config"]].append((cell["queries"], state.totals.seconds))
    return measured, sizes


def _teacher_bytes(task: Task) -> int:
    """The size of a teacher's weights."""
    source = sources.source_of(task.dataset)
    # Made in earnest: torch's `meta` device would take a second for its imports.
    network = networks.NETWORKS[task.teacher](source.shape, source.classes)
    return sum(value.nbytes for value in network.state_dict().values())
