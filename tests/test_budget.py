"""Budgets: what can be written, what is refused, and that each preset says where it comes from."""

from typing import Any

import pytest

from budgets import PRESETS, Budget, BudgetError, parse_queries


@pytest.mark.parametrize(
    ("given", "queries"),
    [
        (1, 1),
        (2500, 2_500),
        ("2500", 2_500),
        (" 2500 ", 2_500),
        ("25,000", 25_000),
        ("1,262,500", 1_262_500),
        ("25_000", 25_000),
        ("25k", 25_000),
        ("25K", 25_000),
        ("2.5k", 2_500),
        ("0.3k", 300),
        ("1.2625M", 1_262_500),
        ("20m", 20_000_000),
        ("ideal-mnist", 25_000),
        ("ideal-mnist-counted", 1_262_500),
        ("dfme-cifar10", 20_000_000),
    ],
)
def test_a_budget_is_read_as_it_is_meant(given: str | int, queries: int) -> None:
    assert parse_queries(given) == queries
    assert type(parse_queries(given)) is int


@pytest.mark.parametrize(
    "given",
    [
        0,
        -5,
        "0",
        "-5",
        "25k5",
        "2,5k",
        "2,5",
        "25,00",
        ",500",
        "1000,000",
        "1.5",
        "1.2345k",
        0.3,
        "",
        " ",
        True,
        False,
        "True",
        "nan",
        "inf",
        "1e6",
        "k",
        ".5k",
        None,
    ],
)
def test_what_is_not_a_whole_number_of_queries_is_refused_with_what_was_given_and_what_is_wanted(given: Any) -> None:
    with pytest.raises(BudgetError) as refusal:
        parse_queries(given)
    message = str(refusal.value)
    assert message.startswith(f"budget {given!r}: wanted a whole number of queries")
    assert all(name in message for name in PRESETS)
    assert "\n" not in message


@pytest.mark.parametrize("queries", [0, -5, 2.5, 10.0, "10", True, None])
def test_a_budget_is_a_whole_number_of_queries_and_one_or_more(queries: Any) -> None:
    with pytest.raises(BudgetError, match="wanted a whole number of queries, 1 or more") as refusal:
        Budget(queries)
    assert repr(queries) in str(refusal.value)


def test_a_budget_of_one_query_is_a_budget() -> None:
    assert Budget(1).queries == 1


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"answers": "logits"}, "answers 'logits': wanted labels, probs, round-D"),
        ({"inputs": "uint16"}, "inputs 'uint16': wanted one of float, uint8"),
    ],
)
def test_terms_that_do_not_exist_are_refused_with_those_that_do(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        Budget(10, **terms)


def test_a_budget_does_not_change_once_it_is_made() -> None:
    budget: Any = Budget(10)
    with pytest.raises(AttributeError):
        budget.queries = 20


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_budget_and_names_its_source(name: str) -> None:
    preset = PRESETS[name]
    assert Budget(preset.queries).queries == parse_queries(name)
    assert any(venue in preset.source for venue in ("AAAI", "ICLR", "CVPR", "the same command"))


def test_the_counted_preset_of_ideal_is_the_claimed_one_with_every_pass_over_the_pool_counted() -> None:
    assert PRESETS["ideal-mnist"].queries == 100 * 250
    assert PRESETS["ideal-mnist-counted"].queries == sum(250 * pool for pool in range(1, 101))
