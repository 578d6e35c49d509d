"""Comparisons over tasks: only over what all methods have, tracks apart, and what is missing is said."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from results import aggregate
from results.curves import with_units
from results.records import CONTROL, RANKED, REFERENCE, TaskParts

TEACHERS = {("a", 0): 0.9, ("b", 0): 0.7, ("c", 0): 0.6}
TASKS = {
    "a": TaskParts("digits", "net", "net", classes=10, scaling=(0.5, 0.25)),
    "b": TaskParts("digits", "net", "net", classes=5, scaling=(0.5, 0.25)),
    "c": TaskParts("cars", "net", "net", classes=200, scaling=(0.5, 0.25)),
}
ROLES = {"X": RANKED, "Y": RANKED, "noise": CONTROL, "real": REFERENCE}


def points(*cells: tuple[str, str, list[float]], **changes: Any) -> pd.DataFrame:
    """One point for each accuracy, of (task, method, accuracies over seeds)."""
    plain = {"answers": "labels", "inputs": "float", "budget": 100, "listed": True}
    rows = [
        {**plain, "task": task, "method": method, "teacher_seed": 0, "seed": seed, "accuracy": value, **changes}
        for task, method, values in cells
        for seed, value in enumerate(values)
    ]
    return with_units(pd.DataFrame(rows))


def compare(frame: pd.DataFrame, **changes: Any) -> list[aggregate.Comparison]:
    return list(aggregate.comparisons(frame, **{"teachers": TEACHERS, "tasks": TASKS, "roles": ROLES, **changes}))


def scores(frame: pd.DataFrame, **changes: Any) -> pd.DataFrame:
    return aggregate.scores(compare(frame, **changes), ROLES)


def test_a_score_is_nothing_at_chance_and_one_at_the_teacher_of_its_own_task() -> None:
    for task, chance in (("a", 0.1), ("b", 0.2), ("c", 0.005)):
        for accuracy, score in ((chance, 0.0), (TEACHERS[task, 0], 1.0), ((chance + TEACHERS[task, 0]) / 2, 0.5)):
            (row,) = scores(points((task, "X", [accuracy] * 3))).to_dict("records")
            assert (row["iqm"], row["low"], row["high"]) == pytest.approx((score, score, score))


def test_tasks_of_many_classes_and_few_are_averaged_on_one_scale() -> None:
    (row,) = scores(points(("a", "X", [0.5] * 3), ("b", "X", [0.2] * 3))).to_dict("records")
    assert row["iqm"] == pytest.approx((0.5 + 0) / 2)
    assert (row["over"], row["tasks"], row["n"], row["left_out"]) == ("digits", 2, 6, "")


def test_fewer_than_three_seeds_of_any_task_make_no_interval() -> None:
    (row,) = scores(points(("a", "X", [0.5, 0.6, 0.7]), ("b", "X", [0.45, 0.45]))).to_dict("records")
    assert math.isnan(row["low"])
    assert row["iqm"] == pytest.approx((0.5 / 0.8 + 0.5) / 2)


@pytest.mark.parametrize("teachers", [{**TEACHERS, ("b", 0): 0.2}, {("a", 0): 0.9}])
def test_a_task_whose_teacher_is_not_above_chance_or_not_known_is_left_out_and_said(teachers: dict[str, float]) -> None:
    table = scores(points(("a", "X", [0.5]), ("b", "X", [0.3])), teachers=teachers)
    assert table["iqm"].tolist() == [0.5]
    assert table["left_out"].tolist() == ["b (no teacher above chance)"]


def test_a_task_that_a_ranked_method_lacks_is_left_out_for_all_and_said() -> None:
    table = scores(points(("a", "X", [0.5]), ("b", "X", [0.1]), ("a", "Y", [0.58])))
    assert table["method"].tolist() == ["X", "Y"]
    assert table["iqm"].tolist() == pytest.approx([0.5, 0.6])
    assert set(table["left_out"]) == {"b (Y)"}


def test_a_control_or_reference_that_lacks_a_task_is_left_out_itself() -> None:
    table = scores(points(("a", "X", [0.5]), ("b", "X", [0.4]), ("a", "real", [0.9]), ("b", "noise", [0.1])))
    assert table["method"].tolist() == ["X"]
    assert set(table["left_out"]) == {"real; noise"}


def test_several_data_sets_are_compared_together_and_each_alone() -> None:
    tasks = {**TASKS, "c": replace(TASKS["c"], classes=5, scaling=(0.5, 0.25))}
    table = scores(points(("a", "X", [0.5]), ("c", "X", [0.3])), tasks=tasks)
    assert table["over"].tolist() == [aggregate.ALL, "digits", "cars"]
    assert table["iqm"].tolist() == pytest.approx([0.375, 0.5, 0.25])


def test_methods_without_a_common_task_are_not_compared() -> None:
    table = scores(points(("a", "X", [0.5]), ("c", "Y", [0.1])))
    assert table["over"].tolist() == ["digits", "cars"]


def test_tracks_and_budgets_are_never_mixed_and_unlisted_budgets_not_compared() -> None:
    one = points(("a", "X", [0.5]))
    others = [
        points(("a", "X", [0.1]), **change) for change in ({"answers": "probs"}, {"inputs": "uint8"}, {"budget": 9})
    ]
    table = scores(pd.concat([one, *others, points(("a", "X", [0.9]), budget=7, listed=False)]))
    assert sorted(table["iqm"]) == pytest.approx([0, 0, 0, 0.5])


def test_each_pair_with_a_ranked_method_is_compared_once_and_references_never() -> None:
    frame = points(("a", "X", [2, 3]), ("a", "noise", [1, 2]), ("a", "Y", [0, 0]), ("a", "real", [9]))
    table = aggregate.improvements(compare(frame), ROLES)
    assert table[["method", "other"]].to_numpy().tolist() == [["X", "Y"], ["X", "noise"], ["Y", "noise"]]
    assert table["probability"].tolist() == [1, 3.5 / 4, 0]
    assert table["low"].isna().all()
