"""Tables for people: the best in bold among those that compete, ties marked, nothing claimed of too few seeds."""

import pandas as pd
import pytest
from support import sample_of

from results.curves import with_units
from results.records import CONTROL, RANKED, REFERENCE
from results.report import tables
from results.report.tables import ASIDE, BEST, Field, Table

NAN = float("nan")
ROLES = {"real": REFERENCE, "noise": CONTROL, "X": RANKED, "Y": RANKED, "Z": RANKED}


def summary(*rows: tuple[str, int, float, float, int]) -> pd.DataFrame:
    """Rows of (method, budget, accuracy, spread, n)."""
    frame = pd.DataFrame(rows, columns=["method", "budget", "accuracy", "spread", "n"])
    return frame.assign(protocol="anytime", agreement=0.5, teachers=1, runs=frame["n"], unlearnt=0)


def points(*rows: tuple[str, int, float, float, int]) -> pd.DataFrame:
    """What the summary is of."""
    each = [
        {"task": "a", "method": method, "budget": budget, "teacher_seed": 0, "seed": seed, "accuracy": accuracy}
        for method, budget, mean, spread, n in rows
        for seed, accuracy in enumerate(sample_of(mean, spread, n))
    ]
    return with_units(pd.DataFrame(each).assign(listed=True))


def row_of(table: Table, label: str) -> list[Field]:
    return next(row for row in table.rows if row[0].text.startswith(label))


def accuracy(*rows: tuple[str, int, float, float, int], no_ranking: str = "") -> Table:
    return tables.accuracy(summary(*rows), points(*rows), ROLES, "a task", no_ranking)


THREE = [("X", 100, 0.60, 0.02, 3), ("Y", 100, 0.58, 0.03, 3), ("Z", 100, 0.30, 0.01, 3)]


def test_the_best_is_bold_and_what_cannot_be_told_from_it_is_marked() -> None:
    table = accuracy(*THREE)
    assert [row_of(table, label)[2] for label in "XYZ"] == [
        Field("60.0 ± 2.0", 0.60, BEST),
        Field("58.0 ± 3.0 †", 0.58),
        Field("30.0 ± 1.0", 0.30),
    ]


def test_two_seeds_make_no_test_and_the_caption_says_so() -> None:
    table = accuracy(*((label, budget, mean, spread, 2) for label, budget, mean, spread, _ in THREE))
    assert [row[2].text for row in table.rows] == ["60.0 ± 2.0", "58.0 ± 3.0", "30.0 ± 1.0"]
    assert "No test: fewer than three units." in table.caption
    assert "†" not in table.caption


def test_a_method_of_too_few_seeds_beside_tested_ones_says_so_in_its_field() -> None:
    table = accuracy(*THREE[:2], ("Z", 100, 0.30, 0.01, 2))
    assert row_of(table, "Z")[2].text == "30.0 ± 1.0 (2) (no test)"
    assert row_of(table, "Y")[2].text == "58.0 ± 3.0 (3) †"
    assert "No test" not in table.caption


def test_many_comparisons_are_corrected_for() -> None:
    apart = [("X", 100, 0.60, 0.02, 3), ("Y", 100, 0.54, 0.02, 3)]
    many = [(f"other {i}", 100, 0.1, 0.02, 3) for i in range(10)]
    roles = dict.fromkeys([label for label, *_ in [*apart, *many]], RANKED)
    for rows, mark in ((apart, ""), (apart + many, " †")):
        table = tables.accuracy(summary(*rows), points(*rows), roles, "a task")
        assert row_of(table, "Y")[2].text == "54.0 ± 2.0" + mark


def test_a_grid_that_must_rank_nothing_has_no_bold_no_mark_and_its_reason() -> None:
    table = accuracy(*THREE, ("noise", 100, 0.9, 0.0, 3), no_ranking="settings were tried on test images.")
    assert [row[2] for row in table.rows[:3]] == [
        Field("60.0 ± 2.0", 0.60),
        Field("58.0 ± 3.0", 0.58),
        Field("30.0 ± 1.0", 0.30),
    ]
    assert "No ranking: settings were tried on test images." in table.caption
    assert [word for word in ("Bold", "†", "No test") if word in table.caption] == []
    text = tables.latex(table, "tab:a")
    assert "No ranking: settings were tried on test images." in text
    assert "textbf" not in text


def test_controls_and_references_are_never_the_best_and_stand_below() -> None:
    table = accuracy(("real", 100, 0.99, 0.0, 3), ("noise", 100, 0.9, 0.0, 3), *THREE)
    assert [row[0].text for row in table.rows] == ["X", "Y", "Z", "noise", "real (not data-free)"]
    assert [row[2].look for row in table.rows] == [BEST, "", "", ASIDE, ASIDE]
    assert table.caption.endswith("No data-free method is above the best control at 100 queries.")


def test_a_method_above_the_controls_needs_no_warning() -> None:
    assert "No data-free method" not in accuracy(("noise", 100, 0.2, 0.0, 3), *THREE).caption


def test_a_student_that_did_not_learn_its_labels_is_marked_and_the_mark_explained() -> None:
    frame = summary(*THREE).assign(unlearnt=[0, 0, 1])
    table = tables.accuracy(frame, points(*THREE), ROLES, "a task")
    assert [row_of(table, label)[2].text for label in "XYZ"] == ["60.0 ± 2.0", "58.0 ± 3.0 †", "30.0 ± 1.0 ‡"]
    assert "did not learn the labels" in table.caption
    assert "‡" not in accuracy(*THREE).caption


def test_one_method_alone_is_no_best() -> None:
    assert row_of(accuracy(THREE[0], ("noise", 100, 0.2, 0.0, 3)), "X")[2].look == ""


def test_a_budget_that_a_method_was_not_run_at_is_a_dash_and_sorted_last() -> None:
    table = accuracy(*THREE, ("X", 2500, 0.7, NAN, 1))
    assert table.columns == ["method", "protocol", "100", "2.5k"]
    assert row_of(table, "Y")[3] == Field("-", -1)
    assert row_of(table, "X")[3].text == "70.0 (1)"  # n differs within the table, so each says its own


def test_parts_shown_apart_have_a_table_of_their_own_and_no_part_in_the_ranking() -> None:
    frame = summary(*THREE).assign(accuracy_ensemble=[0.95, NAN, NAN], agreement_ensemble=[0.9, NAN, NAN])
    table = tables.parts(frame)
    assert table is not None
    assert [[field.text for field in row] for row in table.rows] == [["X", "ensemble", "100", "95.0", "90.0"]]
    assert "95" not in str(tables.accuracy(frame, points(*THREE), ROLES, "a task").rows)
    assert tables.parts(summary(*THREE)) is None


def test_cost_says_how_many_seeds_reached_a_target_that_not_all_did() -> None:
    reached = {"queries_to_50": 550.0, "queries_to_50_runs": 2, "queries_to_75": NAN, "queries_to_75_runs": 1}
    reached |= {"queries_to_90": NAN, "queries_to_90_runs": 0}
    over = "100 to 1,000"
    efficiency = pd.DataFrame([{"method": "X", "area": 0.4, "area_over": over, "n": 2, **reached}])
    cells = [
        {"method": "X", "state": "done", "budget": 100, "spent": 90, "distinct": 80, "steps": 7, "seconds": 1},
        {"method": "X", "state": "done", "budget": 1000, "spent": 999, "distinct": 500, "steps": 70, "seconds": 300},
        {"method": "X", "state": "failed", "budget": 5000, "spent": NAN, "distinct": NAN, "steps": NAN, "seconds": NAN},
    ]
    table = tables.cost(efficiency, pd.DataFrame(cells), ROLES)
    (row,) = table.rows
    assert [field.text for field in row] == [
        "X",
        "40.0",
        "550",
        "1 of 2 runs",
        "-",
        "1,000",
        "999",
        "500",
        "70",
        "5 min",
    ]
    assert "log queries from 100 to 1,000" in table.caption
    (row,) = tables.cost(efficiency, pd.DataFrame(cells[2:]), ROLES).rows  # its points come from a narrower run
    assert [field.text for field in row[-5:]] == ["-"] * 5


def test_who_has_no_area_is_named_and_unequal_numbers_of_seeds_are_shown() -> None:
    reached = {f"queries_to_{share}": NAN for share in (50, 75, 90)}
    reached |= {f"queries_to_{share}_runs": 0 for share in (50, 75, 90)}
    whole = {"area": 0.4, "area_over": "100 to 1,000", "n": 3, **reached}
    lacks = {**whole, "area": NAN, "area_over": "nothing: lacks a part of 100 to 1,000"}
    efficiency = pd.DataFrame(
        [{"method": "X", **whole}, {"method": "Y", **whole, "n": 2}, {"method": "noise", **lacks}]
    )
    cells = pd.DataFrame(columns=["method", "state", "budget", "spent", "distinct", "steps", "seconds"])
    table = tables.cost(efficiency, cells, ROLES)
    assert [row[1].text for row in table.rows] == ["40.0 (3)", "40.0 (2)", "-"]
    assert "noise: no area, for want of some of these budgets." in table.caption
    none = tables.cost(efficiency.assign(area=NAN, area_over="nothing: fewer than two budgets"), cells, ROLES)
    assert none.caption.startswith("No area: fewer than two budgets.")


def test_what_is_lacking_is_counted_by_state_method_budget_and_reason() -> None:
    cells = pd.DataFrame(
        [
            {"state": "done", "method": "X", "budget": 100, "task": "a", "reason": None},
            {"state": "failed", "method": "X", "budget": 2500, "task": "a", "reason": "out of memory"},
            {"state": "failed", "method": "X", "budget": 2500, "task": "b", "reason": "out of memory"},
            {"state": "to do", "method": "Y", "budget": 100, "task": "a", "reason": None},
        ]
    )
    table = tables.lacking(cells)
    assert table is not None
    assert [[field.text for field in row] for row in table.rows] == [
        ["failed", "X", "2.5k", "2", "a, b", "out of memory"],
        ["to do", "Y", "100", "1", "a", "-"],
    ]
    assert tables.lacking(cells[:1]) is None


def test_what_other_code_made_is_lacking_with_the_way_to_make_it_again() -> None:
    cell = {
        "state": "stale",
        "method": "X",
        "budget": 100,
        "task": "a",
        "reason": "made by other code: method 1, now 2",
    }
    table = tables.lacking(pd.DataFrame([cell]))
    assert table is not None
    assert table.rows[0][-1].text == "made by other code: method 1, now 2; run again with --rerun"


def test_scores_stand_in_columns_of_budgets_with_what_was_left_out_in_the_caption() -> None:
    plain = {
        "over": "mnist",
        "method": "X",
        "role": RANKED,
        "low": 0.4,
        "high": 0.6,
        "tasks": 2,
        "n": 6,
        "left_out": "",
    }
    frame = pd.DataFrame(
        [
            {**plain, "budget": 100, "iqm": 0.5},
            {**plain, "budget": 200, "iqm": 0.5, "low": NAN, "tasks": 1, "left_out": "b (Y)"},
        ]
    )
    table = tables.scores(frame)
    assert [field.text for field in table.rows[0]] == ["mnist", "X", "1-2", "6", "50.0 [40.0, 60.0]", "50.0"]
    assert table.caption.endswith("Left out, as not all have it: mnist at 200: b (Y).")
    assert "(accuracy - chance) / (the teacher's accuracy - chance)" in table.caption
    assert "No ranking: tried." in tables.scores(frame, "tried").caption


def test_latex_has_rules_bold_and_nothing_that_latex_would_misread() -> None:
    table = Table("100 % of a_b", ["the_method", "100"], [[Field("x_1"), Field("60.0 ± 2.0 †", 0.6, BEST)]])
    text = tables.latex(table, "tab:a")
    assert [rule for rule in (r"\toprule", r"\midrule", r"\bottomrule") if rule not in text] == []
    assert r"x\_1 & \textbf{60.0 $\pm$ 2.0 $^\dagger$} \\" in text
    assert r"\caption{100 \% of a\_b}" in text
    assert r"\begin{tabular}{lr}" in text


@pytest.mark.parametrize("text", ["a & b", "50 %", "#1", "{x}", "$", "~", "^", "\\"])
def test_every_special_sign_is_escaped_in_latex(text: str) -> None:
    body = tables.latex(Table("", ["a"], [[Field(text)]]), "tab:a").partition(r"\midrule")[2].partition(r" \\")[0]
    assert text not in body.replace("\\" + text, "").replace(r"\textbackslash", "")
