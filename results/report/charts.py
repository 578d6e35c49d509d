"""Charts for the page: accuracy or agreement against queries, one for each task and track."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from results.records import CONTROL
from results.report.style import GREYS, Look, looks, named, short

MEASURES = {  # name on the button -> column, prefix of the columns of its spread and interval
    "accuracy": ("accuracy", ""),
    "agreement": ("agreement", "agreement_"),
    "optimistic": ("optimistic", "optimistic_"),
}
GREY = GREYS[CONTROL]


@dataclass(frozen=True)
class _Trace:
    """What is drawn once. line: what plotly draws. shown: measure -> its y and text, or that it is hidden."""

    line: dict[str, Any]
    shown: dict[str, dict[str, Any]]


def accuracy_vs_queries(
    summary: pd.DataFrame, roles: dict[str, str], teacher: float | None, published: pd.DataFrame
) -> go.Figure:
    """One task and track, with buttons for the measure and for the scale of queries.

    summary: rows of curves.summary. published: rows of published.matching, drawn hollow.
    """
    look_of = looks(roles)
    groups = {str(label): rows.sort_values("budget") for label, rows in summary.groupby("method", sort=False)}
    clear = 0.15 if len(groups) <= 6 else 0.06  # a dozen bands on top of each other would hide what they are about
    traces = [_band(rows, label, look_of[label].colour, clear) for label, rows in groups.items()]
    traces += [_curve(rows, label, look_of[label], roles[label]) for label, rows in groups.items()]
    colours = {label: look.colour for label, look in look_of.items()}
    marks = [_published(row, colours.get(row["label"], GREY)) for row in published.to_dict("records")]
    traces += [*marks, *([_published_legend()] if marks else [])]
    if teacher is not None:
        traces.append(_teacher(summary["budget"], teacher))
    queries = pd.concat([summary["budget"], published["claimed"], published["recount"].dropna()])
    measures = [name for name, (column, _) in MEASURES.items() if summary[column].notna().any()]
    lines = [go.Scatter(**trace.line, **trace.shown[(measures or ["accuracy"])[0]]) for trace in traces]
    return go.Figure(lines, _layout(queries, traces, measures))


def _curve(rows: pd.DataFrame, label: str, look: Look, role: str) -> _Trace:
    """Means over seeds, with a word on each for whoever points at it."""
    line = {
        "x": rows["budget"].tolist(),
        "name": named(label, role),
        "legendgroup": label,
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.plotly_dash, "width": 2},
        "marker": {"symbol": look.plotly_marker, "size": 7, "line": {"color": look.colour, "width": 1}},
        "hovertemplate": "%{text}",
    }
    return _Trace(line, {name: _means(rows, *columns) for name, columns in MEASURES.items()})


def _means(rows: pd.DataFrame, column: str, prefix: str) -> dict[str, Any]:
    told = [_told(row, column, prefix) for row in rows.to_dict("records")]
    return {"y": _rounded(rows[column]), "text": told, "visible": True}


def _told(row: dict[Any, Any], column: str, prefix: str) -> str:
    if pd.isna(row[column]):
        return "-"
    spread = row[f"{prefix}spread"]
    mean = f"{100 * row[column]:.1f} %" + ("" if pd.isna(spread) else f" ± {100 * spread:.1f}")
    told = f"{mean}, n = {row['n']}<br>{row['budget']:,} queries, {row['queries']:,.0f} spent"
    if pd.isna(row["fitted"]):
        return told
    share, commonest = (f"{100 * row[name]:.0f} %" for name in ("fitted", "commonest"))
    told += f"<br>{row['steps']:,} steps; right about {share} of what was asked, the commonest answer about {commonest}"
    return told + ("<br><b>‡ did not learn its labels</b>" if row["unlearnt"] else "")


def _band(rows: pd.DataFrame, label: str, colour: str, clear: float) -> _Trace:
    """The intervals as one closed line: along the upper edge and back along the lower; empty where there are none."""
    rows = rows[rows["low"].notna()]
    budgets = rows["budget"].tolist()
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    line = {
        "x": budgets + budgets[::-1],
        "legendgroup": label,
        "showlegend": False,
        "hoverinfo": "skip",
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{clear})",
    }
    return _Trace(line, {name: _seen(_outline(rows, prefix)) for name, (_, prefix) in MEASURES.items()})


def _outline(rows: pd.DataFrame, prefix: str) -> list[float | None]:
    return _rounded(rows[f"{prefix}high"]) + _rounded(rows[f"{prefix}low"])[::-1]


def _published(row: dict[Any, Any], colour: str) -> _Trace:
    """A hollow mark where a paper claims its number, and a second at what its code asks for it, joined by a line."""
    at = [queries for queries in (row["claimed"], row["recount"]) if not pd.isna(queries)]
    counted = [f"claimed: {at[0]:,.0f} {row['unit']}", *(f"recount: {queries:,.0f} calls" for queries in at[1:])]
    source = f"{row['method']}: {row['value']:g} %, published<br>{row['paper']}, {row['table']}"
    line = {
        "x": at,
        "legendgroup": "published",
        "showlegend": False,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1},
        "marker": {"symbol": "circle-open", "size": 9, "color": colour},
        "hovertemplate": "%{text}<extra></extra>",
    }
    text = [f"{source}<br>{count}<br>selection: {row['selection']}" for count in counted]
    return _Trace(line, _of_accuracy([row["value"] / 100] * len(at), text))


def _published_legend() -> _Trace:
    """One entry of the legend for all published numbers; a click on it hides them."""
    line = {
        "x": [None],
        "name": "published: claimed, recounted",
        "legendgroup": "published",
        "mode": "lines+markers",
        "line": {"color": GREY, "width": 1},
        "marker": {"symbol": "circle-open", "size": 9, "color": GREY},
    }
    return _Trace(line, _of_accuracy([None], None))


def _teacher(budgets: pd.Series, accuracy: float) -> _Trace:
    line = {
        "x": [budgets.min(), budgets.max()],
        "name": "teacher",
        "mode": "lines",
        "line": {"color": GREY, "width": 1},
        "hovertemplate": "teacher: %{y:.1%}<extra></extra>",
    }
    return _Trace(line, _of_accuracy([accuracy] * 2, None))


def _of_accuracy(y: list[Any], text: list[str] | None) -> dict[str, dict[str, Any]]:
    """Shown whatever the measure, but for agreement: papers and teachers have none here."""
    return {name: {**_seen(y), "text": text, "visible": name != "agreement"} for name in MEASURES}


def _seen(y: list[Any]) -> dict[str, Any]:
    return {"y": y, "text": None, "visible": True}


def _layout(queries: "pd.Series[Any]", traces: list[_Trace], measures: list[str]) -> dict[str, Any]:
    switches = [_button(name, "restyle", _switch(traces, name)) for name in measures]
    scales = [_button(f"{scale} queries", "relayout", {"xaxis.type": scale}) for scale in ("log", "linear")]
    return {
        "template": "none",
        "height": 500 + 2 * len(traces),  # the legend takes its share
        "margin": {"l": 48, "r": 8, "t": 84, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "xaxis": _axis(queries),
        "yaxis": {"range": [0, 1.02], "tickformat": ".0%", "zeroline": False},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "maxheight": 0.65,
            "font": {"size": 12},
        },
        "updatemenus": [_menu(switches, above=44), _menu(scales, above=8)],
    }


def _axis(queries: "pd.Series[Any]") -> dict[str, Any]:
    ticks = _ticks(queries)
    return {
        "type": "log",
        "title": {"text": "queries to the teacher", "font": {"size": 13}},
        "zeroline": False,
        "automargin": True,
        "tickvals": ticks,
        "ticktext": [short(tick) for tick in ticks],
    }


def _ticks(queries: "pd.Series[Any]") -> list[float]:
    """The queries themselves where they are few, else powers of ten, with 2 and 5 between where there is room."""
    if queries.nunique() <= 6:
        return sorted(queries.unique())
    steps = (1,) if queries.max() > 1000 * queries.min() else (1, 2, 5)
    return [step * 10**power for power in range(9) for step in steps]


def _menu(buttons: list[dict[str, Any]], above: int) -> dict[str, Any]:
    """A row of buttons, so many pixels above the plot."""
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": above}}
    return {"type": "buttons", "direction": "right", "buttons": buttons, "showactive": True, **place}


def _button(name: str, method: str, change: dict[str, Any]) -> dict[str, Any]:
    return {"label": name, "method": method, "args": [change]}


def _switch(traces: list[_Trace], measure: str) -> dict[str, list[Any]]:
    return {key: [trace.shown[measure][key] for trace in traces] for key in ("visible", "y", "text")}


def _rounded(values: "pd.Series[Any]") -> list[float | None]:
    """None for what there is not: JSON has no NaN."""
    return [None if pd.isna(value) else round(float(value), 4) for value in values]
