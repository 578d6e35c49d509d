"""How long a command says it still takes."""

import math
from typing import Any

import pytest

from bench.cli.time_left import TRUST, TimeLeft, spoken
from bench.executors.jobs import Job


def nothing(*_: Any) -> None: ...


JUDGED = {"short": 100.0, "long": 1000.0, "unknown": math.nan}
JOBS = {key: Job(key, nothing, ()) for key in JUDGED}


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def time_left(clock: Clock, slots: int = 1) -> TimeLeft:
    return TimeLeft(lambda job: JUDGED[job.key], 1100.0, 1, slots, clock)


def test_what_is_left_falls_as_time_passes_and_slots_share_it() -> None:
    clock = Clock()
    one, two = time_left(clock), time_left(clock, slots=2)
    assert one.seconds() == pytest.approx(1100)
    assert two.seconds() == pytest.approx(550)
    for left in (one, two):
        left.start(JOBS["long"])
    assert two.seconds() == pytest.approx(1000)  # nobody helps with the longest
    clock.now = 400.0
    assert one.seconds() == pytest.approx(700)
    assert two.seconds() == pytest.approx(600)


def test_a_job_that_took_longer_than_judged_makes_the_others_longer_too() -> None:
    clock = Clock()
    left = time_left(clock)
    left.start(JOBS["short"])
    clock.now = 200.0
    left.end(JOBS["short"], done=True)
    assert left.seconds() == pytest.approx(1000 * (200 + TRUST) / (100 + TRUST))


def test_a_failure_and_a_job_of_which_nothing_is_known_teach_nothing_and_one_put_back_is_still_to_do() -> None:
    clock = Clock()
    left = time_left(clock)
    for key in JOBS:
        left.start(JOBS[key])
    clock.now = 50.0
    left.end(JOBS["unknown"], done=True)
    left.put_back(JOBS["long"])
    left.end(JOBS["short"], done=False)
    assert left.seconds() == pytest.approx(1000)


def test_runs_of_which_nothing_is_known_are_told_until_they_end() -> None:
    left = time_left(Clock())
    left.start(JOBS["unknown"])
    assert left.words() == "about 18.3 min left, and 1 of which nothing is known"
    left.end(JOBS["unknown"], done=True)
    assert left.words() == "about 18.3 min left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (119, "119 s"), (150, "2.5 min"), (3000, "50 min"), (9000, "2.5 hours"), (1e6, "11.6 days")],
)
def test_a_length_of_time_has_its_usual_unit(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
