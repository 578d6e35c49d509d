"""The jobs that wait to be done, in whichever way an executor does them."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from bench.executors.jobs import Event, Job, More

ATTEMPTS = 2  # a job whose process was killed is tried again so often in all
BUSY = 1.0  # seconds until a job that another process is at is tried again


class Queue:
    """What waits. more: the jobs that the end of one makes possible; they come before those that wait. patient: whether
    a job that another process is at is waited for."""

    def __init__(self, jobs: Iterable[Job], more: More, *, patient: bool) -> None:
        self._waiting, self._more, self._patient = deque(jobs), more, patient
        self._busy: dict[str, float] = {}  # key -> when to try again
        self._killed: Counter[tuple[str, str]] = Counter()

    def next(self) -> Job | None:
        """The next job that nobody else is at, as far as is known."""
        now = time.monotonic()
        for job in self._waiting:
            if self._busy.get(job.key, 0.0) <= now:
                self._waiting.remove(job)
                return job
        return None

    def put_back(self, job: Job) -> None:
        """It was not begun, and is the next one."""
        self._waiting.appendleft(job)

    def take(self, event: Event) -> Iterator[Event]:
        """Take in how a job ended for now. Gives the event on first, for what it makes possible may be an error."""
        self._busy.pop(event.job.key, None)
        if event.kind in {"busy", "again"}:
            self._waiting.append(event.job)
        if event.kind == "busy":
            self._busy[event.job.key] = time.monotonic() + BUSY
        yield event
        if event.kind in {"done", "failed"}:
            self._waiting.extendleft(reversed(list(self._more(event))))

    def killed(self, job: Job, reason: str, attempts: int = ATTEMPTS, by: str = "") -> Event:
        """What becomes of a job whose process is gone: it is tried so often in all, for each that may be at fault."""
        self._killed[job.key, by] += 1
        return Event(job, "again" if self._killed[job.key, by] < attempts else "failed", reason)

    def is_worth_waiting(self) -> bool:
        """Whether something waits that is to be waited for."""
        return any(self._patient or not (job.saves and job.key in self._busy) for job in self._waiting)
