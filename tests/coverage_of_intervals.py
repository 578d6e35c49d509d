"""How often intervals hold what they are about, and how often equal methods are told apart: makes the tables of
docs/statistics.md.

    python tests/coverage_of_intervals.py [DRAWS]
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from results.statistics import (
    Floats,
    Interval,
    against_best,
    holm,
    improvement_interval,
    iqm,
    iqm_interval,
)

Strata = list[Floats]
Rows = list[tuple[str, ...]]
POPULATIONS = ("equal spreads", "unequal spreads", "skewed")
SIZES = [(tasks, seeds) for tasks in (1, 4, 14) for seeds in (3, 5)]
APART = (0.0, 1.0, 3.0)  # how far one method is above the other, in standard deviations
ABOVE = (3, 5, 10)
COMPARED = [(methods, seeds) for methods in (2, 6, 14) for seeds in (3, 5)]
RESAMPLES = 499


# Where tasks differ and seeds are random


def centres(tasks: int) -> Floats:
    """The true mean of each task: some tasks are harder."""
    return np.linspace(0.35, 0.9, tasks)


def draw(population: str, tasks: int, seeds: int, generator: np.random.Generator) -> Strata:
    """Accuracies of one method. unequal: spreads from 1 to 10 %, shuffled. skewed: with a tail towards failure, too."""
    spreads = np.full(tasks, 0.04)
    if population != "equal spreads" and tasks > 1:
        spreads = np.random.default_rng(1).permutation(np.geomspace(0.01, 0.1, tasks))
    noise = generator.normal(size=(tasks, seeds))
    if population == "skewed":
        noise = (2 - generator.gamma(2, size=(tasks, seeds))) / np.sqrt(2)
    return list(centres(tasks)[:, None] + spreads[:, None] * noise)


def bootstrap(method: str, statistic: Callable[..., Any], strata: Strata, generator: np.random.Generator) -> Interval:
    """scipy's, each stratum resampled by itself."""
    options: Any = {"n_resamples": RESAMPLES, "method": method, "vectorized": True, "rng": generator}
    with warnings.catch_warnings(action="ignore"):  # BCa has no interval where all resamples agree
        found = stats.bootstrap(strata, statistic, **options).confidence_interval
    return float(found.low), float(found.high)


def bootstraps(statistic: Callable[..., Any]) -> dict[str, Callable[[Strata], Interval]]:
    generator = np.random.default_rng(1)
    return {
        name: partial(bootstrap, method, statistic, generator=generator)
        for name, method in (("percentile bootstrap", "percentile"), ("BCa bootstrap", "BCa"))
    }


def coverage(interval: Callable[[Any], Interval], samples: Iterable[Any], truth: float) -> float:
    """The share of samples whose interval holds the truth."""
    held = [low <= truth <= high for low, high in map(interval, samples)]
    return sum(held) / len(held)


# The interquartile mean over tasks


def iqm_coverage(interval: Callable[[Strata], Interval], population: str, tasks: int, seeds: int, draws: int) -> float:
    generator = np.random.default_rng(0)
    samples = (draw(population, tasks, seeds, generator) for _ in range(draws))
    return coverage(interval, samples, float(iqm(centres(tasks))))


def _iqm_of(*samples: Floats, axis: int) -> Any:
    return iqm(np.stack([sample.mean(axis) for sample in samples], axis=-1))


# The probability of improvement


def improvement_coverage(
    interval: Callable[[Strata], Interval], apart: float, tasks: int, seeds: int, draws: int
) -> float:
    """apart: the first method is that many standard deviations above the other in every task."""
    generator = np.random.default_rng(0)
    samples = (
        [*generator.normal(apart, 1, (tasks, seeds)), *generator.normal(0, 1, (tasks, seeds))] for _ in range(draws)
    )
    return coverage(interval, samples, float(stats.norm.cdf(apart / np.sqrt(2))))


def wilson(strata: Strata) -> Interval:
    """The first half of the strata against the second."""
    half = len(strata) // 2
    return improvement_interval(strata[:half], strata[half:])


def _share_won(*samples: Floats, axis: int) -> Any:
    last = [np.moveaxis(sample, axis, -1) for sample in samples]
    half = len(last) // 2
    pairs = zip(last[:half], last[half:], strict=True)
    return np.mean(
        [(0.5 + 0.5 * np.sign(one[..., :, None] - two[..., None, :])).mean((-2, -1)) for one, two in pairs], axis=0
    )


# The ranking of equal methods


def told_apart(correct: Callable[[Floats], Floats], methods: int, seeds: int, draws: int) -> float:
    """The share of columns of equal methods in which one at least reads as worse than the best."""
    generator = np.random.default_rng(0)
    return float(np.mean([(correct(generator.normal(size=(methods, seeds))) < 0.05).any() for _ in range(draws)]))


def seen(apart: float, methods: int, seeds: int, draws: int) -> float:
    """The share of methods told apart from one that is so many standard deviations above all the others."""
    generator = np.random.default_rng(0)
    above = np.zeros((methods, 1))
    above[0] = apart
    columns = (above + generator.normal(size=(methods, seeds)) for _ in range(draws))
    return float(np.mean([(over_all_pairs(samples)[1:] < 0.05).mean() for samples in columns]))


def over_all_pairs(samples: Floats) -> Floats:
    return against_best(list(samples))


def uncorrected(samples: Floats) -> Floats:
    best = samples.mean(-1).argmax()
    others = np.delete(samples, best, axis=0)
    return np.asarray(stats.ttest_ind(samples[best][None], others, axis=-1, equal_var=False).pvalue)


def over_those_with_the_best(samples: Floats) -> Floats:
    return holm(uncorrected(samples))


CORRECTIONS = {
    "none": uncorrected,
    "Holm, k - 1 tests": over_those_with_the_best,
    "Holm, all pairs": over_all_pairs,
}


# The tables


def iqm_rows(draws: int) -> Rows:
    intervals = bootstraps(_iqm_of) | {"Student's t": iqm_interval}
    rows: Rows = [("seeds are drawn with", "tasks x seeds", *intervals)]
    for population in POPULATIONS:
        for size in SIZES:
            shares = [iqm_coverage(interval, population, *size, draws) for interval in intervals.values()]
            rows.append((population, "{} x {}".format(*size), *(f"{share:.3f}" for share in shares)))
    return rows


def improvement_rows(draws: int) -> Rows:
    intervals = bootstraps(_share_won) | {"Wilson": wilson}
    rows: Rows = [("true probability", "tasks x seeds", *intervals)]
    for apart in APART:
        for size in SIZES:
            shares = [improvement_coverage(interval, apart, *size, draws) for interval in intervals.values()]
            true = f"{stats.norm.cdf(apart / np.sqrt(2)):.2f}"
            rows.append((true, "{} x {}".format(*size), *(f"{share:.3f}" for share in shares)))
    return rows


def ranking_rows(draws: int) -> Rows:
    rows: Rows = [("methods x seeds", *CORRECTIONS)]
    for size in COMPARED:
        shares = [told_apart(correct, *size, draws) for correct in CORRECTIONS.values()]
        rows.append(("{} x {}".format(*size), *(f"{share:.3f}" for share in shares)))
    return rows


def power_rows(draws: int) -> Rows:
    rows: Rows = [("methods x seeds", *(f"{apart} above" for apart in ABOVE))]
    for size in COMPARED:
        rows.append(("{} x {}".format(*size), *(f"{seen(apart, *size, draws):.2f}" for apart in ABOVE)))
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def main(draws: int = 2000) -> None:
    for title, rows in (
        ("Coverage of 95 % intervals for the IQM over tasks", iqm_rows),
        ("Coverage of 95 % intervals for the probability of improvement", improvement_rows),
        ("Columns of equal methods in which one lacks its †", ranking_rows),
        ("Methods told apart from one that is so many standard deviations above them", power_rows),
    ):
        print(f"{title}, {draws:,} draws:\n\n{markdown(rows(draws))}\n", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
