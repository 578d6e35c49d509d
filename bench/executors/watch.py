"""What becomes of runs that others work on, as their folders tell it."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bench.executors.jobs import Event, Job, cell_jobs
from bench.grids.plan import Planned, plan
from results.records import Point, RecordError, read

PACE = 2.0  # least seconds between two looks
SHARE = 10  # a look that takes a second is followed by so many without one


def watch(
    waiting: Sequence[Planned], root: Path, data_folder: Path, at_work: Callable[[], bool]
) -> Generator[Event | None]:
    """What happens to the runs' cells, as an executor would tell it, until nobody is at work any more.

    None after each look. A cell counts as failed by what an attempt leaves from now on.
    """
    watcher = _Watcher(waiting, root, data_folder)
    going = True
    while going:
        begun, going = time.monotonic(), at_work()  # first, so that the last look finds all that was done
        yield from watcher.look()
        yield None
        if going:
            time.sleep(max(PACE, SHARE * (time.monotonic() - begun)))


class _Watcher:
    """The runs that have not ended yet, and which of their cells someone is at."""

    def __init__(self, waiting: Sequence[Planned], root: Path, data_folder: Path) -> None:
        self._open, self._places = list(waiting), (root, data_folder)
        self._at_work: dict[str, Job] = {}
        self._ended: set[str] = set()
        named = [run.cell.name() for run in waiting if run.cell]
        self._failures = {name: self._failure(name) for name in named}

    def look(self) -> Iterator[Event]:
        """What has happened since the last look. Runs that share a cell are one."""
        self._open = plan(self._open, *self._places, gpu=True)
        for name, run in {run.cell.name(): run for run in self._open if run.cell}.items():
            if name not in self._ended:
                yield from self._news(name, run)
        self._open = [run for run in self._open if not run.cell or run.cell.name() not in self._ended]

    def _news(self, name: str, run: Planned) -> Iterator[Event]:
        ended = run.state == "done" or (run.state == "failed" and self._failure(name) != self._failures.get(name))
        job = self._at_work.get(name)
        if job is None and (ended or run.state == "running"):
            assert run.cell
            (job,) = cell_jobs([run.cell], *self._places)
            self._at_work[name] = job
            yield Event(job, "started")
        if job is None:
            return
        if ended:
            self._ended.add(name)
            del self._at_work[name]
            yield Event(job, "failed" if run.state == "failed" else "done", run.reason)
        elif run.state == "running":
            yield Event(job, "progress", (self._asked(name), {}))
        else:
            del self._at_work[name]
            yield Event(job, "again", "its worker was ended")

    def _asked(self, name: str) -> int:
        """The queries of the last point of a cell's curve so far."""
        with suppress(RecordError, OSError):
            points = read(self._places[0] / "cells" / name / "curve.json", list[Point])
            return points[-1]["spent"] if points else 0
        return 0

    def _failure(self, name: str) -> int:
        """When a cell's failure was written; 0 without one."""
        try:
            return (self._places[0] / "cells" / name / "failed.json").stat().st_mtime_ns
        except OSError:
            return 0
