"""How large a batch may be at a small budget."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import RecordingTeacher, make_oracle, make_run, small_student
from test_methods import SMALL

from budgets import BudgetExhausted, Oracle
from methods import METHODS
from methods.rounds import LEAST_BATCH, LEAST_ROUNDS, batch_that_fits

SIZES = st.integers(1, 300)


@given(SIZES, st.integers(1, 20), st.integers(1, 200_000))
def test_a_batch_is_never_larger_than_asked_and_fits_the_budget_once(size: int, a_round: int, budget: int) -> None:
    batch = batch_that_fits(size, a_round, budget)
    assert 1 <= batch <= size
    assert batch == 1 or batch * a_round <= budget


@given(SIZES, st.integers(1, 20), st.integers(1, 200_000))
def test_there_are_rounds_enough_unless_batches_would_be_too_small(size: int, a_round: int, budget: int) -> None:
    batch = batch_that_fits(size, a_round, budget)
    assert budget // (batch * a_round) >= LEAST_ROUNDS or batch <= LEAST_BATCH


@given(SIZES, st.integers(1, 20))
def test_a_budget_large_enough_changes_nothing(size: int, a_round: int) -> None:
    assert batch_that_fits(size, a_round, LEAST_ROUNDS * a_round * size) == size


@pytest.mark.parametrize("name", ["dfme", "maze", "disguide", "dual_students", "dfhl_rs"])
def test_a_method_made_for_millions_has_fifty_rounds_at_twenty_thousand_queries(name: str) -> None:
    settings = {**SMALL[name], "batch_size": 256}
    if name == "dfhl_rs":
        settings |= {"student_steps": 500, "entropy_steps": 0}
    oracle = make_oracle(RecordingTeacher(), 20_000, METHODS[name].ANSWERS[0])
    assert len(list(rounds_of(name, oracle, settings))) >= LEAST_ROUNDS


def rounds_of(name: str, oracle: Oracle, settings: dict[str, object]) -> Iterator[object]:
    """The rounds of a run, until its budget ends it."""
    method = METHODS[name]
    with suppress(BudgetExhausted):
        yield from method.distill(oracle, small_student(), method.Config(**settings), make_run())
