"""The frames of a run: every planned run is a row, every point is what the files say, every mean says its n."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from reporting import ENTRY, MACHINE, VERSIONS, finish_with, plan
from reporting import point as made_up

from results import curves
from results.records import CONTROL, RANKED, REFERENCE, Entry, Point, RecordError, RunRecord, Versions, read
from results.report.report import write_frame
from results.store import read_json, write_json

TASK, TEACHER = "digits-lenet", 0.9
ROLES = {"ideal": RANKED, "dfme": RANKED, "noise": CONTROL, "real": REFERENCE}


def entry(cell: str | None, **changes: Any) -> Entry:
    """A planned run of two budgets."""
    return replace(ENTRY, **{"protocol": "anytime", "budgets": [100, 400], "cell": cell, **changes})


def point(budget: int, accuracy: float, **changes: Any) -> Point:
    usual = {"round": budget // 50, "spent": budget - budget % 50, "distinct": budget // 2, "agreement": accuracy / 2}
    return made_up(budget, accuracy, **{**usual, **changes})


def write_run(root: Path, *entries: Entry) -> Path:
    return plan(root, list(entries))


def finish(root: Path, cell: str, *points: Point, **totals: Any) -> None:
    usual = {"spent": 400, "distinct": 390, "rounds": 8, "seconds": 1.5}
    finish_with(root, entry(cell), list(points), **{**usual, **totals})


def efficiency(run: Path, teacher: float = TEACHER) -> list[dict[Any, Any]]:
    return curves.efficiency(curves.points(run), {(TASK, 0): teacher, (TASK, 1): teacher}, ROLES).to_dict("records")


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


def test_the_totals_of_a_finished_cell_are_those_of_the_meter_with_what_computed_them(tmp_path: Path) -> None:
    finish(tmp_path, "good", point(400, 0.5))
    row = curves.cells(write_run(tmp_path, entry("good"))).iloc[0]
    assert (row["spent"], row["distinct"], row["rounds"], row["seconds"]) == (400, 390, 8, 1.5)
    told = row[["device", "threads", "precision", "commit", "torch"]].tolist()
    assert told == [MACHINE.device, MACHINE.threads, MACHINE.precision, MACHINE.commit, MACHINE.torch]
    assert row["versions"] == "method 1, meter 1"


def test_a_result_of_other_code_is_stale_says_which_and_has_no_points(tmp_path: Path) -> None:
    finish(tmp_path, "old", point(400, 0.5))
    run = write_run(tmp_path, entry("old"))
    now: dict[str, Versions] = {"ideal": {**VERSIONS, "method": 2}}
    row = curves.cells(run, now).iloc[0]
    assert (row["state"], row["reason"]) == ("stale", "made by other code: method 1, now 2")
    assert pd.isna(row["spent"])
    assert curves.points(run, now).empty
    for taken_as_planned in (None, {"dfme": now["ideal"]}):
        assert len(curves.points(run, taken_as_planned)) == 1


def test_an_anytime_run_that_is_not_done_has_the_points_of_the_widest_narrower_one_that_is(tmp_path: Path) -> None:
    narrower = {50: "b50", 100: "b100", 200: "b200"}
    for cell, accuracy in (("b50", 0.1), ("b100", 0.3)):
        finish(tmp_path, cell, point(100, accuracy))
    run = write_run(tmp_path, entry("b400", narrower=narrower))
    assert curves.points(run)[["cell", "budget", "accuracy"]].to_numpy().tolist() == [["b100", 100, 0.3]]
    assert curves.cells(run)["state"].tolist() == ["to do"]
    finish(tmp_path, "b400", point(400, 0.6))
    assert curves.points(run)["cell"].tolist() == ["b400"]


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


def test_a_run_that_is_measured_once_has_no_optimistic_figure(tmp_path: Path) -> None:
    finish(tmp_path, "a", point(100, 0.5), point(400, 0.4))
    points = curves.points(write_run(tmp_path, entry("a", protocol="per_budget", budgets=[400])))
    assert points["accuracy"].tolist() == [0.4]
    assert points["optimistic"].isna().all()
    assert curves.summary(points)["optimistic"].isna().all()


def test_what_has_no_accuracy_has_no_optimistic_one(tmp_path: Path) -> None:
    found = point(100, 0.5)
    del found["accuracy"]
    finish(tmp_path, "a", found)
    points = curves.points(write_run(tmp_path, entry("a")))
    assert points[["accuracy", "optimistic"]].isna().all(axis=None)


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
    (row,) = efficiency(run)
    assert (row["n"], row["area_over"]) == (2, "100 to 1,000")
    assert row["area"] == pytest.approx((0.575 + 0.5) / 2)
    assert row["area_spread"] == pytest.approx(0.075 / math.sqrt(2))
    assert (row["queries_to_50"], row["queries_to_50_runs"]) == (550, 2)
    assert (pd.isna(row["queries_to_75"]), row["queries_to_75_runs"]) == (True, 1)
    assert (pd.isna(row["queries_to_90"]), row["queries_to_90_runs"]) == (True, 0)


def two_teachers(root: Path) -> Path:
    """Two teachers, each with two seeds, at one budget: 0.2 and 0.4, 0.6 and 0.8."""
    entries = []
    for i, accuracy in enumerate((0.2, 0.4, 0.6, 0.8)):
        finish(root, f"c{i}", point(100, accuracy))
        entries.append(entry(f"c{i}", teacher_seed=i // 2, seed=i % 2, budgets=[100]))
    return write_run(root, *entries)


def test_means_and_spreads_are_over_teachers_where_a_task_has_several(tmp_path: Path) -> None:
    (row,) = curves.summary(curves.points(two_teachers(tmp_path))).to_dict("records")
    assert (row["n"], row["teachers"], row["runs"]) == (2, 2, 4)
    assert row["accuracy"] == pytest.approx(0.5)
    assert row["spread"] == pytest.approx(0.4 / math.sqrt(2))  # of 0.3 and 0.7
    assert row["seed_spread"] == pytest.approx(0.2 / math.sqrt(2))
    # Of the variance between the means, 0.08, a half of that between the seeds, 0.02, is the seeds'.
    assert row["teacher_spread"] == pytest.approx(math.sqrt(0.08 - 0.02 / 2))


def test_a_method_that_met_one_of_several_teachers_has_one_unit_whatever_is_looked_at(tmp_path: Path) -> None:
    run = two_teachers(tmp_path)
    for cell in ("c2", "c3"):
        (tmp_path / f"cells/{cell}/done.json").unlink()
    finish(tmp_path, "other", point(100, 0.5))
    entries = [entry(f"c{i}", teacher_seed=i // 2, seed=i % 2, budgets=[100]) for i in range(4)]
    run = write_run(tmp_path, *entries, entry("other", kind="other", method="other", teacher_seed=1, budgets=[100]))
    points = curves.points(run)
    for looked_at in (points, points[points["method"] != "other"]):
        row = curves.summary(looked_at).to_dict("records")[0]
        assert (row["n"], row["teachers"], row["runs"]) == (1, 1, 2)


def test_a_teacher_that_lacks_a_seed_weighs_no_less(tmp_path: Path) -> None:
    run = two_teachers(tmp_path)
    (tmp_path / "cells/c3/done.json").unlink()
    (row,) = curves.summary(curves.points(run)).to_dict("records")
    assert row["accuracy"] == pytest.approx((0.3 + 0.6) / 2)
    assert (row["n"], row["runs"]) == (2, 3)


def test_targets_are_shares_of_the_accuracy_of_the_teacher_that_was_met(tmp_path: Path) -> None:
    points, teachers = curves.points(two_teachers(tmp_path)), {(TASK, 0): 0.4, (TASK, 1): 0.9}
    (row,) = curves.efficiency(points, teachers, ROLES).to_dict("records")
    assert row["n"] == 4
    assert (row["queries_to_50"], row["queries_to_75_runs"]) == (100, 2)


@pytest.mark.parametrize(
    ("fitted", "commonest", "learnt"),
    [
        (0.40, 0.40, False),
        (0.44, 0.40, False),
        (0.47, 0.40, True),
        (1.0, 1.0, False),
        (0.99, 0.98, True),
        (None, None, True),
    ],
)
def test_who_agrees_with_its_labels_no_more_than_the_commonest_of_them_has_not_learnt_them(
    tmp_path: Path, fitted: float | None, commonest: float | None, learnt: bool
) -> None:
    finish(tmp_path, "s0", point(100, 0.5, fitted=fitted, commonest=commonest) if fitted else point(100, 0.5))
    run = write_run(tmp_path, entry("s0", budgets=[100]))
    assert curves.points(run)["learnt"].tolist() == [learnt]
    assert curves.summary(curves.points(run))["unlearnt"].tolist() == [int(not learnt)]


def test_efficiency_joins_the_cells_of_a_seed_that_have_a_budget_each(tmp_path: Path) -> None:
    for budget, accuracy in ((1000, 0.6), (100, 0.2)):
        finish(tmp_path, f"b{budget}", point(budget, accuracy))
    run = write_run(tmp_path, *(entry(f"b{n}", budget=n, budgets=[n], protocol="per_budget") for n in (1000, 100)))
    (row,) = efficiency(run)
    assert (row["n"], row["area"]) == (1, pytest.approx(0.4))


def test_one_budget_has_no_area_and_says_so(tmp_path: Path) -> None:
    (row,) = efficiency(run_of_seeds(tmp_path, 0.5, 0.6))
    assert math.isnan(row["area"])
    assert "fewer than two budgets" in row["area_over"]
    assert row["queries_to_50"] == 100


def curves_of(root: Path, **accuracies: dict[int, float]) -> Path:
    """One run of one seed a method, or `METHOD_SEED`, of accuracies by budget."""
    planned = []
    for name, curve in accuracies.items():
        method, _, seed = name.partition("_")
        finish(root, name, *(point(budget, accuracy) for budget, accuracy in curve.items()))
        data = "train" if method == "real" else "none"
        planned.append(entry(name, method=method, kind=method, data=data, seed=int(seed or 0), budgets=[*curve]))
    return write_run(root, *planned)


def test_one_curve_has_one_area_however_far_other_methods_of_the_track_go(tmp_path: Path) -> None:
    curve = {100: 0.2, 1000: 0.4, 10_000: 0.6, 100_000: 0.8}
    run = curves_of(tmp_path, ideal=dict(list(curve.items())[:3]), dfme=curve, noise=curve)
    rows = efficiency(run)
    assert [row["area"] for row in rows] == pytest.approx([0.4] * 3)
    assert {row["area_over"] for row in rows} == {"100 to 10,000"}


def test_a_budget_that_a_seed_of_a_ranked_method_lacks_is_in_no_area_of_the_track(tmp_path: Path) -> None:
    curve = {100: 0.2, 1000: 0.4, 10_000: 0.8}
    run = curves_of(tmp_path, ideal_0=curve, ideal_1={100: 0.2, 1000: 0.4}, dfme=curve)
    assert [row["area"] for row in efficiency(run)] == pytest.approx([0.3, 0.3])
    run = curves_of(tmp_path, ideal_0=curve, ideal_1={100: 0.2}, dfme=curve)
    rows = efficiency(run)
    assert all(math.isnan(row["area"]) for row in rows)
    assert [row["n"] for row in rows] == [2, 1]


def test_a_control_that_lacks_some_of_the_common_budgets_has_no_area_and_takes_none_from_others(tmp_path: Path) -> None:
    curve = {100: 0.2, 1000: 0.4, 10_000: 0.6}
    ideal, noise = efficiency(curves_of(tmp_path, ideal=curve, noise={100: 0.1, 1000: 0.1}))
    assert ideal["area"] == pytest.approx(0.4)
    assert math.isnan(noise["area"])
    assert noise["area_over"] == "nothing: lacks a part of 100 to 10,000"


def test_the_areas_of_another_track_do_not_depend_on_this_one(tmp_path: Path) -> None:
    finish(tmp_path, "a", point(100, 0.2), point(1000, 0.4))
    finish(tmp_path, "b", point(100, 0.2), point(1000, 0.4), point(10_000, 0.6))
    one, other = entry("a", budgets=[100, 1000]), entry("b", method="dfme", answers="probs", budgets=[100, 10_000])
    assert [row["area_over"] for row in efficiency(write_run(tmp_path, one, other))] == [
        "100 to 1,000",
        "100 to 10,000",
    ]


def test_only_trained_teachers_have_an_accuracy(tmp_path: Path) -> None:
    record = read(write_run(tmp_path, entry(None)) / "run.json", RunRecord)
    both = replace(record, teachers={**record.teachers, "untrained": {0: None}})
    assert curves.teacher_accuracies(both) == {(TASK, 0): 0.96}


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


def test_a_budget_that_is_listed_for_some_seeds_only_is_one_row_and_listed(tmp_path: Path) -> None:
    for seed in range(3):
        finish(tmp_path, f"s{seed}", point(100, 0.3 + seed / 10), point(400, 0.6))
    budgets = ([100, 400], [100, 400], [400])
    run = write_run(tmp_path, *(entry(f"s{seed}", seed=seed, budgets=given) for seed, given in enumerate(budgets)))
    points = curves.points(run)
    assert points["listed"].all()
    assert curves.summary(points)[["budget", "listed", "n"]].to_numpy().tolist() == [[100, True, 3], [400, True, 3]]


WHOLE = {
    "seed",
    "budget",
    "spent",
    "distinct",
    "rounds",
    "round",
    "queries",
    "claimed",
    "n",
    "tasks",
    "threads",
}


@settings(deadline=None, derandomize=True, max_examples=15)  # a busy machine is no failure
@given(spent=some.lists(some.integers(1, 2**53), min_size=1, max_size=3), done=some.booleans())
def test_what_is_counted_is_a_whole_number_to_the_last_digit_in_frames_and_in_csv(
    tmp_path_factory: pytest.TempPathFactory, spent: list[int], done: bool
) -> None:
    root = tmp_path_factory.mktemp("run")
    for seed, n in enumerate(spent):
        made = [point(n, 0.5, spent=n, distinct=n)]
        finish(root, f"s{seed}", *made, spent=n, distinct=n)
    entries = [entry(f"s{seed}", seed=seed, budget=n, budgets=[n]) for seed, n in enumerate(spent)]
    run = write_run(root, *entries, *([] if done else [entry("never", seed=9)]))
    points = curves.points(run)
    frames = {"cells": curves.cells(run), "points": points, "summary": curves.summary(points)}
    frames["efficiency"] = curves.efficiency(points, {TASK: TEACHER}, ROLES)
    for name, frame in frames.items():
        whole = [column for column in map(str, frame) if column in WHOLE or column.startswith("queries_to")]
        assert {str(frame[column].dtype) for column in whole} == {"Int64"}
        csv, _ = write_frame(root / name, frame)
        read_back = pd.read_csv(csv, dtype=str)
        for column in whole:
            told = [None if pd.isna(value) else str(int(value)) for value in frame[column]]
            assert read_back[column].astype(object).where(read_back[column].notna(), None).tolist() == told
    assert frames["cells"]["spent"].dropna().tolist() == spent
    assert frames["points"]["queries"].tolist() == spent


def test_the_record_of_a_run_has_each_config_once_and_one_with_a_config_in_each_entry_is_read_as_well(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path, entry("a"), entry("b", seed=1), entry("c", config='{"x":2}'), entry(None))
    record, kept = read(run / "run.json", RunRecord), read_json(run / "run.json")
    assert kept["configs"] == ["{}", '{"x":2}']
    assert [row[kept["columns"].index("config")] for row in kept["entries"]] == [0, 0, 1, 0]
    write_json(run / "run.json", asdict(record))  # as earlier versions did
    assert read(run / "run.json", RunRecord) == record


@pytest.mark.parametrize("spoilt", [{"configs": []}, {"configs": None}, {"columns": ["task"]}, {"entries": [7]}])
def test_a_record_of_a_run_that_does_not_fit_together_is_told(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    run = write_run(tmp_path, entry("a"))
    write_json(run / "run.json", {**read_json(run / "run.json"), **spoilt})
    with pytest.raises(RecordError, match=r"run.json is no record of a run: entries.0"):
        read(run / "run.json", RunRecord)
