"""Figures at the width of a paper's column, for eyes that tell few colours apart: colour, dash and marker together."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from results.records import RANKED
from results.report.style import Look, looks, named, short

WIDTH = 3.4  # inches, one column
STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


def accuracy_vs_queries(
    summary: pd.DataFrame,
    roles: dict[str, str],
    teacher: float | None,
    title: str,
    published: pd.DataFrame | None = None,
    measure: str = "test accuracy",
) -> Figure:
    """One task and track: mean test accuracy against queries, a band where there is an interval.

    summary: rows of curves.summary for one task, kind of answer and of input. roles: label -> role, of the whole
    run. published: rows of published.matching, drawn hollow where their method is in the figure.
    Controls and the reference from above are grey, and dotted: they stand in no ranking.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(lines=summary["method"].nunique())
        look_of = looks(roles)
        for label in summary["method"].unique():
            look, rows = look_of[label], summary[summary["method"] == label].sort_values("budget")
            style: Any = {"color": look.colour, "linestyle": look.mpl_dash, "marker": look.marker}
            axes.plot(rows["budget"], rows["accuracy"], **style, label=named(label, roles[label]))
            if rows["low"].notna().any():
                alpha = 0.15 if roles[label] == RANKED else 0.08
                axes.fill_between(rows["budget"], rows["low"], rows["high"], color=look.colour, alpha=alpha, lw=0)
        if teacher is not None:
            axes.axhline(teacher, color="black", linewidth=0.8, label="teacher")
        queries = summary["budget"]
        if published is not None:
            shown = published[published["label"].isin(summary["method"])]
            _overlay(axes, shown, look_of)
            queries = pd.concat([queries, shown["claimed"], shown["recount"].dropna()])
        _dress(axes, queries, "queries to the teacher", measure)
        axes.set_title(title, fontsize=8)
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def _figure(lines: int) -> tuple[Figure, Axes]:
    """An empty figure, higher where the legend below it has more lines, two to a row."""
    figure = Figure(figsize=(WIDTH, WIDTH * 0.74 + 0.065 * lines), layout="constrained")
    return figure, figure.subplots()


def _overlay(axes: Axes, published: pd.DataFrame, look_of: dict[str, Look]) -> None:
    """A hollow mark where a paper claims its number, and a second at what its code asks for it, joined by a hair."""
    for row in published.to_dict("records"):
        look, at = look_of[row["label"]], pd.Series([row["claimed"], row["recount"]]).dropna()
        style: Any = {"color": look.colour, "marker": "o", "mfc": "none", "linewidth": 0.5, "alpha": 0.8}
        axes.plot(at, [row["value"] / 100] * len(at), **style, label="_published")
    if len(published):
        axes.plot([], [], color="0.4", marker="o", mfc="none", ls="", label="published: claimed, recounted")


def claimed_and_counted(
    summary: pd.DataFrame, roles: dict[str, str], teacher: float | None, title: str, measure: str = "test accuracy"
) -> Figure:
    """One task and track, methods that ask about an image more than once: accuracy against the images they made
    (what is claimed) and against the questions they asked (what is counted), hollow and filled."""
    with mpl.rc_context(STYLE):
        apart = summary[summary["claimed"] != summary["queries"]]["method"].unique()
        figure, axes = _figure(lines=2 * (summary["method"].nunique() + len(apart)))
        look_of = looks(roles)
        for label in summary["method"].unique():
            rows = summary[summary["method"] == label].sort_values("queries").drop_duplicates("queries")
            style: Any = {"color": look_of[label].colour, "marker": look_of[label].marker}
            if label in apart:
                claimed = f"{label}, queries as claimed"
                axes.plot(rows["claimed"], rows["accuracy"], **style, ls="--", mfc="white", label=claimed)
            axes.plot(rows["queries"], rows["accuracy"], **style, label=f"{label}, queries counted")
        if teacher is not None:
            axes.axhline(teacher, color="black", linewidth=0.8, label="teacher")
        _dress(axes, pd.concat([summary["queries"], summary["claimed"]]), "queries to the teacher", measure)
        axes.set_title(title, fontsize=8)
        figure.legend(loc="outside lower center", ncols=1)
        return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as PNG and PDF beside each other; returns both paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()  # lays it out, once for both files
    figure.set_layout_engine(None)
    written = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "pdf")]
    for file in written:
        figure.savefig(file, metadata={"CreationDate": None} if file.suffix == ".pdf" else None)
    return written


def _dress(axes: Axes, queries: pd.Series, label: str, measure: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda queries, _: short(queries)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if queries.nunique() <= 6:
        axes.set_xticks(sorted(queries.unique()))
    elif queries.max() < 100 * queries.min():
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set_xlabel(label)
    axes.set_ylabel(measure)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, 1.02)
