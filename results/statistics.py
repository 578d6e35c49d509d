"""Statistics over seeds and tasks: pure functions on arrays.

A sample has one value a unit, which is a seed, or a teacher where a task has several; strata are samples, one a task.
Tasks are fixed, units are random: an interval says where the figure of these very tasks would come to lie with endless
units. docs/statistics.md has what was checked, and how.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are first used: scipy.stats takes a second
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]
LEVEL = 0.95
FEWEST = 3  # seeds, below which there is neither an interval nor a test
NONE: Interval = (float("nan"), float("nan"))


def spread(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1); NaN for fewer than two values."""
    sample = np.asarray(values, dtype=float)
    return float(sample.std(ddof=1)) if sample.size > 1 else float("nan")


def half_width(spread: ArrayLike, n: ArrayLike) -> Floats:
    """Half of Student's t interval for the mean; NaN for fewer than three values, where it would say nothing.

    spread, n: of one sample or of many, elementwise.
    """
    count = np.asarray(n, dtype=float)
    count = np.where(count >= FEWEST, count, np.nan)
    return np.asarray(_quantile(count - 1) * np.asarray(spread, dtype=float) / np.sqrt(count))


def against_best(samples: Sequence[ArrayLike], *, paired: bool = False) -> Floats:
    """For each of k samples, the p-value of a test against the one of the highest mean, by Holm's method.

    paired: whether the i-th values of all samples belong together, such as those with the same teacher: then the test
    is Student's on their differences, else Welch's. Corrected for all pairs, and not for the k - 1 with the best alone:
    which one is the best was seen in the same data. NaN for the best itself, and where either has fewer than three
    values.
    """
    values = [np.asarray(sample, dtype=float) for sample in samples]
    first, second = np.triu_indices(len(values), k=1)
    test = _paired if paired else _welch
    p = holm(test([values[i] for i in first], [values[j] for j in second]))
    best = int(np.argmax([sample.mean() for sample in values]))
    against = np.full(len(values), np.nan)
    for pair in np.flatnonzero((first == best) | (second == best)):
        against[first[pair] + second[pair] - best] = p[pair]
    return against


def holm(p: ArrayLike) -> Floats:
    """P-values adjusted by Holm's method, in the order given; NaN stands for no test and is not counted."""
    given = np.asarray(p, dtype=float)
    order = np.argsort(given)[: np.isfinite(given).sum()]
    adjusted = np.full(given.size, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(given[order] * np.arange(order.size, 0, -1)))
    return adjusted


def iqm(values: ArrayLike) -> Any:
    """Mean of the middle half, along the last axis: a quarter, rounded down, is cut from each end."""
    return scipy.stats.trim_mean(np.asarray(values, dtype=float), 0.25, axis=-1)


def iqm_of_tasks(strata: Sequence[ArrayLike]) -> float:
    """Interquartile mean over tasks of the means over seeds."""
    return float(iqm([np.asarray(stratum, dtype=float).mean() for stratum in strata]))


def iqm_interval(strata: Sequence[ArrayLike]) -> Interval:
    """Student's t interval for `iqm_of_tasks`; NaN where a task has fewer than three seeds.

    The tasks of the middle half keep their own variances; the degrees of freedom of their sum are Welch's.
    """
    samples = [np.asarray(stratum, dtype=float) for stratum in strata]
    if min(sample.size for sample in samples) < FEWEST:
        return NONE
    cut = len(samples) // 4
    middle = sorted(samples, key=lambda sample: float(sample.mean()))[cut : len(samples) - cut]
    parts = np.array([sample.var(ddof=1) / sample.size for sample in middle])
    centre, variance = iqm_of_tasks(samples), parts.sum()
    if variance == 0:
        return centre, centre
    freedom = variance**2 / sum(part**2 / (sample.size - 1) for part, sample in zip(parts, middle, strict=True))
    half = float(_quantile(freedom) * np.sqrt(variance) / len(middle))
    return centre - half, centre + half


def probability_of_improvement(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> float:
    """Mean over tasks of the share of pairs of seeds in which the first is above the second, ties half.

    first, second: strata, task by task. Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice".
    """
    return float(np.mean([_share_won(*pair) for pair in zip(first, second, strict=True)]))


def improvement_interval(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> Interval:
    """Wilson's interval for `probability_of_improvement`; NaN where either has a task of fewer than three seeds.

    A task's pairs share seeds, so they count for no more than the fewer seeds of the two: the share won has at most the
    variance of that many independent trials, and a mean of shares at most that of one share of all their trials.
    """
    fewest = min(np.size(stratum) for stratum in [*first, *second])
    if fewest < FEWEST:
        return NONE
    trials, share = fewest * len(first), probability_of_improvement(first, second)
    z2 = float(scipy.stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * share * (1 - share) / trials + (z2 / (2 * trials)) ** 2) / (1 + z2 / trials)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


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


def _quantile(freedom: float | Floats) -> Any:
    """What Student's t stays within, on both sides, with the level's probability."""
    return scipy.stats.t.ppf((1 + LEVEL) / 2, freedom)


def _welch(first: Sequence[Floats], second: Sequence[Floats]) -> Floats:
    """P-values of Welch's test, pair by pair; NaN where either has fewer than three values."""
    (one, one_spread, one_n), (other, other_spread, other_n) = (
        np.array([(sample.mean(), spread(sample), sample.size) for sample in side]).T for side in (first, second)
    )
    p = np.where((one_spread == 0) & (other_spread == 0), one == other, np.nan).astype(float)
    at = (one_spread > 0) | (other_spread > 0)  # else the test would divide by nothing
    sides = (one[at], one_spread[at], one_n[at], other[at], other_spread[at], other_n[at])
    p[at] = scipy.stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue
    return np.where(np.minimum(one_n, other_n) >= FEWEST, p, np.nan)


def _paired(first: Sequence[Floats], second: Sequence[Floats]) -> Floats:
    """P-values of Student's test on the differences, pair by pair; NaN for fewer than three of them."""
    differences = np.array(first) - np.array(second)
    if differences.shape[1] < FEWEST:
        return np.full(len(differences), np.nan)
    steady = np.ptp(differences, axis=1) == 0
    p = np.where(steady, differences[:, 0] == 0, np.nan).astype(float)
    p[~steady] = scipy.stats.ttest_1samp(differences[~steady], 0.0, axis=1).pvalue
    return p


def _share_won(first: ArrayLike, second: ArrayLike) -> float:
    ahead = np.sign(np.asarray(first, dtype=float)[:, None] - np.asarray(second, dtype=float))
    return float((0.5 + 0.5 * ahead).mean())
