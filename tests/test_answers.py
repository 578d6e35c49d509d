"""What an answer reveals: every kind of terms, held against the probabilities that lie behind it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from budgets import Budget, BudgetError, Oracle
from budgets.answers import NOTHING, AnswersError, covers, kind_of, reveal
from methods.fitting import targets

SHAPE = (1, 2, 2)


def probabilities(n: int = 6, classes: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(dim=1)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [("labels", "labels"), ("probs", "probs"), ("round-2", "rounded"), ("top-3", "partial"), ("above-0.5", "partial")],
)
def test_each_kind_of_terms_is_known(answers: str, kind: str) -> None:
    assert kind_of(answers) == kind
    assert Budget(10, answers).answers == answers


@pytest.mark.parametrize("answers", ["", "label", "top", "top-0", "top-1.5", "round-9", "above-1", "above-0", "top--1"])
def test_terms_that_cannot_be_are_told_in_one_line(answers: str) -> None:
    with pytest.raises(AnswersError, match="wanted labels, probs, round-D"):
        kind_of(answers)
    with pytest.raises(BudgetError, match="wanted labels, probs, round-D"):
        Budget(10, answers)


@given(seed=st.integers(0, 1000), k=st.integers(1, 7))
def test_top_k_shows_the_likeliest_and_nothing_else(seed: int, k: int) -> None:
    probs = probabilities(seed=seed)
    shown = reveal(probs, f"top-{k}")
    assert (~shown.isnan()).sum(dim=1).eq(min(k, 5)).all()
    assert torch.equal(shown.nan_to_num(nan=-1.0).amax(dim=1), probs.amax(dim=1))
    assert (shown.nan_to_num(nan=2.0).amin(dim=1) >= probs.sort(dim=1, descending=True).values[:, min(k, 5) - 1]).all()


def test_a_threshold_shows_what_reaches_it() -> None:
    shown = reveal(torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]), "above-0.5")
    assert shown[0, 0] == pytest.approx(0.7)
    assert shown.isnan().tolist() == [[False, True, True], [True, True, True]]


def test_rounding_is_to_so_many_decimals() -> None:
    assert reveal(torch.tensor([[0.126, 0.874]]), "round-1").tolist() == [[pytest.approx(0.1), pytest.approx(0.9)]]


def test_a_box_that_reveals_less_than_promised_is_refused() -> None:
    labels, partial = torch.tensor([1, 2]), torch.tensor([[0.7, torch.nan]])
    for answers in ("probs", "top-1", "round-2"):
        with pytest.raises(ValueError, match="reveals top-1 classes alone"):
            reveal(labels, answers)
    for answers in ("probs", "round-2"):
        with pytest.raises(ValueError, match="to itself"):
            reveal(partial, answers)
    assert torch.equal(reveal(labels, "labels"), labels)
    assert reveal(partial, "labels").tolist() == [0]
    assert reveal(torch.full((1, 2), torch.nan), "labels").tolist() == [NOTHING]


@pytest.mark.parametrize(
    ("offered", "wanted", "can"),
    [
        ("probs", "top-3", True),
        ("probs", "round-2", True),
        ("labels", "labels", True),
        ("labels", "top-1", False),
        ("top-5", "labels", True),
        ("top-5", "top-3", True),
        ("top-5", "top-6", False),
        ("top-5", "probs", False),
        ("round-3", "round-2", True),
        ("round-3", "probs", False),
        ("above-0.2", "above-0.5", True),
        ("above-0.5", "above-0.2", False),
        ("above-0.5", "labels", False),
        ("round-2", "labels", True),
        ("top-5", "above-0.5", False),
    ],
)
def test_what_a_box_offers_covers_what_reveals_no_more(offered: str, wanted: str, can: bool) -> None:
    assert covers(offered, wanted) == can


@pytest.mark.parametrize("answers", ["top-2", "above-0.4", "round-2", "labels"])
def test_the_meter_gives_what_the_budget_reveals(answers: str) -> None:
    probs = probabilities()
    oracle = Oracle(lambda images: probs[: len(images)], Budget(6, answers), shape=SHAPE, classes=5)
    torch.testing.assert_close(oracle(torch.rand(6, *SHAPE)), reveal(probs, answers), equal_nan=True)
    assert oracle.spent == 6


@given(seed=st.integers(0, 1000), answers=st.sampled_from(["top-1", "top-3", "above-0.3", "above-0.9"]))
def test_what_is_hidden_is_spread_over_the_classes_nothing_was_said_of(seed: int, answers: str) -> None:
    probs = probabilities(seed=seed)
    shown = reveal(probs, answers)
    filled = targets(shown)
    torch.testing.assert_close(filled.sum(dim=1), torch.ones(len(probs)))
    assert torch.equal(filled[~shown.isnan()], probs[~shown.isnan()])
    for row, hidden in zip(filled, shown.isnan(), strict=True):
        assert row[hidden].unique().numel() <= 1
    assert F.cross_entropy(torch.zeros_like(filled), filled).isfinite()


def test_whole_answers_are_targets_as_they_are() -> None:
    probs, labels = probabilities(), torch.tensor([0, 1])
    assert torch.equal(targets(probs), probs)
    assert targets(labels) is labels
