"""Figures at the width of a paper's column, for eyes that tell few colours apart: colour, dash and marker together."""

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from results.text import short

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
MARKERS = "osD^vP<X>p"
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (4, 1, 1, 1, 1, 1)))
NO_RANK = {"real": "0.25", "knockoff": "0.4", "noise": "0.55"}
NOT_DATA_FREE = {"real", "knockoff"}


def accuracy_vs_queries(summary: pd.DataFrame, kinds: dict[str, str], teacher: float | None, title: str) -> Figure:
    """One task and track: mean test accuracy against queries, a band where there is an interval.

    summary: rows of curves.summary for one task, kind of answer and of input. kinds: label -> method.
    Controls and the reference from above are grey, and dotted: they stand in no ranking.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * 0.86), layout="constrained")
        axes = figure.subplots()
        ranked = [label for label in summary["method"].unique() if kinds[label] not in NO_RANK]
        looks = dict(zip(ranked, _looks(len(ranked)), strict=True))
        grey_markers = cycle("x+1234")
        for label in summary["method"].unique():
            colour, dash, marker = looks.get(label) or (NO_RANK[kinds[label]], ":", next(grey_markers))
            rows = summary[summary["method"] == label].sort_values("budget")
            shown = f"{label} (not data-free)" if kinds[label] in NOT_DATA_FREE else label
            axes.plot(rows["budget"], rows["accuracy"], color=colour, linestyle=dash, marker=marker, label=shown)
            if rows["low"].notna().any():
                axes.fill_between(
                    rows["budget"],
                    rows["low"],
                    rows["high"],
                    color=colour,
                    alpha=0.15 if label in looks else 0.08,
                    lw=0,
                )
        if teacher is not None:
            axes.axhline(teacher, color="black", linewidth=0.8, label="teacher")
        _dress(axes, summary["budget"], "queries to the teacher")
        axes.set_title(title, fontsize=8)
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def claimed_and_counted(summary: pd.DataFrame, teacher: float | None, title: str) -> Figure:
    """One task and track, methods that ask about an image more than once: accuracy against the images they made
    (what is claimed) and against the questions they asked (what is counted), hollow and filled."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * 0.86), layout="constrained")
        axes = figure.subplots()
        labels = list(summary["method"].unique())
        for label, (colour, _, marker) in zip(labels, _looks(len(labels)), strict=True):
            rows = summary[summary["method"] == label].sort_values("queries").drop_duplicates("queries")
            if (rows["claimed"] != rows["queries"]).any():
                claimed = f"{label}, queries as claimed"
                axes.plot(
                    rows["claimed"], rows["accuracy"], color=colour, ls="--", marker=marker, mfc="white", label=claimed
                )
            axes.plot(rows["queries"], rows["accuracy"], color=colour, marker=marker, label=f"{label}, queries counted")
        if teacher is not None:
            axes.axhline(teacher, color="black", linewidth=0.8, label="teacher")
        _dress(axes, pd.concat([summary["queries"], summary["claimed"]]), "queries to the teacher")
        axes.set_title(title, fontsize=8)
        figure.legend(loc="outside lower center", ncols=1)
        return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as PNG and PDF beside each other; returns both paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "pdf")]
    for file in written:
        figure.savefig(file, metadata={"CreationDate": None} if file.suffix == ".pdf" else None)
    return written


def _looks(count: int) -> list[tuple[object, object, str]]:
    """A colour, dash and marker for each of so many lines."""
    colours = sns.color_palette("colorblind", count)
    return [(colours[i], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]) for i in range(count)]


def _dress(axes: Axes, queries: pd.Series, label: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if queries.nunique() <= 6:
        axes.set_xticks(sorted(queries.unique()))
    elif queries.max() < 100 * queries.min():
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, 1.02)


def _short(queries: float, _: object = None) -> str:
    """A tick's label; matplotlib hands over its position too."""
    return short(queries)
