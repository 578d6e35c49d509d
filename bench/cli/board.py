"""The progress of jobs on the screen."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.cli.time_left import TimeLeft
from bench.executors.jobs import Event

HEARTBEAT = 30.0  # seconds between plain lines


class Board:
    """The progress of jobs: a live table on a terminal, plain lines with a heartbeat elsewhere.

    left: knows how long they still take, if that is known.
    """

    def __init__(self, console: Console, what: str, total: int, left: TimeLeft | None = None) -> None:
        self._console, self._what, self._total, self._left = console, what, total, left
        self._ended = 0
        self._started: dict[str, float] = {}
        self._latest: dict[str, float] = {}
        self._busy: set[str] = set()
        self._last_line = time.monotonic()
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=console)
            self._overall = self._progress.add_task(what, total=total)

    def __enter__(self) -> "Board":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()

    def show(self, event: Event | None) -> None:
        """Take in an event, or None when only time has passed."""
        if event is not None:
            self._take(event)
        if not self._progress and self._started and time.monotonic() - self._last_line > HEARTBEAT:
            running = ", ".join(f"{key} at {self._latest.get(key, 0):,.3g}" for key in self._started)
            self._say(f"{self._ended}/{self._total} {self._title()}; running: {running}")
        if self._progress:
            self._progress.update(self._overall, description=self._title())

    def _title(self) -> str:
        """What is being done, and how long it still takes."""
        return f"{self._what}, {self._left.words()}" if self._left else self._what

    def _take(self, event: Event) -> None:
        key = event.job.key
        if event.kind == "started":
            self._started[key] = time.monotonic()
            if self._left:
                self._left.start(event.job)
            if self._progress:
                self._bars[key] = self._progress.add_task(f"  {key}", total=event.job.size)
        elif event.kind == "progress":
            self._latest[key] = event.detail[0]
            if self._progress:
                self._progress.update(self._bars[key], completed=event.detail[0])
        elif event.kind == "said":
            self._say(event.detail)
        elif event.kind in {"busy", "again"}:
            self._put_back(event)
        else:
            self._end(event)

    def _put_back(self, event: Event) -> None:
        """Another process is at it, or its own was killed: it will be tried again."""
        key = event.job.key
        del self._started[key]
        if self._left:
            self._left.put_back(event.job)
        if self._progress:
            self._progress.remove_task(self._bars.pop(key))
        if event.kind == "again":
            self._say(f"{key} is tried again: {event.detail}")
        elif key not in self._busy:
            self._busy.add(key)
            self._say(f"{key} is at work in another process: looked at again at the end")

    def _end(self, event: Event) -> None:
        key = event.job.key
        self._ended += 1
        if self._left:
            self._left.end(event.job, done=event.kind == "done")
        seconds = time.monotonic() - self._started.pop(key)
        if self._progress:
            self._progress.remove_task(self._bars.pop(key))
            self._progress.advance(self._overall)
        if event.kind == "failed":
            self._say(f"FAILED {key}: {event.detail}")
        elif not self._progress:
            self._say(f"{self._ended}/{self._total} {key} ({seconds:.1f} s)")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()
