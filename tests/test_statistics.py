"""Statistics over seeds, against numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from results.statistics import area_over_log, interval, queries_to_reach, spread


def test_the_spread_is_the_sample_standard_deviation() -> None:
    assert spread([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(math.sqrt(32 / 7))
    assert spread([0.5, 0.7]) == pytest.approx(0.2 / math.sqrt(2))
    assert spread([0.3, 0.3, 0.3]) == pytest.approx(0)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_values_have_no_spread(values: list[float]) -> None:
    assert math.isnan(spread(values))


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.6]])
def test_fewer_than_three_values_have_no_interval(values: list[float]) -> None:
    assert all(math.isnan(bound) for bound in interval(values))


def test_three_values_have_the_interval_of_students_t_with_two_degrees_of_freedom() -> None:
    half = 4.302652729911275 / math.sqrt(3)
    assert interval([1, 2, 3]) == pytest.approx((2 - half, 2 + half))


def test_the_level_of_the_interval_can_be_chosen() -> None:
    half = 2.919985580353726 / math.sqrt(3)  # 95 % of one side, so 90 % of both
    assert interval([1, 2, 3], level=0.9) == pytest.approx((2 - half, 2 + half))


def test_values_that_agree_have_an_interval_of_no_width() -> None:
    assert interval([0.5, 0.5, 0.5, 0.5]) == pytest.approx((0.5, 0.5))


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
        assert interval(given) == interval(values)
        assert queries_to_reach(0.5, given, given) == 0.5
        assert type(area_over_log(given, given)) is float
