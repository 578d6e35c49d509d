"""What a plan will take on this device, judged by the runs that were done on it, and by rehearsals."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.grids.calibration import Calibration, key_of, known
from bench.grids.growth import seconds_at
from bench.grids.plan import Planned
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import Task
from results.index import Cells
from results.records import CellRecord, RecordError, read

CELL_BYTES = 30_000  # a cell's folder without its student, where none has been measured
SIZES = 1_000  # folders whose sizes are looked up
Key = tuple[str, str, str]


@dataclass
class Cost:
    """Of the runs of one entry of the grid. at: budget -> the seconds that go into it; a run that answers for several
    goes from one to the next. judged, unjudged: how many runs can and cannot be judged. open: how many of those judged
    take longer than that, for no rehearsal came to an end. memory: bytes of the largest; 0 where nothing is known.
    """

    at: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    judged: int = 0
    unjudged: int = 0
    open: int = 0
    memory: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(self.at.values())


@dataclass(frozen=True)
class Estimate:
    """costs: entry of the grid -> what its runs take, one at a time. bytes: what cells and teachers will take on the
    disk, checkpoints of running cells apart.
    """

    costs: dict[str, Cost]
    bytes: int

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.costs.values())

    @property
    def judged(self) -> int:
        return sum(cost.judged for cost in self.costs.values())

    @property
    def unjudged(self) -> int:
        return sum(cost.unjudged for cost in self.costs.values())


class Judge:
    """Knows what runs took on a device of that name: those of the same task, method and settings that were done, and
    rehearsals of the same networks, method and settings."""

    def __init__(self, tasks: set[str], root: Path, device: str) -> None:
        self._root, self._device = root, device
        self._done, self.sizes = _measured(tasks, root, device) if tasks else (defaultdict(list), [])
        self._calibrated: dict[Key, Calibration | None] = {}

    def seconds(self, run: Planned, queries: int | None = None) -> float:
        """What the run takes, or what it takes until so many queries; NaN where nothing is known of its like."""
        calibrated = self.calibration(run)
        points = calibrated.points if calibrated else ()
        return seconds_at(self._done[_key(run)], queries or run.budget.queries, points)

    def calibration(self, run: Planned) -> Calibration | None:
        """The rehearsals of runs of its kind."""
        if (key := _key(run)) not in self._calibrated:
            self._calibrated[key] = known(key_of(run, self._device), self._root)
        return self._calibrated[key]

    def is_open(self, run: Planned) -> bool:
        """Whether it takes longer than `seconds`, which is only what was seen of it."""
        calibrated = self.calibration(run)
        return not self._done[_key(run)] and calibrated is not None and not calibrated.ended


def estimate(waiting: Sequence[Planned], teachers: Iterable[Task], root: Path, device: str) -> Estimate:
    """What the waiting runs will take, and the teachers that are to be trained first."""
    judge = Judge({run.task for run in waiting}, root, device)
    costs: dict[str, Cost] = {}
    for run in waiting:
        _add(costs.setdefault(run.label, Cost()), run, judge)
    sizes = judge.sizes
    cells = len(waiting) * (sum(sizes) / len(sizes) if sizes else CELL_BYTES)
    return Estimate(costs, round(cells) + sum(map(_teacher_bytes, teachers)))


def _add(cost: Cost, run: Planned, judge: Judge) -> None:
    """Take a run into the cost of its entry."""
    if math.isnan(judge.seconds(run)):
        cost.unjudged += 1
        return
    cost.judged += 1
    cost.open += judge.is_open(run)
    before = 0.0
    for queries in run.budgets:
        until = judge.seconds(run, queries)
        cost.at[queries] += until - before
        before = until
    if calibrated := judge.calibration(run):
        cost.memory = max(cost.memory, calibrated.memory_at(run.budget.queries))


def _key(run: Planned) -> Key:
    return run.task, run.method, run.config


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
            with suppress(OSError, RecordError, KeyError):  # a cell that cannot be read is none to judge by
                if len(sizes) < SIZES:
                    sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
                if state.totals.machine and state.totals.machine.device == device:
                    cell = read(folder / "cell.json", CellRecord).identity
                    of = cell["task"], cell["method"], cell["config"]
                    measured[of].append((cell["queries"], state.totals.seconds))
    return measured, sizes


def _teacher_bytes(task: Task) -> int:
    """The size of a teacher's weights."""
    source = sources.source_of(task.dataset)
    # Made in earnest: torch's `meta` device would take a second for its imports.
    network = networks.NETWORKS[task.teacher](source.shape, source.classes)
    return sum(value.nbytes for value in network.state_dict().values())
