"""What runs take on this device, by rehearsals of a few seconds.

ROOT/calibration/NAME.json    one for each pair of networks, method with its settings, device and code; a plan reads it

No result is in it, and it counts nowhere but in plans.
"""

import ctypes
import json
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are first used
import torch

from bench.boxes.described import box_of
from bench.cells.code import versions_of
from bench.cells.counting import clock_of, forget_results, known_on
from bench.cells.rehearsal import ROUNDS, Rehearsed, rehearse
from bench.grids.growth import Points
from bench.grids.plan import Planned
from bench.tasks.data import sources
from bench.tasks.table import task_of
from methods import METHODS
from results.records import RecordError, plain, read
from results.store import digest, write_json

STEP = 4  # a rehearsal's budget in those of the one before
DOWN = 16  # how many times smaller the next one is, if one found no end
LEAST = 20  # queries of a rehearsal
SAVED = 5  # times faster than the run that counting must be
OVER = 36  # times the patience, until when another rehearsal is begun
SURE = 5.0  # standard errors
COUNTED = 6.4  # bytes that the meter keeps of each query


@dataclass(frozen=True)
class Calibration:
    """points: (queries, seconds of a whole run). ended: whether they are that, and not just what was seen of a run
    whose rehearsal found no end. memory: bytes at the peak of rehearsals up to `at` queries. kept: bytes more for each.
    """

    key: dict[str, Any]
    points: list[tuple[float, float]]
    ended: bool
    memory: int
    at: int
    kept: float

    def memory_at(self, queries: int) -> float:
        """Bytes at the peak of a run of so many queries, as far as its images and answers make it grow."""
        return self.memory + max(0, queries - self.at) * (self.kept + COUNTED)


def key_of(run: Planned, device: str) -> dict[str, Any]:
    """All that the time of a run depends on but its budget: tasks of the same networks and shapes share it."""
    task = task_of(run.task)
    source = sources.source_of(task.dataset)
    box = box_of(task)
    return {
        "shape": list(source.shape),
        "classes": source.classes,
        "test": source.sizes[1],
        "teacher": "elsewhere" if box else task.teacher + task.defence,
        "student": task.student,
        "method": run.method,
        "config": run.config,
        "versions": versions_of(run.method),
        "device": device,
    }


def file_of(key: dict[str, Any], root: Path) -> Path:
    """Where the calibration of that key lies, whether it is there or not."""
    name = f"{key['teacher']}-{key['student']}.{key['method']}.{digest(json.dumps(key, sort_keys=True))[:12]}"
    return root / "calibration" / f"{name}.json"


def known(key: dict[str, Any], root: Path) -> Calibration | None:
    """The calibration of that key; None where there is none that this version can read."""
    try:
        return read(file_of(key, root), Calibration)
    except RecordError:
        return None


def to_calibrate(runs: Iterable[Planned], device: str, root: Path) -> dict[str, list[Planned]]:
    """The runs by what they are to be judged by, name -> runs, without those whose rehearsal is known to its end."""
    found: dict[str, list[Planned]] = {}
    for run in runs:
        found.setdefault(file_of(key_of(run, device), root).stem, []).append(run)
    ended = {name for name, (run, *_) in found.items() if (made := known(key_of(run, device), root)) and made.ended}
    return {name: group for name, group in found.items() if name not in ended}


def calibrate(
    runs: Sequence[Planned],
    root: Path,
    device: torch.device,
    name: str,
    patience: float,
) -> Calibration:
    """Rehearse runs of one key, that of the name, and keep what they take. name: of the device."""
    budgets = sorted({queries for run in runs for queries in run.budgets})
    run = runs[0]
    stage = _Rehearsals(run, root, device, patience)
    _forget_peak(device)
    if run.protocol == "anytime":
        stage.play(budgets[-1])
    if not any(one.tells for one in stage.played):
        stage.climb(budgets[0], budgets[-1])
    played = stage.played
    points, ended = points_of(played, on_the_way=run.protocol == "anytime")
    at, kept = max(one.kept for one in played)
    made = Calibration(key_of(run, name), points, ended, _peak(device), at, kept / max(1, at))
    forget_results(known_on(device))
    write_json(file_of(made.key, root), plain(made))
    return made


class _Rehearsals:
    """The rehearsals of one kind of run, each of so many seconds at most."""

    def __init__(self, run: Planned, root: Path, device: torch.device, patience: float) -> None:
        self.played: list[Rehearsed] = []
        self._run, self._places, self._patience = run, (root, device), patience
        self._config = METHODS[run.method].Config.model_validate_json(run.config)
        self._clock = clock_of(device)

    def play(self, queries: int) -> Rehearsed:
        """One of that budget: by counting, and where that saves little, for operations are small, by playing it."""
        terms = (task_of(self._run.task), self._run.method, self._config, replace(self._run.budget, queries=queries))
        begun = self._clock()
        one = rehearse(*terms, *self._places, self._patience, counting=True)
        if one.seconds < SAVED * (self._clock() - begun):
            exact = rehearse(*terms, *self._places, self._patience, counting=False)
            one = exact if exact.tells else one
        self.played.append(one)
        return one

    def climb(self, least: int, most: int) -> None:
        """From the least budget downwards until one ends or the time is over. Then the most, where its rounds tell what
        a round takes, else upwards."""
        begun, over = self._clock(), OVER * self._patience
        one = self.play(least)
        while not one.whole and one.queries > LEAST and self._clock() - begun < over:
            one = self.play(max(LEAST, one.queries // DOWN))
        if any(one.asks_on for one in self.played):
            if most > least:
                self.play(most)
            return
        while one.whole and one.queries < most and (self._clock() - begun) * STEP < over:
            one = self.play(min(most, one.queries * STEP))


def points_of(played: Sequence[Rehearsed], *, on_the_way: bool) -> tuple[list[tuple[float, float]], bool]:
    """(queries, seconds) of whole runs, by rehearsals that came to their end and by rounds of others; and whether there
    is any such. Else the most that was seen. on_the_way: whether a round is the end of a run of the queries until then.
    """
    whole = [one for one in played if one.whole]
    tail = _tail(whole[-1]) if whole else lambda _: 0.0
    points = [(float(one.queries), one.seconds) for one in whole]
    for one in played:
        if not one.whole and one.asks_on:
            points.append((float(one.queries), _along(one.rounds, one.queries) + tail(one.queries)))
        if on_the_way:
            points += [(float(spent), seconds) for spent, seconds in one.rounds[1 :: 1 + len(one.rounds) // 10]]
    if points:
        return sorted(points), True
    return [(float(played[0].queries), max(one.seconds for one in played))], False


def _along(rounds: Points, queries: int) -> float:
    """The time until so many queries are spent, by the rounds before; the first, which warms up, is left out.

    What a query takes may grow with those before it, as where each round goes over all earlier images. That counts,
    however little it is yet, where the rounds agree on it by more than their noise.
    """
    spent, seconds = np.array([pair for pair in rounds[1:] if pair[0] < rounds[-1][0]] + [rounds[-1]], dtype=float).T
    rates, at = np.diff(seconds) / np.diff(spent), (spent[1:] + spent[:-1]) / 2
    growth = 0.0
    if len(rates) >= ROUNDS - 2:
        line = scipy.stats.linregress(at, rates)
        growth = line.slope if line.slope > SURE * line.stderr else 0.0
    later = slice(len(rates) // 2, None)
    rate, rest = np.median(rates[later]) + growth * (spent[-1] - np.median(at[later])), queries - spent[-1]
    return float(seconds[-1] + rate * rest + growth * rest**2 / 2)


def _tail(one: Rehearsed) -> Callable[[int], float]:
    """Queries -> seconds of what comes after the last of them: rounds that grow with the images, and the exam."""
    last = one.rounds[-1][1]
    asked = next(seconds for spent, seconds in one.rounds if spent == one.rounds[-1][0])
    return lambda queries: (last - asked) * queries / one.queries + one.seconds - last


def _forget_peak(device: torch.device) -> None:
    """The peak from now on is that of what comes, where the system can be told so; else that of all before too."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError, AttributeError):  # Linux with glibc, which keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    """Bytes of memory that this process had at most, on the GPU those that torch held there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        told = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
        return int(told[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
