"""Statistics over seeds: pure functions on one-dimensional arrays, one value a seed."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def spread(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1); NaN for fewer than two values."""
    sample = np.asarray(values, dtype=float)
    return float(sample.std(ddof=1)) if sample.size > 1 else float("nan")


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean; (NaN, NaN) for fewer than three values, where it would say nothing."""
    sample = np.asarray(values, dtype=float)
    if sample.size < 3:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, sample.size - 1) * spread(sample) / np.sqrt(sample.size)
    return float(sample.mean() - half), float(sample.mean() + half)


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
