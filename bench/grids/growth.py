"""How the time of a run grows with its budget, by what was measured at a few."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # whose parts are imported when they are first used
from numpy.typing import NDArray

SLACK = 0.15  # of a time: how far the clock and a least number of steps may be from a line
Points = Sequence[tuple[float, float]]  # (queries, seconds)


def seconds_at(measured: Points, queries: float, calibrated: Points = ()) -> float:
    """The time of a run of so many queries, by runs that were done and by rehearsals; NaN without either.

    Runs that were done are right about their own budgets; how time grows beyond them, rehearsals know better, if there
    were any. It never falls with the budget. Beyond the largest that was measured it grows at least as the queries do:
    a student's training takes the same least time at every small budget, which says nothing of a large one.
    """
    if not measured:
        measured, calibrated = calibrated, ()
    if not measured:
        return math.nan
    budgets, seconds = _knots(measured)
    if budgets[0] <= queries <= budgets[-1]:
        return float(np.exp(np.interp(np.log(queries), np.log(budgets), np.log(seconds))))
    grown = _growth(list(zip(budgets, seconds, strict=True)), calibrated)
    if queries < budgets[0]:
        return float(seconds[0] * min(1.0, grown(queries) / grown(budgets[0])))
    return float(seconds[-1] * max(queries / budgets[-1], grown(queries) / grown(budgets[-1])))


def polynomial(points: Points) -> Callable[[float], float]:
    """a + b q + c q^2 near the points, of which none is negative: what is paid once, for each query, and for each query
    again and again, as where every round goes over all earlier images. Without the square, if that is near enough.
    Through one point: what is paid for each query.
    """
    x, y = np.array(points, dtype=float).T
    scale = x.max()
    for powers in ([0, 1], [0, 1, 2]) if len(set(x)) > 1 else ([1],):
        shares = np.stack([(x / scale) ** power / y for power in powers], axis=1)
        parts, _ = scipy.optimize.nnls(shares, np.ones(len(x)))
        if np.abs(shares @ parts - 1).max() <= SLACK:
            break
    return lambda queries: float(sum(part * (queries / scale) ** k for part, k in zip(parts, powers, strict=True)))


def _growth(knots: Points, calibrated: Points) -> Callable[[float], float]:
    return (lambda queries: seconds_at(calibrated, queries)) if calibrated else polynomial(knots)


def _knots(measured: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each budget once, with the geometric mean of its times, or with that of a smaller one which took longer."""
    budgets = sorted({queries for queries, _ in measured})
    means = [np.mean([math.log(seconds) for queries, seconds in measured if queries == budget]) for budget in budgets]
    return np.array(budgets, dtype=float), np.exp(np.maximum.accumulate(means))
