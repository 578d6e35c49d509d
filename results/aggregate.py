"""Over tasks: what methods reach of their teachers' accuracy, and how often one is above another.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from results.report.style import RANKED, REFERENCE
from results.statistics import Floats, improvement_interval, iqm, iqm_interval, probability_of_improvement

ALL = "all data sets"
SCOPE = ["answers", "inputs", "over", "budget"]
SHARES = [*SCOPE, "method", "role", "iqm", "low", "high", "tasks", "n", "left_out"]
IMPROVEMENTS = [*SCOPE, "method", "other", "probability", "low", "high", "tasks"]


@dataclass(frozen=True)
class Comparison:
    """Methods at one budget over the tasks that all the ranked ones have.

    scope: answers, inputs, data set or ALL, budget. strata: label -> task by task, accuracy / the teacher's, one
    value a seed. left_out: the tasks, or the methods in no ranking, that others could not be compared on.
    """

    scope: tuple[Any, ...]
    strata: dict[str, list[Floats]]
    tasks: int
    left_out: str


def comparisons(
    points: pd.DataFrame, teachers: dict[str, float], datasets: dict[str, str], roles: dict[str, str]
) -> Iterator[Comparison]:
    """One for each track, data set (and all together, if there are several) and listed budget.

    datasets: task -> its data set; a task that is not there counts for itself.
    """
    listed = points[points["listed"]]
    listed = listed.assign(share=listed["accuracy"] / listed["task"].map(teachers))
    listed = listed.assign(over=listed["task"].map(lambda task: datasets.get(task, task)))
    if listed["over"].nunique() > 1:
        listed = pd.concat([listed.assign(over=ALL), listed])
    for scope, group in listed.groupby(SCOPE, sort=False):
        cells = group.groupby(["method", "task"], sort=False)["share"]
        seeds: dict[Any, Floats] = {key: rows.to_numpy() for key, rows in cells}
        yield _compare(scope, seeds, roles)


def shares(compared: list[Comparison], roles: dict[str, str], generator: np.random.Generator) -> pd.DataFrame:
    """IQM over tasks and seeds of accuracy / teacher accuracy, with a 95 % interval for 3 seeds a task or more."""
    rows = []
    for comparison in compared:
        for label, strata in comparison.strata.items():
            enough = min(map(len, strata)) >= 3
            low, high = iqm_interval(strata, generator) if enough else (float("nan"), float("nan"))
            values = np.concatenate(strata)
            figures = (label, roles[label], float(iqm(values)), low, high, comparison.tasks, len(values))
            rows.append((*comparison.scope, *figures, comparison.left_out))
    return pd.DataFrame(rows, columns=SHARES)


def improvements(compared: list[Comparison], roles: dict[str, str], generator: np.random.Generator) -> pd.DataFrame:
    """Probability that the first of two methods is above the other: each pair with a ranked one, no references."""
    rows = []
    for comparison in compared:
        labels = [label for label in comparison.strata if roles[label] != REFERENCE]
        labels.sort(key=lambda label: roles[label] != RANKED)
        for label, other in combinations(labels, 2):
            if roles[label] != RANKED:
                continue
            pair = comparison.strata[label], comparison.strata[other]
            enough = min(map(len, [*pair[0], *pair[1]])) >= 3
            low, high = improvement_interval(*pair, generator) if enough else (float("nan"), float("nan"))
            figures = (label, other, float(probability_of_improvement(*pair)), low, high, comparison.tasks)
            rows.append((*comparison.scope, *figures))
    return pd.DataFrame(rows, columns=IMPROVEMENTS)


def _compare(scope: tuple[Any, ...], seeds: dict[Any, Floats], roles: dict[str, str]) -> Comparison:
    labels, tasks = (list(dict.fromkeys(key[axis] for key in seeds)) for axis in (0, 1))
    leading = [label for label in labels if roles[label] == RANKED] or labels
    common = [task for task in tasks if all((label, task) in seeds for label in leading)]
    full = [label for label in labels if all((label, task) in seeds for task in common)] if common else []
    lacks = [
        f"{task} ({', '.join(x for x in leading if (x, task) not in seeds)})" for task in tasks if task not in common
    ]
    lacks += [label for label in labels if common and label not in full]
    strata = {label: [seeds[label, task] for task in common] for label in full}
    return Comparison(scope, strata, len(common), "; ".join(lacks))
