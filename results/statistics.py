"""Statistics over seeds and tasks: pure functions on arrays.

A sample has one value a seed; strata are samples, one a task.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
DRAWS = 2000


def spread(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1); NaN for fewer than two values."""
    sample = np.asarray(values, dtype=float)
    return float(sample.std(ddof=1)) if sample.size > 1 else float("nan")


def half_width(spread: ArrayLike, n: ArrayLike, level: float = 0.95) -> Floats:
    """Half of Student's t interval for the mean; NaN for fewer than three values, where it would say nothing.

    spread, n: of one sample or of many, elementwise.
    """
    count = np.where(np.asarray(n) >= 3, n, np.nan)
    return np.asarray(stats.t.ppf((1 + level) / 2, count - 1) * np.asarray(spread, dtype=float) / np.sqrt(count))


def tied(sample: tuple[float, float, int], best: tuple[float, float, int], level: float = 0.05) -> bool:
    """Whether Welch's t-test cannot tell two samples apart; False where either has fewer than three values.

    sample, best: mean, spread and n of each.
    """
    if min(sample[2], best[2]) < 3:
        return False
    if sample[1] == best[1] == 0:
        return sample[0] == best[0]  # the test would divide by nothing
    return bool(stats.ttest_ind_from_stats(*sample, *best, equal_var=False).pvalue >= level)


def iqm(values: ArrayLike) -> Any:
    """Mean of the middle half, along the last axis: a quarter, rounded down, is cut from each end.

    Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice".
    """
    return stats.trim_mean(np.asarray(values, dtype=float), 0.25, axis=-1)


def resample(strata: Sequence[ArrayLike], generator: np.random.Generator, draws: int = DRAWS) -> list[Floats]:
    """Bootstrap samples, drawn within each stratum: one [draws, n] for each stratum of n values."""
    samples = [np.asarray(stratum, dtype=float) for stratum in strata]
    return [sample[generator.integers(sample.size, size=(draws, sample.size))] for sample in samples]


def iqm_interval(
    strata: Sequence[ArrayLike], generator: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Stratified bootstrap interval, by percentiles, for the IQM of all values together."""
    return _percentiles(iqm(np.concatenate(resample(strata, generator), axis=-1)), level)


def probability_of_improvement(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> Any:
    """Mean over tasks of the share of pairs of seeds in which the first is above the second, ties half.

    first, second: strata, task by task. Leading axes, such as one of draws, are kept.
    """
    shares = [_share_won(np.asarray(one), np.asarray(other)) for one, other in zip(first, second, strict=True)]
    return np.mean(shares, axis=0)


def improvement_interval(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], generator: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Stratified bootstrap interval, by percentiles, for the probability of improvement."""
    draws = probability_of_improvement(resample(first, generator), resample(second, generator))
    return _percentiles(draws, level)


def _share_won(first: Floats, second: Floats) -> Any:
    ahead = np.sign(first[..., :, None] - second[..., None, :])
    return (0.5 + 0.5 * ahead).mean(axis=(-2, -1))


def _percentiles(draws: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def area_over_log(queries: ArrayLike, accuracy: ArrayLike) -> float:
    """Mean height of the curve over log queries, by trapezoids between the points; NaN for fewer than two points.

    queries: increasing, above 0. Accuracy 0.8 throughout gives 0.8, however far the curve reaches.
    """
    x, y = np.log(np.asarray(queries, dtype=float)), np.asarray(accuracy, dtype=float)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if x.size > 1 else float("nan")


def queries_to_reach(target: float, queries: ArrayLike, accuracy: ArrayLike) -> float:
    """The fewest queries at which a measured point is at or above the target; NaN if none is.

    queries: increasing. Nothing is interpolated: a budget that was not tried was not reached.
    """
    reached = np.flatnonzero(np.asarray(accuracy, dtype=float) >= target)
    return float(np.asarray(queries, dtype=float)[reached[0]]) if reached.size else float("nan")
