"""Over tasks: what methods reach between chance and their teachers, and how often one is above another.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from results.curves import Met, by_unit
from results.records import RANKED, REFERENCE, TaskParts
from results.statistics import Floats, improvement_interval, iqm_interval, iqm_of_tasks, probability_of_improvement

ALL = "all data sets"
SCOPE = ["answers", "inputs", "over", "budget"]
SCORES = [*SCOPE, "method", "role", "iqm", "low", "high", "tasks", "n", "left_out"]
IMPROVEMENTS = [*SCOPE, "method", "other", "probability", "low", "high", "tasks"]
WHOLE = ["budget", "tasks", "n"]  # columns of whole numbers


@dataclass(frozen=True)
class Comparison:
    """Methods at one budget over the tasks that all the ranked ones have.

    scope: answers, inputs, data set or ALL, budget. strata: label -> task by task, scores, one value a unit: a seed, or
    a teacher where the task has several (curves.by_unit).
    left_out: the tasks, or the methods in no ranking, that others could not be compared on.
    """

    scope: tuple[Any, ...]
    strata: dict[str, list[Floats]]
    tasks: int
    left_out: str


def comparisons(
    points: pd.DataFrame, teachers: Mapping[Met, float], tasks: Mapping[str, TaskParts], roles: Mapping[str, str]
) -> Iterator[Comparison]:
    """One for each track, data set (and all together, if there are several) and listed budget.

    teachers: the test accuracy of each. tasks: what is known of each task in the points.
    """
    listed = points[points["listed"]]
    listed = listed.assign(score=_score(listed, teachers, tasks))
    listed = listed.assign(over=listed["task"].map(lambda task: tasks[task].dataset))
    if listed["over"].nunique() > 1:
        listed = pd.concat([listed.assign(over=ALL), listed])
    for scope, group in listed.groupby(SCOPE, sort=False):
        units = by_unit(group, ["method", "task"], ["score"]).groupby(["method", "task"], sort=False)["score"]
        yield _compare(scope, {key: rows.to_numpy(dtype=float) for key, rows in units}, roles)


def scores(compared: list[Comparison], roles: Mapping[str, str]) -> pd.DataFrame:
    """IQM over tasks of the mean score, with a 95 % interval for 3 units a task or more. n: of all units."""
    rows = []
    for comparison in compared:
        for label, strata in comparison.strata.items():
            low, high = iqm_interval(strata)
            figures = (label, roles[label], iqm_of_tasks(strata), low, high)
            rows.append((*comparison.scope, *figures, comparison.tasks, sum(map(len, strata)), comparison.left_out))
    return pd.DataFrame(rows, columns=SCORES).astype(dict.fromkeys(WHOLE, "Int64"))


def improvements(compared: list[Comparison], roles: Mapping[str, str]) -> pd.DataFrame:
    """Probability that the first of two methods is above the other: each pair with a ranked one, no references."""
    rows = []
    for comparison in compared:
        labels = [label for label in comparison.strata if roles[label] != REFERENCE]
        labels.sort(key=lambda label: roles[label] != RANKED)
        for label, other in combinations(labels, 2):
            if roles[label] != RANKED:
                continue
            pair = comparison.strata[label], comparison.strata[other]
            figures = (label, other, probability_of_improvement(*pair), *improvement_interval(*pair))
            rows.append((*comparison.scope, *figures, comparison.tasks))
    return pd.DataFrame(rows, columns=IMPROVEMENTS).astype({"budget": "Int64", "tasks": "Int64"})


def _score(points: pd.DataFrame, teachers: Mapping[Met, float], tasks: Mapping[str, TaskParts]) -> "pd.Series[Any]":
    """Where an accuracy stands between chance, 0, and the teacher, 1; NaN where no teacher is above chance."""
    chance = points["task"].map(lambda task: 1 / tasks[task].classes).astype(float)
    met = pd.Series(list(zip(points["task"], points["teacher_seed"], strict=True)), points.index, dtype=object)
    above = met.map(teachers).astype(float) - chance
    return (points["accuracy"] - chance) / above.where(above > 0)


def _compare(scope: tuple[Any, ...], units: dict[Any, Floats], roles: Mapping[str, str]) -> Comparison:
    labels, tasks = (list(dict.fromkeys(key[axis] for key in units)) for axis in (0, 1))
    leading = [label for label in labels if roles[label] == RANKED] or labels
    lacks = {task: [label for label in leading if (label, task) not in units] for task in tasks}
    for (_, task), values in units.items():
        if np.isnan(values).any():
            lacks[task] = ["no teacher above chance"]
    common = [task for task in tasks if not lacks[task]]
    full = [label for label in labels if all((label, task) in units for task in common)] if common else []
    left_out = [f"{task} ({', '.join(lacks[task])})" for task in tasks if lacks[task]]
    left_out += [label for label in labels if common and label not in full]
    strata = {label: [units[label, task] for task in common] for label in full}
    return Comparison(scope, strata, len(common), "; ".join(left_out))
