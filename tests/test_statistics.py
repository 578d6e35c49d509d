"""Statistics over seeds and tasks, against numbers worked out by hand and against other implementations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from results.statistics import (
    area_over_log,
    half_width,
    improvement_interval,
    iqm,
    iqm_interval,
    probability_of_improvement,
    queries_to_reach,
    resample,
    spread,
    tied,
)


def test_the_spread_is_the_sample_standard_deviation() -> None:
    assert spread([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(math.sqrt(32 / 7))
    assert spread([0.5, 0.7]) == pytest.approx(0.2 / math.sqrt(2))
    assert spread([0.3, 0.3, 0.3]) == pytest.approx(0)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_values_have_no_spread(values: list[float]) -> None:
    assert math.isnan(spread(values))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_values_have_no_interval(n: int) -> None:
    assert math.isnan(half_width(0.1, n))


def test_three_values_have_the_interval_of_students_t_with_two_degrees_of_freedom() -> None:
    assert half_width(spread([1, 2, 3]), 3) == pytest.approx(4.302652729911275 / math.sqrt(3))


def test_the_level_of_the_interval_can_be_chosen() -> None:
    half = 2.919985580353726 / math.sqrt(3)  # 95 % of one side, so 90 % of both
    assert half_width(1.0, 3, level=0.9) == pytest.approx(half)


def test_values_that_agree_have_an_interval_of_no_width() -> None:
    assert half_width(0.0, 4) == pytest.approx(0)


def test_many_intervals_at_once_are_each_what_they_are_alone() -> None:
    assert half_width([0.1, 0.2, 0.3], [3, 2, 5]) == pytest.approx(
        [float(half_width(*pair)) for pair in ((0.1, 3), (0.2, 2), (0.3, 5))], nan_ok=True
    )


def test_a_constant_curve_has_its_own_height_as_area_however_far_it_reaches() -> None:
    assert area_over_log([10, 20], [0.8, 0.8]) == pytest.approx(0.8)
    assert area_over_log([10, 70, 1e6], [0.8, 0.8, 0.8]) == pytest.approx(0.8)


def test_the_area_counts_powers_of_ten_and_not_queries() -> None:
    # From 10 to 100 the mean height is 0.3, from 100 to 10,000 it is 0.6, and that is twice as wide.
    assert area_over_log([10, 100, 10_000], [0.2, 0.4, 0.8]) == pytest.approx((0.3 + 2 * 0.6) / 3)


def test_the_unit_of_queries_does_not_matter_to_the_area() -> None:
    accuracy = [0.1, 0.5, 0.6]
    assert area_over_log([1, 3, 9], accuracy) == pytest.approx(area_over_log([1000, 3000, 9000], accuracy))


@pytest.mark.parametrize(("queries", "accuracy"), [([], []), ([100], [0.5])])
def test_fewer_than_two_points_have_no_area(queries: list[float], accuracy: list[float]) -> None:
    assert math.isnan(area_over_log(queries, accuracy))


@pytest.mark.parametrize(
    ("target", "needed"), [(0.1, 100), (0.2, 100), (0.21, 1000), (0.5, 1000), (0.55, 3000), (0.6, 3000)]
)
def test_a_target_is_reached_at_the_first_measured_point_at_or_above_it(target: float, needed: float) -> None:
    assert queries_to_reach(target, [100, 300, 1000, 3000], [0.2, 0.1, 0.5, 0.6]) == needed


def test_a_curve_that_reaches_its_target_and_falls_again_has_reached_it() -> None:
    assert queries_to_reach(0.5, [100, 300, 1000], [0.2, 0.5, 0.4]) == 300


def test_a_target_that_no_point_reaches_is_no_number() -> None:
    assert math.isnan(queries_to_reach(0.7, [100, 300], [0.2, 0.6]))
    assert math.isnan(queries_to_reach(0.7, [], []))


def test_frames_lists_and_arrays_give_the_same_plain_numbers() -> None:
    values = [0.2, 0.5, 0.6]
    for given in (values, np.array(values), pd.Series(values, index=[7, 8, 9])):
        assert spread(given) == spread(values)
        assert iqm(given) == iqm(values)
        assert queries_to_reach(0.5, given, given) == 0.5
        assert type(area_over_log(given, given)) is float


# Welch's t-test


def test_two_samples_that_lie_apart_are_not_tied_and_two_that_overlap_are() -> None:
    far, near, best = (0.50, 0.01, 3), (0.58, 0.03, 3), (0.60, 0.02, 3)
    assert not tied(far, best)
    assert tied(near, best)


def test_the_tie_is_welchs_test_on_the_seeds_themselves() -> None:
    draw = np.random.default_rng(0)
    answers = set()
    for _ in range(50):
        one, other = draw.normal(0.5, 0.05, 4), draw.normal(0.58, 0.01, 3)
        given = [(float(sample.mean()), spread(sample), sample.size) for sample in (one, other)]
        expected = stats.ttest_ind(one, other, equal_var=False).pvalue >= 0.05
        assert tied(given[0], given[1]) == expected
        answers.add(bool(expected))
    assert answers == {True, False}


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds_make_no_tie(n: int) -> None:
    assert not tied((0.6, 0.1, n), (0.6, 0.1, 5))
    assert not tied((0.6, 0.1, 5), (0.6, 0.1, n))


def test_samples_without_spread_are_tied_where_they_are_equal() -> None:
    assert tied((0.5, 0.0, 3), (0.5, 0.0, 3))
    assert not tied((0.5, 0.0, 3), (0.6, 0.0, 3))


# Over tasks (Agarwal et al. 2021)


def test_the_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert iqm([100, 1, 2, 3, 4, 5, 6, -100]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm([1, 2, 6]) == pytest.approx(3)  # a quarter of three is no value at all


def test_the_interquartile_mean_is_that_of_a_plain_loop() -> None:
    draw = np.random.default_rng(1)
    for size in range(1, 30):
        values = draw.normal(size=size)
        middle = sorted(values)[size // 4 : size - size // 4]
        assert iqm(values) == pytest.approx(sum(middle) / len(middle))


def test_bootstrap_samples_stay_within_their_stratum() -> None:
    first, second = resample([[1, 2, 3], [10, 20]], np.random.default_rng(0), draws=500)
    assert (first.shape, second.shape) == ((500, 3), (500, 2))
    assert set(first.ravel()) == {1, 2, 3}
    assert set(second.ravel()) == {10, 20}
    assert first.mean() == pytest.approx(2, abs=0.1)


def test_the_interval_of_the_interquartile_mean_is_scipys_bootstrap_of_many_samples() -> None:
    draw = np.random.default_rng(2)
    strata = [draw.normal(centre, 0.05, 6) for centre in (0.3, 0.5, 0.9)]
    theirs = stats.bootstrap(
        strata,
        lambda *samples: stats.trim_mean(np.concatenate(samples), 0.25),
        n_resamples=2000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert iqm_interval(strata, np.random.default_rng(4)) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_strata_without_spread_have_an_interval_of_no_width() -> None:
    assert iqm_interval([[0.2] * 3, [0.8] * 3], np.random.default_rng(0)) == pytest.approx((0.5, 0.5))


def test_one_generator_seed_gives_one_interval() -> None:
    strata = np.random.default_rng(0).normal(size=(3, 5))
    one, same, other = (iqm_interval(strata, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one == same
    assert one != other


def test_the_probability_of_improvement_counts_pairs_won_and_half_of_ties() -> None:
    # task one: 1 beats 0, ties 1; 2 beats both: (1 + 0.5 + 2) / 4. Task two: never.
    assert probability_of_improvement([[1, 2]], [[0, 1]]) == pytest.approx(3.5 / 4)
    assert probability_of_improvement([[1, 2], [0, 0]], [[0, 1], [5, 6, 7]]) == pytest.approx(3.5 / 8)


def test_the_probability_of_improvement_is_the_mean_of_mann_whitneys_u_over_tasks() -> None:
    draw = np.random.default_rng(7)
    first = [draw.integers(0, 5, size) for size in (3, 5, 4)]
    second = [draw.integers(0, 5, size) for size in (4, 3, 6)]
    shares = [
        stats.mannwhitneyu(one, other).statistic / (one.size * other.size)
        for one, other in zip(first, second, strict=True)
    ]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(shares))
    assert probability_of_improvement(second, first) == pytest.approx(1 - np.mean(shares))


def test_the_interval_of_an_improvement_is_that_of_a_plain_loop() -> None:
    draw = np.random.default_rng(8)
    first, second = ([draw.normal(centre, 1, 5) for centre in centres] for centres in ((0.5, 0.2), (0, 0)))

    def again(sample: list[float]) -> list[float]:
        return [sample[draw.integers(len(sample))] for _ in sample]

    def share_won(one: list[float], other: list[float]) -> float:
        return float(np.mean([x > y for x in one for y in other]))

    tasks = list(zip(first, second, strict=True))
    draws = [np.mean([share_won(again(one), again(other)) for one, other in tasks]) for _ in range(2000)]
    low, high = improvement_interval(first, second, np.random.default_rng(9))
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.05)
    assert improvement_interval([[3, 4, 5]], [[0, 1, 2]], np.random.default_rng(0)) == (1, 1)
