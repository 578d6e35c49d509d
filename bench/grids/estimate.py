"""What a plan will take on this device, judged by the runs that were done on it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.grids.definition import Planned
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import Task
from results.store import read_json

CELL_BYTES = 30_000  # a cell's folder without its student, where none has been measured
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


def estimate(planned: Iterable[Planned], teachers: Iterable[Task], root: Path, device: str) -> Estimate:
    """What is still to be done of the plan, and the teachers that are to be trained first.

    Runs are judged by those of the same task, method and settings that were done on a device of that name.
    """
    waiting = [item for item in planned if item.state not in {"done", "stale", "cannot run"}]
    done, sizes = _measured({item.task for item in waiting}, root / "cells", device)
    guesses = [seconds_at(done[item.task, item.method, item.config], item.budget.queries) for item in waiting]
    judged = [guess for guess in guesses if not math.isnan(guess)]
    cells = len(waiting) * (sum(sizes) / len(sizes) if sizes else CELL_BYTES)
    return Estimate(
        sum(judged), len(judged), len(guesses) - len(judged), round(cells) + sum(map(_teacher_bytes, teachers))
    )


def seconds_at(measured: Sequence[tuple[int, float]], queries: int) -> float:
    """The time of a run of so many queries: along the power law of (queries, seconds) measured; NaN without any.

    One budget alone tells no power, so time is then taken to be proportional to queries.
    """
    if not measured:
        return math.nan
    x, y = np.log(np.array(measured, dtype=float)).T
    power = np.polyfit(x, y, 1)[0] if len(set(x)) > 1 else 1.0
    return float(np.exp(y.mean() + power * (np.log(queries) - x.mean())))


def _measured(tasks: set[str], cells: Path, device: str) -> tuple[dict[Key, list[tuple[int, float]]], list[int]]:
    """(queries, seconds) of the finished cells of these tasks, and the sizes of their folders in bytes."""
    measured: dict[Key, list[tuple[int, float]]] = defaultdict(list)
    sizes = []
    for folder in cells.iterdir() if cells.is_dir() else ():
        if folder.name.partition(".")[0] not in tasks or not (folder / "done.json").exists():
            continue
        cell, totals = read_json(folder / "cell.json"), read_json(folder / "done.json")
        sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
        if totals.get("device") == device:
            measured[cell["task"], cell["method"], cell["config"]].append((cell["queries"], totals["seconds"]))
    return measured, sizes


def _teacher_bytes(task: Task) -> int:
    """The size of a teacher's weights."""
    source = sources.source_of(task.dataset)
    # Made in earnest: torch's `meta` device would take a second for its imports.
    network = networks.NETWORKS[task.teacher](source.shape, source.classes)
    return sum(value.nbytes for value in network.state_dict().values())
