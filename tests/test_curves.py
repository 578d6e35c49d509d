"""The frames of a run: every planned run is a row, every point is what the files say, every mean says its n."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from results import curves
from results.store import write_json

TEACHER = 0.9


def entry(cell: str | None, **changes: Any) -> dict[str, Any]:
    """A planned run as bench/execute.py writes it."""
    plain = {
        "task": "digits-lenet",
        "answers": "labels",
        "inputs": "float",
        "method": "ideal",
        "kind": "ideal",
        "data": "none",
        "protocol": "anytime",
        "seed": 0,
        "budget": 400,
        "budgets": [100, 400],
        "config": "{}",
        "cell": cell,
        "reason": None,
    }
    return {**plain, **changes}


def point(budget: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    """A point of a curve as bench/run.py writes it."""
    plain = {
        "budget": budget,
        "round": budget // 50,
        "spent": budget - budget % 50,
        "distinct": budget // 2,
        "figures": {"loss": 0.5},
        "accuracy": accuracy,
        "agreement": accuracy / 2,
    }
    return {**plain, **changes}


def write_run(root: Path, *entries: dict[str, Any]) -> Path:
    teachers = {"digits-lenet": {"hash": "0" * 16, "validation_accuracy": 0.5, "test_accuracy": TEACHER}}
    write_json(root / "digits" / "run.json", {"grid": "digits", "teachers": teachers, "entries": list(entries)})
    return root / "digits"


def finish(root: Path, cell: str, *points: dict[str, Any]) -> None:
    write_json(root / "cells" / cell / "curve.json", list(points))
    totals = {"spent": 400, "distinct": 390, "rounds": 8, "seconds": 1.5, "code": "abc"}
    write_json(root / "cells" / cell / "done.json", totals)


def run_of_seeds(root: Path, *accuracies: float) -> Path:
    """A finished run of one point at 100 queries, one cell a seed."""
    for seed, accuracy in enumerate(accuracies):
        finish(root, f"s{seed}", point(100, accuracy))
    return write_run(root, *(entry(f"s{seed}", seed=seed, budgets=[100]) for seed in range(len(accuracies))))


def test_every_planned_run_is_a_row_with_its_state_and_the_reason_of_those_without_a_result(tmp_path: Path) -> None:
    finish(tmp_path, "good", point(400, 0.5))
    write_json(tmp_path / "cells" / "bad" / "failed.json", {"reason": "out of memory", "traceback": "..."})
    (tmp_path / "cells" / "half").mkdir()
    (tmp_path / "cells" / "half" / "checkpoint.pt").write_bytes(b"state")
    planned = [entry("good"), entry("bad", seed=1), entry("half", seed=2), entry("never", seed=3)]
    run = write_run(tmp_path, *planned, entry(None, seed=4, reason="no GPU here"))
    cells = curves.cells(run)
    assert cells["state"].tolist() == ["done", "failed", "started", "to do", "cannot run"]
    assert cells["reason"].fillna("").tolist() == ["", "out of memory", "", "", "no GPU here"]
    assert cells["seed"].tolist() == [0, 1, 2, 3, 4]


def test_a_run_whose_teacher_was_never_trained_is_to_do(tmp_path: Path) -> None:
    assert curves.cells(write_run(tmp_path, entry(None)))["state"].tolist() == ["to do"]


def test_the_totals_of_a_finished_cell_are_those_of_the_meter(tmp_path: Path) -> None:
    finish(tmp_path, "good", point(400, 0.5))
    row = curves.cells(write_run(tmp_path, entry("good"))).iloc[0]
    assert (row["spent"], row["distinct"], row["rounds"], row["seconds"], row["code"]) == (400, 390, 8, 1.5, "abc")


def test_cells_that_are_not_done_have_no_points_even_if_they_have_a_curve(tmp_path: Path) -> None:
    write_json(tmp_path / "cells" / "half" / "curve.json", [point(100, 0.3)])
    write_json(tmp_path / "cells" / "bad" / "curve.json", [point(100, 0.3)])
    write_json(tmp_path / "cells" / "bad" / "failed.json", {"reason": "killed", "traceback": None})
    points = curves.points(write_run(tmp_path, entry("half"), entry("bad", seed=1)))
    assert points.empty
    assert "accuracy" in points.columns


def test_a_point_says_what_the_student_had_cost_and_whether_the_grid_lists_its_budget(tmp_path: Path) -> None:
    finish(tmp_path, "good", point(100, 0.3), point(120, 0.4), point(400, 0.6))
    points = curves.points(write_run(tmp_path, entry("good")))
    assert points["budget"].tolist() == [100, 120, 400]
    assert points["queries"].tolist() == [100, 100, 400]
    assert points["distinct"].tolist() == [50, 60, 200]
    assert points["listed"].tolist() == [True, False, True]
    assert points["agreement"].tolist() == pytest.approx([0.15, 0.2, 0.3])


def test_optimistic_is_the_running_maximum_of_each_cell_by_itself(tmp_path: Path) -> None:
    finish(tmp_path, "a", *(point(n, accuracy) for n, accuracy in ((100, 0.5), (120, 0.3), (150, 0.6), (400, 0.4))))
    finish(tmp_path, "b", point(100, 0.2), point(400, 0.1))
    points = curves.points(write_run(tmp_path, entry("a"), entry("b", seed=1)))
    assert points["optimistic"].tolist() == [0.5, 0.5, 0.6, 0.6, 0.2, 0.2]
    assert points["accuracy"].tolist() == [0.5, 0.3, 0.6, 0.4, 0.2, 0.1]


def test_claimed_is_the_pool_of_methods_that_have_one_and_the_queries_of_the_others(tmp_path: Path) -> None:
    finish(tmp_path, "a", point(400, 0.5, spent=390, figures={"pool": 60.0, "loss": 1.0}))
    finish(tmp_path, "b", point(400, 0.5, spent=390))
    finish(tmp_path, "c", point(400, 0.5, spent=390, figures=None))
    planned = [entry(name, seed=seed) for seed, name in enumerate("abc")]
    assert curves.points(write_run(tmp_path, *planned))["claimed"].tolist() == [60, 390, 390]


def test_the_summary_is_the_mean_and_the_spread_over_seeds_with_their_number(tmp_path: Path) -> None:
    row = curves.summary(curves.points(run_of_seeds(tmp_path, 0.1, 0.2, 0.3))).iloc[0]
    assert row["n"] == 3
    assert row["accuracy"] == pytest.approx(0.2)
    assert row["spread"] == pytest.approx(0.1)
    assert row["agreement"] == pytest.approx(0.1)
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert (row["low"], row["high"]) == pytest.approx((0.2 - half, 0.2 + half))


@pytest.mark.parametrize("accuracies", [(0.5,), (0.5, 0.6)])
def test_fewer_than_three_seeds_have_no_interval(tmp_path: Path, accuracies: tuple[float, ...]) -> None:
    row = curves.summary(curves.points(run_of_seeds(tmp_path, *accuracies))).iloc[0]
    assert row["n"] == len(accuracies)
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert math.isnan(row["spread"]) == (len(accuracies) == 1)


@pytest.mark.parametrize("setting", ["task", "answers", "inputs", "method", "protocol"])
def test_what_differs_in_its_setting_is_never_averaged(tmp_path: Path, setting: str) -> None:
    finish(tmp_path, "a", point(400, 0.2))
    finish(tmp_path, "b", point(400, 0.8))
    summary = curves.summary(curves.points(write_run(tmp_path, entry("a"), entry("b", **{setting: "other"}))))
    assert summary["accuracy"].tolist() == [0.2, 0.8]
    assert summary["n"].tolist() == [1, 1]


def test_seeds_that_failed_lower_n_and_do_not_count_as_zero(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.4), (1, 0.6)):
        finish(tmp_path, f"s{seed}", point(400, accuracy))
    write_json(tmp_path / "cells" / "s2" / "failed.json", {"reason": "killed", "traceback": None})
    run = write_run(tmp_path, *(entry(f"s{seed}", seed=seed) for seed in range(3)))
    row = curves.summary(curves.points(run)).iloc[0]
    assert (row["n"], row["accuracy"]) == (2, pytest.approx(0.5))


def test_two_runs_of_one_seed_are_not_two_seeds(tmp_path: Path) -> None:
    """A grid that asks `per_budget` of an anytime method: the longer run passes the shorter one's budget on its way."""
    finish(tmp_path, "short", point(100, 0.3))
    finish(tmp_path, "long", point(100, 0.3), point(400, 0.6))
    alone = {"protocol": "per_budget"}
    run = write_run(
        tmp_path,
        entry("short", budget=100, budgets=[100], **alone),
        entry("long", budget=400, budgets=[400], **alone),
    )
    summary = curves.summary(curves.points(run))
    assert summary[["budget", "n"]].to_numpy().tolist() == [[100, 1], [400, 1]]


def test_nothing_finished_makes_an_empty_summary_with_its_columns(tmp_path: Path) -> None:
    summary = curves.summary(curves.points(write_run(tmp_path, entry("never"))))
    assert summary.empty
    assert {"accuracy", "n", "low", "high"} <= set(summary.columns)


def test_efficiency_is_the_area_and_the_queries_to_shares_of_the_teacher_over_the_listed_budgets(
    tmp_path: Path,
) -> None:
    # half of 0.9 is reached at 100 and 1,000; three quarters (0.675) at 1,000 by the first seed alone; 0.81 by none
    finish(tmp_path, "s0", point(100, 0.45), point(150, 0.9), point(1000, 0.7))
    finish(tmp_path, "s1", point(100, 0.40), point(1000, 0.6))
    run = write_run(tmp_path, *(entry(f"s{seed}", seed=seed, budgets=[100, 1000]) for seed in range(2)))
    (row,) = curves.efficiency(curves.points(run), curves.teacher_accuracies(run)).to_dict("records")
    assert row["n"] == 2
    assert row["area"] == pytest.approx((0.575 + 0.5) / 2)
    assert row["area_spread"] == pytest.approx(0.075 / math.sqrt(2))
    assert (row["queries_to_50"], row["queries_to_50_seeds"]) == (550, 2)
    assert (math.isnan(row["queries_to_75"]), row["queries_to_75_seeds"]) == (True, 1)
    assert (math.isnan(row["queries_to_90"]), row["queries_to_90_seeds"]) == (True, 0)


def test_efficiency_joins_the_cells_of_a_seed_that_have_a_budget_each(tmp_path: Path) -> None:
    for budget, accuracy in ((1000, 0.6), (100, 0.2)):
        finish(tmp_path, f"b{budget}", point(budget, accuracy))
    planned = [entry(f"b{n}", budget=n, budgets=[n], protocol="per_budget") for n in (1000, 100)]
    run = write_run(tmp_path, *planned)
    (row,) = curves.efficiency(curves.points(run), {"digits-lenet": TEACHER}).to_dict("records")
    assert (row["n"], row["area"]) == (1, pytest.approx(0.4))


def test_one_budget_has_no_area(tmp_path: Path) -> None:
    run = run_of_seeds(tmp_path, 0.5, 0.6)
    (row,) = curves.efficiency(curves.points(run), {"digits-lenet": TEACHER}).to_dict("records")
    assert math.isnan(row["area"])
    assert row["queries_to_50"] == 100


def test_only_trained_teachers_have_an_accuracy(tmp_path: Path) -> None:
    teachers = {"a": {"hash": "x", "validation_accuracy": 0.1, "test_accuracy": 0.97}, "b": None}
    write_json(tmp_path / "run.json", {"teachers": teachers, "entries": []})
    assert curves.teacher_accuracies(tmp_path) == {"a": 0.97}


def test_a_run_of_no_entries_has_frames_of_no_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for frame in (curves.cells(run), curves.points(run)):
        assert isinstance(frame, pd.DataFrame)
        assert frame.empty


def test_what_else_a_point_has_is_carried_over_and_averaged(tmp_path: Path) -> None:
    finish(tmp_path, "s0", point(100, 0.5, accuracy_ensemble=0.6, agreement_ensemble=0.4))
    finish(tmp_path, "s1", point(100, 0.5, accuracy_ensemble=0.8, agreement_ensemble=0.4))
    run = write_run(tmp_path, *(entry(f"s{seed}", seed=seed, budgets=[100]) for seed in range(2)))
    points = curves.points(run)
    assert points["accuracy_ensemble"].tolist() == [0.6, 0.8]
    (row,) = curves.summary(points).to_dict("records")
    assert (row["accuracy_ensemble"], row["agreement_ensemble"]) == pytest.approx((0.7, 0.4))
    assert curves.apart(curves.summary(points)) == ["accuracy_ensemble", "agreement_ensemble"]


def test_a_summary_says_which_budgets_the_grid_lists(tmp_path: Path) -> None:
    finish(tmp_path, "good", point(100, 0.3), point(120, 0.4), point(400, 0.6))
    summary = curves.summary(curves.points(write_run(tmp_path, entry("good"))))
    assert summary[["budget", "listed"]].to_numpy().tolist() == [[100, True], [120, False], [400, True]]
    assert curves.apart(summary) == []
