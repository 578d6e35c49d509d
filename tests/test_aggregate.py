"""Comparisons over tasks: only over what all methods have, tracks apart, and what is missing is said."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results import aggregate
from results.report.style import CONTROL, RANKED, REFERENCE

TEACHERS = {"a": 1.0, "b": 0.8, "c": 0.5}
DATASETS = {"a": "digits", "b": "digits", "c": "mnist"}
ROLES = {"X": RANKED, "Y": RANKED, "noise": CONTROL, "real": REFERENCE}


def points(*cells: tuple[str, str, list[float]], **changes: Any) -> pd.DataFrame:
    """One point for each accuracy, of (task, method, accuracies over seeds)."""
    plain = {"answers": "labels", "inputs": "float", "budget": 100, "listed": True}
    rows = [
        {**plain, "task": task, "method": method, "seed": seed, "accuracy": value, **changes}
        for task, method, values in cells
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def compare(frame: pd.DataFrame) -> list[aggregate.Comparison]:
    return list(aggregate.comparisons(frame, TEACHERS, DATASETS, ROLES))


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    return aggregate.shares(compare(frame), ROLES, np.random.default_rng(0))


def test_a_share_is_of_the_teacher_of_its_own_task() -> None:
    (row,) = shares(points(("a", "X", [0.5, 0.5, 0.5]), ("b", "X", [0.4, 0.4, 0.4]))).to_dict("records")
    assert (row["iqm"], row["low"], row["high"]) == pytest.approx((0.5, 0.5, 0.5))
    assert (row["over"], row["tasks"], row["n"], row["left_out"]) == ("digits", 2, 6, "")


def test_fewer_than_three_seeds_of_any_task_make_no_interval() -> None:
    (row,) = shares(points(("a", "X", [0.5, 0.6, 0.7]), ("b", "X", [0.4, 0.4]))).to_dict("records")
    assert math.isnan(row["low"])
    assert row["iqm"] == pytest.approx(1.6 / 3)  # of 0.5 0.5 0.5 0.6 0.7, the ends cut


def test_a_task_that_a_ranked_method_lacks_is_left_out_for_all_and_said() -> None:
    table = shares(points(("a", "X", [0.5]), ("b", "X", [0.1]), ("a", "Y", [0.6])))
    assert table["method"].tolist() == ["X", "Y"]
    assert table["iqm"].tolist() == [0.5, 0.6]
    assert set(table["left_out"]) == {"b (Y)"}


def test_a_control_or_reference_that_lacks_a_task_is_left_out_itself() -> None:
    table = shares(points(("a", "X", [0.5]), ("b", "X", [0.4]), ("a", "real", [0.9]), ("b", "noise", [0.1])))
    assert table["method"].tolist() == ["X"]
    assert set(table["left_out"]) == {"real; noise"}


def test_several_data_sets_are_compared_together_and_each_alone() -> None:
    table = shares(points(("a", "X", [0.5]), ("c", "X", [0.1])))
    assert table["over"].tolist() == [aggregate.ALL, "digits", "mnist"]
    assert table["iqm"].tolist() == pytest.approx([0.35, 0.5, 0.2])


def test_methods_without_a_common_task_are_not_compared() -> None:
    table = shares(points(("a", "X", [0.5]), ("c", "Y", [0.1])))
    assert table["over"].tolist() == ["digits", "mnist"]


def test_tracks_and_budgets_are_never_mixed_and_unlisted_budgets_not_compared() -> None:
    one = points(("a", "X", [0.5]))
    others = [
        points(("a", "X", [0.1]), **change) for change in ({"answers": "probs"}, {"inputs": "uint8"}, {"budget": 9})
    ]
    table = shares(pd.concat([one, *others, points(("a", "X", [0.9]), budget=7, listed=False)]))
    assert sorted(table["iqm"]) == [0.1, 0.1, 0.1, 0.5]


def test_each_pair_with_a_ranked_method_is_compared_once_and_references_never() -> None:
    frame = points(("a", "X", [2, 3]), ("a", "noise", [1, 2]), ("a", "Y", [0, 0]), ("a", "real", [9]))
    table = aggregate.improvements(compare(frame), ROLES, np.random.default_rng(0))
    assert table[["method", "other"]].to_numpy().tolist() == [["X", "Y"], ["X", "noise"], ["Y", "noise"]]
    assert table["probability"].tolist() == [1, 3.5 / 4, 0]
    assert table["low"].isna().all()
