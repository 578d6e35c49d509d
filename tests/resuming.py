"""Kill a run of a method, go on from what a checkpoint holds, and compare with the run that was not killed."""

from bench.contract.check import resumes_where_it_was
from bench.contract.trial import Trial
from budgets import Answers, Budget
from methods import METHODS


def assert_resuming_changes_nothing(
    name: str, queries: int, answers: Answers, stop_after: int, **settings: object
) -> None:
    """stop_after: the round after which it is killed, which must not be its last."""
    method, budget = METHODS[name], Budget(queries, answers)
    unbroken = Trial(method, settings, budget)
    assert unbroken.error is None
    assert unbroken.rounds > stop_after
    assert resumes_where_it_was(unbroken, Trial(method, settings, budget, kills=(stop_after,))) is None
