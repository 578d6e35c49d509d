"""Statistics over seeds and tasks, against numbers worked out by hand and against other implementations."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from coverage_of_intervals import (
    APART,
    COMPARED,
    SIZES,
    bootstraps,
    improvement_coverage,
    iqm_coverage,
    over_all_pairs,
    over_those_with_the_best,
    told_apart,
    uncorrected,
    wilson,
)
from scipy import stats
from support import sample_of

from results.statistics import (
    against_best,
    area_over_log,
    half_width,
    holm,
    improvement_interval,
    iqm,
    iqm_interval,
    iqm_of_tasks,
    probability_of_improvement,
    queries_to_reach,
    spread,
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


# The ranking of a column


def test_two_samples_that_lie_apart_are_told_apart_and_two_that_overlap_are_not() -> None:
    far, near, _ = against_best([sample_of(0.50, 0.01, 3), sample_of(0.58, 0.03, 3), sample_of(0.60, 0.02, 3)])
    assert far < 0.05 < near


def test_the_test_is_welchs_on_the_seeds_themselves_and_two_samples_need_no_correction() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        one, other = draw.normal(0.5, 0.05, 4), draw.normal(0.58, 0.01, 3)
        p = against_best([one, other])
        assert np.nanmax(p) == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)
        assert np.isnan(p).sum() == 1


def test_each_is_compared_with_the_best_and_corrected_for_all_pairs_of_the_column() -> None:
    draw = np.random.default_rng(3)
    samples = [draw.normal(centre, 0.03, 4) for centre in (0.5, 0.7, 0.6, 0.68)]
    pairs = list(combinations(range(4), 2))
    plain = [stats.ttest_ind(samples[i], samples[j], equal_var=False).pvalue for i, j in pairs]
    adjusted = dict(zip(pairs, holm(plain), strict=True))
    p = against_best(samples)
    assert math.isnan(p[1])
    assert [p[0], p[2], p[3]] == pytest.approx([adjusted[0, 1], adjusted[1, 2], adjusted[1, 3]])


def test_holm_multiplies_the_least_by_all_the_next_by_one_less_and_never_falls() -> None:
    # 0.01 * 4; 0.02 * 3; 0.022 * 2 = 0.044, held at 0.06; 0.9 * 1. Found by hand, in another order.
    assert holm([0.9, 0.01, 0.022, 0.02]) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]).size == 0


def test_what_was_not_tested_does_not_count_as_a_test() -> None:
    assert holm([math.nan, 0.01, 0.5]) == pytest.approx([math.nan, 0.02, 0.5], nan_ok=True)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds_make_no_test(n: int) -> None:
    assert np.isnan(against_best([sample_of(0.6, 0.1, n), sample_of(0.5, 0.1, 5)])).all()
    p = against_best([sample_of(0.6, 0.01, 5), sample_of(0.5, 0.1, n), sample_of(0.3, 0.01, 5)])
    assert np.isnan(p).tolist() == [True, True, False]


def test_samples_without_spread_are_told_apart_unless_they_are_equal() -> None:
    p = against_best([[0.5] * 3, [0.5] * 3, [0.4] * 3])
    assert p == pytest.approx([math.nan, 1.0, 0.0], nan_ok=True)


def test_methods_that_met_the_same_teachers_are_compared_teacher_by_teacher() -> None:
    easy_to_hard = np.array([0.9, 0.7, 0.5])
    samples = [easy_to_hard, easy_to_hard - [0.04, 0.05, 0.06], easy_to_hard - 0.02]
    assert (np.nan_to_num(against_best(samples), nan=1) > 0.05).all(), "the teachers drown the difference"
    _, other, steady = against_best(samples, paired=True)
    pairs = [stats.ttest_rel(samples[0], samples[1]).pvalue, 0.0, stats.ttest_rel(samples[1], samples[2]).pvalue]
    assert other == pytest.approx(holm(pairs)[0])
    assert steady == 0
    assert np.isnan(against_best([sample[:2] for sample in samples], paired=True)).all()


@pytest.mark.parametrize(("methods", "seeds"), COMPARED)
def test_of_equal_methods_one_is_told_apart_in_no_more_than_a_twentieth_of_columns(methods: int, seeds: int) -> None:
    draws = 600
    error = 2 * math.sqrt(0.05 * 0.95 / draws)
    assert told_apart(over_all_pairs, methods, seeds, draws) <= 0.05 + error


def test_comparisons_with_the_best_alone_would_tell_equal_methods_apart_too_often() -> None:
    assert told_apart(over_those_with_the_best, 14, 5, 600) > 0.07
    assert told_apart(uncorrected, 14, 5, 300) > 0.5


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


def test_over_tasks_it_is_of_the_means_over_seeds_however_many_seeds_a_task_has() -> None:
    strata = [[0.0, 0.2], [0.4], [0.5, 0.6, 0.7], [0.9, 1.0]]
    assert iqm_of_tasks(strata) == pytest.approx((0.4 + 0.6) / 2)


def test_the_interval_of_one_task_is_students() -> None:
    sample = [0.2, 0.5, 0.6, 0.4]
    theirs = stats.ttest_1samp(sample, 0).confidence_interval()
    assert iqm_interval([sample]) == pytest.approx((theirs.low, theirs.high))


def test_the_interval_of_two_tasks_has_the_width_of_welchs_for_their_difference() -> None:
    one, other = np.random.default_rng(2).normal(size=(2, 4)) * [[1], [3]]
    theirs = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    low, high = iqm_interval([one, other])
    assert high - low == pytest.approx((theirs.high - theirs.low) / 2)
    assert (low + high) / 2 == pytest.approx((one.mean() + other.mean()) / 2)


def test_a_task_outside_the_middle_half_does_not_widen_the_interval() -> None:
    middle = [[0.5, 0.52, 0.54], [0.6, 0.61, 0.65]]
    calm = iqm_interval([[0.1, 0.1, 0.1], *middle, [0.9, 0.9, 0.9]])
    assert iqm_interval([[0.0, 0.1, 0.2], *middle, [0.8, 0.9, 1.0]]) == pytest.approx(calm)
    assert calm == pytest.approx(iqm_interval(middle))


def test_strata_without_spread_have_an_interval_of_no_width() -> None:
    assert iqm_interval([[0.2] * 3, [0.8] * 3]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("strata", [[[0.1, 0.2]], [[0.1, 0.2, 0.3], [0.1]]])
def test_a_task_of_fewer_than_three_seeds_leaves_no_interval(strata: list[list[float]]) -> None:
    assert np.isnan(iqm_interval(strata)).all()
    assert np.isnan(improvement_interval(strata, strata)).all()


@pytest.mark.parametrize("population", ["equal spreads", "unequal spreads"])
@pytest.mark.parametrize(("tasks", "seeds"), SIZES)
def test_intervals_over_tasks_hold_the_truth_as_often_as_they_say(population: str, tasks: int, seeds: int) -> None:
    assert iqm_coverage(iqm_interval, population, tasks, seeds, draws=1000) >= 0.93


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize(("tasks", "seeds"), SIZES)
def test_intervals_of_an_improvement_hold_the_truth_at_least_as_often_as_they_say(
    apart: float, tasks: int, seeds: int
) -> None:
    assert improvement_coverage(wilson, apart, tasks, seeds, draws=400) >= 0.93


def test_the_simulation_finds_an_interval_that_holds_too_rarely() -> None:
    percentile = bootstraps(lambda sample, axis: sample.mean(axis))["percentile bootstrap"]
    assert iqm_coverage(percentile, "equal spreads", 1, 3, draws=200) < 0.85


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


def test_the_interval_of_an_improvement_is_wilsons_of_as_many_trials_as_tasks_have_seeds() -> None:
    first = [[3, 4, 5], [0, 0, 0]]
    second = [[0, 1, 2, 2], [1, 1, 1, 1]]  # one task won and one lost: 3 of 6
    theirs = stats.binomtest(3, 6).proportion_ci(method="wilson")
    assert improvement_interval(first, second) == pytest.approx((theirs.low, theirs.high))
    theirs = stats.binomtest(3, 3).proportion_ci(method="wilson")
    assert improvement_interval(first[:1], second[:1]) == pytest.approx((theirs.low, theirs.high))
