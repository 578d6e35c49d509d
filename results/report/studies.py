"""Figures of a search for settings, at the width of a paper's column."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from results.report.figures import STYLE, WIDTH, save
from results.report.style import short

COLOUR = sns.color_palette("colorblind")[0]
REST = "0.55"


def draw(
    folder: Path,
    trials: pd.DataFrame,
    figure: str,
    settings: list[str],
    importances: dict[str, float],
    against: list[str],
) -> list[Path]:
    """Draw what a study's table of trials shows, PNG and PDF; returns the paths.

    trials: columns trial, state, the figure, `against`, and one a setting. importances: setting -> share.
    """
    complete = trials[trials["state"] == "complete"]
    with mpl.rc_context(STYLE):
        drawn = {"history": history(trials, figure), "parallel": parallel(complete, figure, settings)}
        if importances:
            drawn["importance"] = importance(importances, figure)
        if "queries" in against:
            drawn["front"] = front(complete, figure)
        return [path for name, canvas in drawn.items() for path in save(canvas, folder / name)]


def history(trials: pd.DataFrame, figure: str) -> Figure:
    """Each trial's figure, pruned ones as crosses, and the best so far."""
    canvas, axes = _canvas(0.7)
    complete, pruned = (trials[trials["state"] == state] for state in ("complete", "pruned"))
    axes.plot(complete["trial"], complete[figure], "o", color=COLOUR, label="trial")
    if len(pruned):
        axes.plot(pruned["trial"], pruned[figure], "x", color=REST, label="pruned, at its last point")
    axes.step(complete["trial"], complete[figure].cummax(), where="post", color="black", lw=1, label="best so far")
    axes.set(xlabel="trial (0: the settings it starts from)", ylabel=figure)
    axes.set_ylim(bottom=0)
    canvas.legend(loc="outside lower center", ncols=3)
    return canvas


def importance(importances: dict[str, float], figure: str) -> Figure:
    """The share of the figure's variance over the trials that each setting explains."""
    shares = pd.Series(importances).sort_values()
    canvas, axes = _canvas(0.25 + 0.07 * len(shares))
    axes.barh(list(shares.index), shares.to_numpy(), color=COLOUR)
    axes.set_xlabel(f"importance for {figure} (fANOVA)")
    axes.grid(axis="y", visible=False)
    return canvas


def parallel(complete: pd.DataFrame, figure: str, settings: list[str]) -> Figure:
    """Each trial as a line through its settings, the better the darker; an axis runs from the least to the most."""
    canvas, axes = _canvas(1.0)
    places = {setting: _places(complete[setting]) for setting in settings}
    ranks = complete[figure].rank(pct=True)
    colours = sns.color_palette("rocket_r", as_cmap=True)
    for index in complete[figure].sort_values().index:
        line = [places[setting][index] for setting in settings]
        axes.plot(range(len(settings)), line, color=colours(0.1 + 0.85 * ranks[index]), lw=0.4 + 1.2 * ranks[index])
    for at, setting in enumerate(settings):
        _ends(axes, at, complete[setting])
    axes.set_xticks(range(len(settings)), settings, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.set_title(f"darker: higher {figure}", fontsize=7)
    return canvas


def front(complete: pd.DataFrame, figure: str) -> Figure:
    """The figure against queries, and the trials that no other beats in both."""
    canvas, axes = _canvas(0.75)
    axes.plot(complete["queries"], complete[figure], "o", color=REST, label="trial")
    ordered = complete.sort_values(["queries", figure], ascending=[True, False])
    best = ordered[ordered[figure] > ordered[figure].cummax().shift(fill_value=-np.inf)]
    axes.step(best["queries"], best[figure], where="post", marker="o", color=COLOUR, label="front")
    axes.set(xlabel="queries to the teacher", ylabel=figure, xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda queries, _: short(queries)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    canvas.legend(loc="outside lower center", ncols=2)
    return canvas


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of one column's width and that share of it in height."""
    canvas = Figure(figsize=(WIDTH, WIDTH * height), layout="constrained")
    return canvas, canvas.subplots()


def _places(values: pd.Series) -> pd.Series:
    """Where each value stands between the least, 0, and the most, 1: by logarithm where they span a factor of 20."""
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        values = values.astype(str).rank(method="dense")
    elif values.min() > 0 and values.max() > 20 * values.min():
        values = values.astype(float).map(np.log)
    span = float(values.max() - values.min())
    return (values - values.min()) / span if span else values * 0.0 + 0.5


def _ends(axes: Axes, at: int, values: pd.Series) -> None:
    """Write the least and the most value at the ends of an axis."""
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    ordered = values if numeric else values.astype(str)
    axes.axvline(at, color="0.8", lw=0.5, zorder=0)
    for place, value in ((-0.03, ordered.min()), (1.03, ordered.max())):
        text = f"{value:.3g}" if numeric else str(value)
        axes.text(at, place, text, fontsize=5, ha="center", va="top" if place < 0 else "bottom")
