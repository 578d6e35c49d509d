"""How long a command still takes, by what its jobs were judged to take and by what those that ended took."""

import math
import time
from collections.abc import Callable

from bench.executors.jobs import Job

TRUST = 60.0  # seconds of ended jobs that weigh as much as the judgement before the first


class TimeLeft:
    """judged: seconds that a job takes, NaN where nothing is known of its like. total: of all jobs that are known.
    unknown: how many there are of which nothing is known."""

    def __init__(
        self,
        judged: Callable[[Job], float],
        total: float,
        unknown: int,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judged, self._left, self._unknown, self._slots, self._clock = judged, total, unknown, slots, clock
        self._running: dict[str, tuple[float, float]] = {}  # key -> when it began, and its judged seconds
        self._took = self._expected = TRUST

    def start(self, job: Job) -> None:
        judged = self._judged(job)
        if not math.isnan(judged):
            self._running[job.key] = self._clock(), judged

    def put_back(self, job: Job) -> None:
        """It will be begun again."""
        self._running.pop(job.key, None)

    def end(self, job: Job, *, done: bool) -> None:
        if job.key not in self._running:
            self._unknown = max(self._unknown - 1, 0)
            return
        begun, judged = self._running.pop(job.key)
        self._left -= judged
        if done:
            self._took += self._clock() - begun
            self._expected += judged

    def seconds(self) -> float:
        """Until all slots have nothing to do: no less than the longest job that is running."""
        now, factor = self._clock(), self._took / self._expected
        passed = {key: min(now - begun, judged * factor) for key, (begun, judged) in self._running.items()}
        rest = [judged * factor - passed[key] for key, (_, judged) in self._running.items()]
        return max([(self._left * factor - sum(passed.values())) / self._slots, *rest, 0.0])

    def words(self) -> str:
        """As a person is told."""
        known = f"about {spoken(self.seconds())} left"
        return f"{known}, and {self._unknown:,} of which nothing is known" if self._unknown else known


def spoken(seconds: float) -> str:
    """A length of time in its usual unit."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}" if seconds >= 20 * size else f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
