"""Tables for people: what a page and a LaTeX file show, from the frames of a run."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.curves import TARGETS, apart, by_unit
from results.records import CONTROL, RANKED, REFERENCE
from results.report.style import UNLEARNT, named, short
from results.statistics import against_best

Row = dict[Any, Any]  # of a frame, column -> value
BEST, ASIDE = "best", "aside"  # how a field is set: bold; grey, for what stands in no ranking
NOTHING = "-"
FAR = 1e15  # sorts what was not reached behind whatever was
TIED, UNTESTED = " †", " (no test)"  # marks of what is not the best
TOTALS = ["budget", "spent", "distinct", "steps", "seconds"]  # of a run of the largest budget
RANKING = (
    "Bold: the best of the data-free methods; †: not separable from it (Welch's t-test over three seeds or more; over "
    "three teachers or more, where there are several, the paired one; 5 % over all pairs of a column by Holm's method)."
)
ASIDES = (
    "Set apart and in no ranking: controls, and methods that are not data-free. A method that is not above the "
    "controls has learnt nothing that noise does not teach."
)


@dataclass(frozen=True)
class Field:
    """text: as shown. order: what a column is sorted by, the text itself if None. look: BEST, ASIDE or nothing."""

    text: str
    order: float | None = None
    look: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, the names of the columns, and rows of as many fields."""

    caption: str
    columns: list[str]
    rows: list[list[Field]]


def accuracy(
    summary: pd.DataFrame,
    points: pd.DataFrame,
    roles: dict[str, str],
    title: str,
    no_ranking: str = "",
    measure: str = "test accuracy",
) -> Table:
    """One task and track: a row a method, a column a budget, the best in bold and its ties marked.

    summary: rows of curves.summary at the listed budgets, points: what they are means of. no_ranking: why nothing is to
    be marked, if it is not. measure: what stands in the place of accuracy.
    """
    budgets = sorted(summary["budget"].unique())
    at_budget = points[points["listed"]].groupby("budget")
    marks = {} if no_ranking else {budget: _marks(rows, roles) for budget, rows in at_budget}
    tested = any(mark not in {BEST, UNTESTED} for marked in marks.values() for mark in marked.values())
    same_n = summary["n"].nunique() == 1 and summary["runs"].nunique() == 1
    rows = []
    for row in _by_role(summary.drop_duplicates(["method", "protocol"]).to_dict("records"), roles):
        own = summary[(summary["method"] == row["method"]) & (summary["protocol"] == row["protocol"])]
        at = {point["budget"]: point for point in own.to_dict("records")}
        fields = [_accuracy(at.get(budget), marks.get(budget, {}), roles, same_n, tested) for budget in budgets]
        rows.append([_label(row["method"], roles), Field(row["protocol"]), *fields])
    means = f"{measure.capitalize()} in percent, mean ± standard deviation over {_units(summary, same_n)}."
    ranking = _unranked(no_ranking) if no_ranking else _ranking(marks, tested)
    columns = ["method", "protocol", *(short(budget) for budget in budgets)]
    told = (f"{title}.", means, ranking, ASIDES, _unlearnt(summary), _beaten(summary, roles))
    return Table(" ".join(filter(None, told)), columns, rows)


def spreads(summary: pd.DataFrame, roles: dict[str, str]) -> Table | None:
    """One task and track: how far teachers and seeds lie apart; None where a task has one teacher.

    summary: rows of curves.summary at the listed budgets.
    """
    if not summary["teacher_spread"].notna().any():
        return None
    budgets = sorted(summary["budget"].unique())
    rows = []
    for row in _by_role(summary.drop_duplicates("method").to_dict("records"), roles):
        at = {point["budget"]: point for point in summary[summary["method"] == row["method"]].to_dict("records")}
        fields = [_spreads(at[budget]) if budget in at else Field(NOTHING, -1) for budget in budgets]
        rows.append([_label(row["method"], roles), *fields])
    caption = (
        "What differs with the teacher, and what with the seed: standard deviation of the accuracy between teachers, "
        "as it would be with endless seeds / between the seeds of one teacher, in points, and in brackets the "
        "teachers' share of the variance."
    )
    return Table(caption, ["method", *map(short, budgets)], rows)


def cost(efficiency: pd.DataFrame, cells: pd.DataFrame, roles: dict[str, str]) -> Table:
    """One task and track: area under the curve, queries to shares of the teacher's accuracy, queries and time spent.

    efficiency: rows of curves.efficiency. cells: rows of curves.cells.
    """
    done = cells[cells["state"] == "done"]
    same_n = efficiency["n"].nunique() == 1
    largest = done[done["budget"] == done.groupby("method")["budget"].transform("max")]
    totals = largest.groupby("method")[TOTALS].mean().to_dict("index")
    rows = []
    for row in _by_role(efficiency.to_dict("records"), roles):
        n = "" if same_n or pd.isna(row["area"]) else f" ({row['n']})"
        label, area = _label(row["method"], roles), Field(_percent(row["area"]) + n, row["area"])
        reached = [_reached(row, share) for share in TARGETS]
        rows.append([label, area, *reached, *_totals(totals.get(row["method"]))])
    columns = ["method", "area", *(f"to {100 * share:.0f} %" for share in TARGETS)]
    caption = (
        f"{_areas(efficiency)} To 50, 75, 90 %: queries to that share of the teacher's "
        "accuracy, mean over runs, or how many of them came so far. Spent and distinct: what the meter "
        "counted in a run of the largest budget, the last unfinished round included, and the different "
        "images among it. Steps: updates of the student. Time: of such a run. Means over runs."
    )
    return Table(caption, [*columns, "budget", "spent", "distinct", "steps", "time"], rows)


def parts(summary: pd.DataFrame) -> Table | None:
    """What methods show apart from their student, such as an ensemble; None if none does."""
    rows = [
        [Field(row["method"]), Field(part), Field(short(row["budget"]), row["budget"]), *_pair(row, part)]
        for row in summary.to_dict("records")
        for part in dict.fromkeys(name.partition("_")[2] for name in apart(summary))
        if not pd.isna(row.get(f"accuracy_{part}"))
    ]
    caption = (
        "Parts that a method shows apart from its student, in percent, means over seeds. They stand in no ranking."
    )
    return Table(caption, ["method", "part", "budget", "accuracy", "agreement"], rows) if rows else None


def scores(frame: pd.DataFrame, no_ranking: str = "") -> Table:
    """aggregate.scores of one kind of answer and input: a row a method, a column a budget."""
    budgets = sorted(frame["budget"].unique())
    rows = []
    for (over, label, role), group in frame.groupby(["over", "method", "role"], sort=False):
        look = "" if role == RANKED else ASIDE
        scope = [
            Field(str(over)),
            Field(named(str(label), str(role)), look=look),
            *_range(group, "tasks"),
            *_range(group, "n"),
        ]
        rows.append([*scope, *_by_budget(group, "iqm", budgets, look)])
    caption = (
        "Interquartile mean over tasks of the mean score, over the tasks that all data-free methods have. "
        "Score: (accuracy - chance) / (the teacher's accuracy - chance), in percent; chance: 1 / classes. In brackets: "
        "95 % intervals of Student's t for these tasks and other units, which are seeds, or teachers where a task has "
        "several; none where a task has fewer than three."
    )
    told = " ".join(filter(None, (caption, _unranked(no_ranking), _left_out(frame))))
    return Table(told, ["over", "method", "tasks", "units", *map(short, budgets)], rows)


def improvements(frame: pd.DataFrame, no_ranking: str = "") -> Table:
    """aggregate.improvements of one kind of answer and input: a row a pair of methods, a column a budget."""
    budgets = sorted(frame["budget"].unique())
    rows = [
        [*(Field(str(part)) for part in key), *_range(group, "tasks"), *_by_budget(group, "probability", budgets)]
        for key, group in frame.groupby(["over", "method", "other"], sort=False)
    ]
    caption = (
        "Probability of improvement (Agarwal et al. 2021), in percent: mean over tasks of the share of pairs of units "
        "in which the first method is above the second, ties half. Units are seeds, or teachers where a task has "
        "several. In brackets: 95 % intervals of Wilson for these tasks and other units, on the safe side; none where "
        "a task has fewer than three."
    )
    told = " ".join(filter(None, (caption, _unranked(no_ranking))))
    return Table(told, ["over", "method", "above", "tasks", *map(short, budgets)], rows)


def lacking(cells: pd.DataFrame) -> Table | None:
    """The planned runs without a result, by method and budget, with their reasons; None if all are done."""
    rest = cells[cells["state"] != "done"].fillna({"reason": NOTHING})
    rows = []
    for _, group in rest.groupby(["state", "method", "budget", "reason"], sort=False):
        row, tasks = group.iloc[0], list(group["task"].unique())
        counts = [Field(short(row["budget"]), row["budget"]), Field(str(len(group)), len(group))]
        reason = row["reason"] + ("; run again with --rerun" if row["state"] == "stale" else "")
        rows.append([Field(row["state"]), Field(row["method"]), *counts, Field(_listed(tasks)), Field(reason)])
    columns = ["state", "method", "budget", "runs", "tasks", "reason"]
    return Table("Planned runs without a result.", columns, rows) if rows else None


def published(rows: pd.DataFrame) -> Table | None:
    """Published rows as a table; None if there are none."""
    texts = ["paper", "method", "dataset", "teacher", "student", "answers", "metric"]
    fields = [
        [
            *(Field(str(row[key])) for key in texts),
            Field(_published(row), row["value"]),
            Field("unknown" if pd.isna(row["claimed"]) else f"{row['claimed']:,.0f} {row['unit']}", row["claimed"]),
            Field(NOTHING if pd.isna(row["recount"]) else f"{row['recount']:,.0f}", row["recount"]),
            *(Field(str(row[key])) for key in ("selection", "table", "source")),
        ]
        for row in rows.to_dict("records")
    ]
    caption = (
        "Published numbers on the data sets of this run, whether or not networks and settings match. Claimed: the "
        "budget as the source counts it. Recount: calls of the teacher that the released code makes for it."
    )
    columns = [*texts, "value", "claimed", "recount", "selection", "where", "source"]
    return Table(caption, columns, fields) if fields else None


def latex(table: Table, label: str) -> str:
    """The table for a paper, with booktabs rules; needs the package booktabs."""
    texts = pd.DataFrame([[field.text for field in row] for row in table.rows], columns=table.columns)
    looks = [[_LATEX[field.look] for field in row] for row in table.rows]
    style = texts.style.hide(axis="index").format(_escaped).format_index(_escaped, axis=1)
    style = style.apply(lambda frame: pd.DataFrame(looks, columns=frame.columns), axis=None)
    layout = "".join("r" if row.order is not None else "l" for row in table.rows[0])
    return style.to_latex(
        hrules=True, caption=_escaped(table.caption), label=label, column_format=layout, position_float="centering"
    )


_LATEX = {BEST: "textbf:--rwrap;", ASIDE: "textit:--rwrap;", "": ""}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "†": r"$^\dagger$", "‡": r"$^\ddagger$"}


def _escaped(text: object) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in str(text))


def _marks(points: pd.DataFrame, roles: dict[str, str]) -> dict[str, str]:
    """Of one budget, the mark of each ranked method: BEST, TIED, UNTESTED or nothing; none for one method alone."""
    ranked = points[points["method"].map(roles) == RANKED]
    units = by_unit(ranked, ["method"], ["accuracy"])["accuracy"].unstack()  # methods x units
    if len(units) < 2:
        return {}
    paired = bool(ranked["teacher_seed"].nunique() > 1 and units.notna().all(axis=None))
    p = against_best([row.dropna() for _, row in units.iterrows()], paired=paired)
    marks = [UNTESTED if math.isnan(value) else TIED if value >= 0.05 else "" for value in p]
    marks[int(units.mean(axis=1).argmax())] = BEST
    return dict(zip(map(str, units.index), marks, strict=True))


def _accuracy(row: Row | None, marks: dict[str, str], roles: dict[str, str], same_n: bool, tested: bool) -> Field:
    if row is None:
        return Field(NOTHING, -1)
    text = _percent(row["accuracy"], row["spread"]) + ("" if same_n else f" ({row['n']})")
    text += UNLEARNT if row["unlearnt"] else ""
    if roles[row["method"]] != RANKED:
        return Field(text, row["accuracy"], ASIDE)
    mark = marks.get(row["method"], "")
    if mark == BEST:
        return Field(text, row["accuracy"], BEST)
    return Field(text + (mark if tested else ""), row["accuracy"])


def _ranking(marks: dict[Any, dict[str, str]], tested: bool) -> str:
    """What bold and † mean, where there is anything to rank."""
    if not any(marks.values()):
        return ""
    return RANKING if tested else "Bold: the best of the data-free methods. No test: fewer than three units."


def _units(summary: pd.DataFrame, same_n: bool) -> str:
    """What means and spreads are over, and how many there are of it."""
    teachers, runs = summary["teachers"].iloc[0], summary["runs"].iloc[0]
    several = summary["teachers"].max() > 1
    if not same_n:
        return f"{'teachers, of the means over their seeds' if several else 'seeds'}, n in brackets"
    if several:
        return f"n = {teachers} teachers, of the means over the {runs // teachers} seeds of each"
    return f"seeds, n = {runs}"


def _unlearnt(summary: pd.DataFrame) -> str:
    """What the mark of a student that did not learn means, where there is one."""
    if not summary["unlearnt"].any():
        return ""
    return (
        "‡: at least one student did not learn the labels it was given: on images that the teacher was asked about it "
        "agrees with the teacher hardly more often than who always gives the commonest answer."
    )


def _unranked(reason: str) -> str:
    return f"No ranking: {reason.rstrip('.')}." if reason else ""


def _areas(efficiency: pd.DataFrame) -> str:
    """What area means in this table, over which budgets, and who has none."""
    ranges = efficiency.loc[efficiency["area"].notna(), "area_over"].unique()
    if not len(ranges):
        return f"No area: {efficiency['area_over'].iloc[0].removeprefix('nothing: ')}."
    text = (
        f"Area: mean accuracy in percent over log queries from {ranges[0]}, the budgets that all data-free methods "
        "have with all their seeds."
    )
    lacking = efficiency.loc[efficiency["area"].isna(), "method"]
    return text + (f" {', '.join(lacking)}: no area, for want of some of these budgets." if len(lacking) else "")


def _spreads(row: Row) -> Field:
    teachers, seeds = row["teacher_spread"], row["seed_spread"]
    if pd.isna(teachers) or pd.isna(seeds):
        return Field(NOTHING, -1)
    variance = teachers**2 + seeds**2
    share = f" ({100 * teachers**2 / variance:.0f} %)" if variance else ""
    return Field(f"{100 * teachers:.1f} / {100 * seeds:.1f}{share}", teachers)


def _totals(total: Row | None) -> list[Field]:
    """Budget, spent, distinct, steps and time; dashes where no run of the largest budget is done."""
    if total is None:
        return [Field(NOTHING, -1)] * len(TOTALS)
    *counts, seconds = (total[key] for key in TOTALS)
    known = [Field(NOTHING, -1) if pd.isna(count) else Field(f"{count:,.0f}", count) for count in counts]
    return [*known, Field(_time(seconds), seconds)]


def _beaten(summary: pd.DataFrame, roles: dict[str, str]) -> str:
    """A sentence naming the budgets at which no ranked method is above the best control; empty if there is none."""
    highest = summary.groupby(["budget", summary["method"].map(roles)])["accuracy"].max().unstack()
    if not {RANKED, CONTROL} <= set(highest):
        return ""
    budgets = [short(budget) for budget in highest.index[highest[RANKED] <= highest[CONTROL]]]
    return f"No data-free method is above the best control at {', '.join(budgets)} queries." if budgets else ""


def _by_role(rows: Iterable[Row], roles: dict[str, str]) -> list[Row]:
    """The ranked first, then controls, then references, each in the order of the grid."""
    order = [RANKED, CONTROL, REFERENCE]
    return sorted(rows, key=lambda row: order.index(roles[row["method"]]))


def _label(label: str, roles: dict[str, str]) -> Field:
    return Field(named(label, roles[label]), look="" if roles[label] == RANKED else ASIDE)


def _reached(row: Row, share: float) -> Field:
    needed, runs = row[f"queries_to_{100 * share:.0f}"], row[f"queries_to_{100 * share:.0f}_runs"]
    if not pd.isna(needed):
        return Field(f"{needed:,.0f}", needed)
    return Field(f"{runs} of {row['n']} runs" if runs else NOTHING, FAR - runs)


def _pair(row: Row, part: str) -> list[Field]:
    values = [row.get(f"{measure}_{part}", float("nan")) for measure in ("accuracy", "agreement")]
    return [Field(_percent(value), value) for value in values]


def _range(group: pd.DataFrame, column: str) -> list[Field]:
    """One field: the number, or the least and the most of them."""
    least, most = group[column].min(), group[column].max()
    return [Field(str(most) if least == most else f"{least}-{most}", most)]


def _by_budget(group: pd.DataFrame, column: str, budgets: list[int], look: str = "") -> list[Field]:
    """A field for each budget: the value with its bounds."""
    at = {row["budget"]: row for row in group.to_dict("records")}
    return [
        Field(_with_bounds(at[budget][column], at[budget]), at[budget][column], look)
        if budget in at
        else Field(NOTHING, -1)
        for budget in budgets
    ]


def _with_bounds(value: float, row: Row) -> str:
    bounds: str = "" if pd.isna(row["low"]) else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    return _percent(value) + bounds


def _left_out(frame: pd.DataFrame) -> str:
    """Sentences naming what could not be compared, and at which budgets."""
    groups = frame[frame["left_out"] != ""].groupby(["over", "left_out"], sort=False)["budget"]
    told = (f"{over} at {', '.join(map(short, budgets.unique()))}: {what}" for (over, what), budgets in groups)
    listed = "; ".join(told)
    return f"Left out, as not all have it: {listed}." if listed else ""


def _published(row: Row) -> str:
    spread: str = "" if pd.isna(row["spread"]) else f" ± {row['spread']:g} ({row['spread_kind'] or 'kind unknown'})"
    return f"{row['value']:g}{spread}" + ("" if pd.isna(row["n"]) else f", n = {row['n']:g}")


def _percent(value: float, spread: float = float("nan")) -> str:
    if pd.isna(value):
        return NOTHING
    return f"{100 * value:.1f}" + ("" if pd.isna(spread) else f" ± {100 * spread:.1f}")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _listed(names: Sequence[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
