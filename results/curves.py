"""Tidy frames of a run: one row a run, one row a point, one row a mean over seeds."""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.records import RANKED, Entry, Point, RunRecord, Versions
from results.states import States
from results.statistics import Floats, area_over_log, half_width, queries_to_reach, spread

TRACK = ["task", "answers", "inputs"]
SETTING = [*TRACK, "method"]
REPLICATE = ["teacher_seed", "seed"]  # which teacher a run met, and with which student
MEASURED = ["accuracy", "spread", "n", "low", "high", "agreement", "agreement_spread", "optimistic"]
MEASURED += ["queries", "distinct", "claimed", "optimistic_spread"]
MEASURED += ["agreement_low", "agreement_high", "optimistic_low", "optimistic_high"]
MEASURED += ["teachers", "runs", "teacher_spread", "seed_spread", "steps", "fitted", "commonest", "unlearnt"]
POINT = {"budget", "round", "spent", "distinct", "figures", "accuracy", "agreement"}  # what every point has
POINT |= {"steps", "fitted", "commonest"}
TOTALS = ["spent", "distinct", "rounds", "steps", "attempts", "charged", "seconds"]
MACHINE = ["device", "threads", "precision", "commit", "torch"]
# Numbers that are counted, never measured.
WHOLE = ["teacher_seed", "seed", "budget", "spent", "distinct", "rounds", "steps", "attempts", "charged", "threads"]
OF_RUN = [*SETTING, "kind", "data", "protocol", *REPLICATE]
OF_POINT = ["budget", "listed", "queries", "distinct", "claimed", "round", "accuracy", "agreement", "optimistic"]
OF_POINT += ["steps", "fitted", "commonest"]
COUNTED = [*REPLICATE, "budget", "queries", "distinct", "claimed", "round", "steps"]
MEASURES = ["accuracy", "agreement", "optimistic", "fitted", "commonest"]
LEARNT = 0.1  # of the way from the commonest answer to all answers, below which a student has not learnt them
TARGETS = (0.5, 0.75, 0.9)

Met = tuple[str, int]  # a task, and the seed of one of its teachers


def cells(run: Path, versions: Mapping[str, Versions] | None = None) -> pd.DataFrame:
    """`cells_of` the run in the folder. versions: kind -> those of the code that is asked about (results.states)."""
    with States(run, versions) as states:
        return cells_of(states)


def points(run: Path, versions: Mapping[str, Versions] | None = None) -> pd.DataFrame:
    """`points_of` the run in the folder. versions: as for `cells`."""
    with States(run, versions) as states:
        return points_of(states)


def cells_of(states: States) -> pd.DataFrame:
    """One row for each run that was planned: its setting, seed, budget, state, reason, and totals where it is done.

    spent, distinct: what the meter counted over the whole run, the last unfinished round included.
    """
    entries = states.record.entries
    found = [states.of(entry) for entry in entries]
    totals = [state.totals if state.name == "done" else None for state in found]
    machines = [of.machine if of else None for of in totals]
    named = [*SETTING, "kind", "data", "protocol", *REPLICATE, "budget"]
    columns: dict[str, Any] = {name: [getattr(entry, name) for entry in entries] for name in named}
    columns |= {name: [getattr(state, of) for state in found] for name, of in (("state", "name"), ("reason", "reason"))}
    columns["cell"] = [entry.cell for entry in entries]
    columns["config"] = pd.Categorical([entry.config for entry in entries])  # a few long texts, each in many rows
    for names, records in ((TOTALS, totals), (MACHINE, machines)):
        columns |= {name: [getattr(record, name, math.nan) for record in records] for name in names}
    columns["versions"] = [_told(of.versions) if of else math.nan for of in totals]
    return pd.DataFrame(columns).astype(dict.fromkeys(WHOLE, "Int64"))


def points_of(states: States) -> pd.DataFrame:
    """One row for each budget that a finished run answers for.

    budget: the budget that was asked about; `listed` where the grid names it for any seed, the others lie between.
    queries: what the student had cost at its last round within that budget. claimed: the images its
    method had made for it, which is what papers that count images and not questions report.
    optimistic: the best accuracy on test data at any point so far, which no one could have chosen; NaN for runs
    `per_budget`, which are measured once. steps: updates of the student. fitted: the share of the images asked about
    about on which it agrees with the teacher. commonest: the share of the commonest answer among them. learnt: whether
    the student came LEARNT of the way from the one to all. Whatever else a point has is carried over, such as
    `accuracy_ensemble`: a part that a method shows apart. An `anytime` run that is not done may have been run to a
    narrower budget, whose points are its own. unit: see `with_units`.
    """
    numbers, runs, cells, rows = _Numbers(OF_POINT), [], [], []
    for entry in states.record.entries:
        if cell := states.answering(entry):
            before = len(numbers)
            for row in _points(states.points(cell), entry):
                numbers.add(row)
            runs.append(entry)
            cells.append(cell)
            rows.append(len(numbers) - before)
    shared = pd.DataFrame({name: [getattr(entry, name) for entry in runs] for name in OF_RUN} | {"cell": cells})
    frame = shared.take(np.repeat(np.arange(len(runs)), rows)).reset_index(drop=True)
    frame = frame.assign(**numbers.columns())
    frame = frame.astype(dict.fromkeys(COUNTED, "Int64") | dict.fromkeys(MEASURES, float) | {"listed": bool})
    beyond = frame["fitted"] - frame["commonest"]
    frame["learnt"] = ~(beyond < LEARNT * (1 - frame["commonest"])) & ~(frame["commonest"] == 1)
    frame["listed"] = frame.groupby([*SETTING, "protocol", "budget"])["listed"].transform("any")
    return with_units(frame)


def with_units(points: pd.DataFrame) -> pd.DataFrame:
    """All points of a run, each with the `unit` that is drawn independently of the others.

    Where a task has several teachers a unit is a teacher, for what differs between teachers all their seeds share; else
    it is a seed. It is a teacher for a method too that has met but one of them so far.
    """
    several = points.groupby("task")["teacher_seed"].transform("nunique") > 1
    return points.assign(unit=points["teacher_seed"].where(several, points["seed"]))


def apart(frame: pd.DataFrame) -> list[str]:
    """The columns of parts that a method shows apart, `accuracy_NAME` and `agreement_NAME`, of points or a summary."""
    ours = {*MEASURED, *SETTING}
    return [name for name in map(str, frame) if name.startswith(("accuracy_", "agreement_")) and name not in ours]


def by_unit(points: pd.DataFrame, key: list[str], columns: list[str]) -> pd.DataFrame:
    """One row for each unit (`with_units`) within each key, means over its runs; index: key, unit."""
    return points.groupby([*key, "unit"], sort=False)[columns].mean()


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """Mean, spread and n over units (`by_unit`) for each setting and budget, with a 95 % interval where n is 3 or more.

    listed: whether the grid names the budget. queries, distinct, claimed, steps: means, to the nearest whole number.
    teachers, runs: how many. seed_spread: the standard deviation between the seeds of one teacher. teacher_spread: that
    between teachers with endless seeds. unlearnt: how many runs did not learn their labels. Of parts shown apart there
    is the mean alone.
    """
    key = [*SETTING, "protocol", "budget"]
    groups = points.groupby(key, sort=False)
    parts, costs = apart(points), ["queries", "distinct", "claimed", "steps"]
    units = by_unit(points, key, [*MEASURES, *costs, *parts]).groupby(key, sort=False)
    table = units.mean()
    table[costs] = table[costs].round().astype("Int64")
    table["n"], table["runs"] = units.size().astype("Int64"), groups.size().astype("Int64")
    table["teachers"], table["listed"] = groups["teacher_seed"].nunique().astype("Int64"), groups["listed"].any()
    table["unlearnt"] = table["runs"] - groups["learnt"].sum()
    for measure, prefix in (("accuracy", ""), ("agreement", "agreement_"), ("optimistic", "optimistic_")):
        table[f"{prefix}spread"] = units[measure].std()
        half = half_width(table[f"{prefix}spread"], table["n"])
        table[f"{prefix}low"], table[f"{prefix}high"] = table[measure] - half, table[measure] + half
    within = points.groupby([*key, "teacher_seed"], sort=False)["accuracy"].var().groupby(key, sort=False).mean()
    between = table["spread"] ** 2 - within * table["teachers"] / table["runs"]
    table["seed_spread"] = within**0.5
    table["teacher_spread"] = (between.clip(lower=0) ** 0.5).where(table["teachers"] > 1)
    return table.reset_index()[[*key, "listed", *MEASURED, *parts]]


def efficiency(points: pd.DataFrame, teachers: Mapping[Met, float], roles: Mapping[str, str]) -> pd.DataFrame:
    """For each setting: the area under accuracy over log queries, and the queries needed to reach a share of the
    teacher's accuracy, at the listed budgets.

    teachers: the test accuracy of each. Every pair of teacher and seed is a curve; the figures are means over the n
    curves, with how many of them reached each target. area_spread: over units (`by_unit`). area_over: the range of
    budgets, the same for all of a track: those that every ranked method has with all its runs; or why there is no area.
    """
    rows = []
    for key, track in points[points["listed"]].groupby(TRACK, sort=False):
        common = _common_budgets(track, roles)
        for label, group in track.groupby("method", sort=False):
            setting = dict(zip(SETTING, (*key, label), strict=True))
            rows.append(setting | _area(group, common) | _needed(group, str(key[0]), teachers))
    frame = pd.DataFrame(rows, columns=None if rows else SETTING)
    return frame.astype(dict.fromkeys((name for name in frame if name == "n" or "queries" in str(name)), "Int64"))


def teacher_accuracies(record: RunRecord) -> dict[Met, float]:
    """The test accuracy of each teacher of which it is known."""
    teachers = ((task, seed, found) for task, by_seed in record.teachers.items() for seed, found in by_seed.items())
    known = ((task, seed, teacher.test_accuracy) for task, seed, teacher in teachers if teacher)
    return {(task, seed): accuracy for task, seed, accuracy in known if accuracy is not None}


def _told(versions: Versions) -> str:
    return ", ".join(f"{part} {number}" for part, number in versions.items())


class _Numbers:
    """Columns of numbers, of those names and of what else a row has, that grow row by row; NaN where a row has none."""

    def __init__(self, names: Iterable[str]) -> None:
        self._columns = {name: array("d") for name in names}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, row: Mapping[str, float | None]) -> None:
        for name, value in row.items():
            if name not in self._columns:
                self._columns[name] = array("d")
            column = self._columns[name]
            column.extend([math.nan] * (self._rows - len(column)))
            column.append(math.nan if value is None else value)
        self._rows += 1

    def columns(self) -> dict[str, NDArray[np.float64]]:
        for column in self._columns.values():
            column.extend([math.nan] * (self._rows - len(column)))
        return {name: np.asarray(column) for name, column in self._columns.items()}


def _points(curve: list[Point], entry: Entry) -> Iterator[dict[str, float | None]]:
    best, anytime = 0.0, entry.protocol == "anytime"
    for point in curve:
        accuracy = point.get("accuracy")  # None where nobody knows the labels of the test images
        best = max(best, accuracy or 0.0)
        if not anytime and point["budget"] not in entry.budgets:
            continue  # a point on the way stands for no run of its own
        more: dict[str, Any] = {key: value for key, value in point.items() if key not in POINT}
        yield {
            "budget": point["budget"],
            "listed": point["budget"] in entry.budgets,
            "queries": point["spent"],
            "distinct": point["distinct"],
            "claimed": int((point["figures"] or {}).get("pool", point["spent"])),
            "round": point["round"],
            "accuracy": accuracy,
            "agreement": point.get("agreement"),
            "optimistic": best if anytime and accuracy is not None else None,
            "steps": point.get("steps"),
            "fitted": point.get("fitted"),
            "commonest": point.get("commonest"),
            **more,
        }


def _common_budgets(track: pd.DataFrame, roles: Mapping[str, str]) -> list[int]:
    """The budgets that every ranked method has with all its seeds; every method, if none is ranked."""
    ranked = track[track["method"].map(roles) == RANKED]
    methods = (ranked if len(ranked) else track).groupby("method")
    return sorted(set.intersection(*(_whole(group) for _, group in methods)))


def _whole(group: pd.DataFrame) -> set[int]:
    """The budgets at which no run of the method is lacking that it has at another."""
    runs = group.groupby("budget").size()
    return set(map(int, runs.index[runs == group.groupby(REPLICATE).ngroups]))


def _area(group: pd.DataFrame, budgets: list[int]) -> dict[str, Any]:
    """Of one method, over those budgets."""
    n = group.groupby(REPLICATE).ngroups
    nothing = {"area": float("nan"), "area_spread": float("nan"), "n": n}
    if len(budgets) < 2:
        return nothing | {"area_over": "nothing: fewer than two budgets that all ranked methods have with all seeds"}
    over = f"{budgets[0]:,} to {budgets[-1]:,}"
    if not _whole(group).issuperset(budgets):
        return nothing | {"area_over": f"nothing: lacks a part of {over}"}
    curves = _curves(group[group["budget"].isin(budgets)])
    areas = pd.Series([area_over_log(queries, accuracy) for _, queries, accuracy in curves])
    of_teachers = areas.groupby([teacher for teacher, *_ in curves]).mean()
    units = of_teachers if len(of_teachers) > 1 else areas
    return {"area": units.mean(), "area_spread": spread(units), "n": n, "area_over": over}


def _needed(group: pd.DataFrame, task: str, teachers: Mapping[Met, float]) -> dict[str, Any]:
    """The queries that one method needed for each target, where all runs reached it, and how many did."""
    needed: dict[str, Any] = {}
    curves = [(teachers.get((task, met), math.nan), queries, found) for met, queries, found in _curves(group)]
    for share in TARGETS:
        each = [queries_to_reach(share * teacher, queries, accuracy) for teacher, queries, accuracy in curves]
        reached = [queries for queries in each if not math.isnan(queries)]
        all_reached = len(reached) == len(each)
        name = f"queries_to_{100 * share:.0f}"
        needed[name] = round(sum(reached) / len(reached)) if all_reached else pd.NA
        needed[f"{name}_runs"] = len(reached)
    return needed


def _curves(group: pd.DataFrame) -> list[tuple[int, Floats, Floats]]:
    """The seed of the teacher that each run met, its budgets, and its accuracies at those."""
    ordered = group.sort_values([*REPLICATE, "budget"])
    teacher, seed, budget = (ordered[name].to_numpy(dtype=int) for name in (*REPLICATE, "budget"))
    others = np.flatnonzero((np.diff(teacher) != 0) | (np.diff(seed) != 0)) + 1  # where the next run begins
    parts = (np.split(values, others) for values in (budget.astype(float), ordered["accuracy"].to_numpy(dtype=float)))
    return list(zip(teacher[[0, *others]].tolist(), *parts, strict=True))
