"""Charts for the page: accuracy or agreement against queries, one for each task and track."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from results.looks import RANKED, looks, named
from results.text import short

MEASURES = {  # name on the button -> column, prefix of its interval's columns
    "accuracy": ("accuracy", ""),
    "agreement": ("agreement", "agreement_"),
    "optimistic": ("optimistic", "optimistic_"),
}


def accuracy_vs_queries(
    summary: pd.DataFrame, roles: dict[str, str], teacher: float | None, published: pd.DataFrame
) -> go.Figure:
    """One task and track, with buttons for the measure and for the scale of queries.

    summary: rows of curves.summary. published: rows of published.matching, drawn hollow.
    """
    traces, shown = [], {name: [] for name in MEASURES}  # type: tuple[list[Any], dict[str, list[dict[str, Any]]]]

    def add(trace: Any, **changes: Any) -> None:
        """A trace, and what each measure changes in it."""
        traces.append(trace)
        for name in MEASURES:
            shown[name].append({"visible": True, "y": trace.y, "text": trace.text, **changes.get(name, {})})

    hidden = {"agreement": {"visible": False}}  # papers and teachers have an accuracy alone
    look_of = looks(roles)
    for label in summary["method"].unique():
        rows, look = summary[summary["method"] == label].sort_values("budget"), look_of[label]
        name = named(label, roles[label])
        line = {"color": look.colour, "dash": look.plotly_dash, "width": 2}
        marker = {"symbol": look.plotly_marker, "size": 7, "line": {"color": look.colour, "width": 1}}
        curves = {measure: {"y": _rounded(rows[column]), "text": _hover(rows, column, prefix)}
                  for measure, (column, prefix) in MEASURES.items()}
        add(
            go.Scatter(x=rows["budget"].tolist(), name=name, legendgroup=name, line=line, marker=marker,
                       mode="lines+markers", hovertemplate="%{text}", **curves["accuracy"]),
            **curves,
        )
        bands = {measure: {"y": _outline(rows, prefix)} for measure, (_, prefix) in MEASURES.items()}
        if rows["low"].notna().any():
            around = rows[rows["low"].notna()]["budget"].tolist()
            add(
                go.Scatter(x=around + around[::-1], legendgroup=name, showlegend=False, hoverinfo="skip", fill="toself",
                           mode="lines", line={"width": 0}, fillcolor=_clear(look.colour, roles[label]),
                           **bands["accuracy"]),
                **bands,
            )
    for row in published.to_dict("records"):
        add(_published(row, look_of[row["label"]].colour if row["label"] in look_of else "#8a8a8a"), **hidden)
    if len(published):
        traces[-1].showlegend = True
    if teacher is not None:
        ends = [summary["budget"].min(), summary["budget"].max()]
        add(go.Scatter(x=ends, y=[teacher] * 2, name="teacher", mode="lines", line={"color": "#8a8a8a", "width": 1},
                       hovertemplate="teacher: %{y:.1%}<extra></extra>"), **hidden)
    queries = pd.concat([summary["budget"], published["claimed"], published["recount"].dropna()])
    return go.Figure(traces, _layout(queries, shown, lines=summary["method"].nunique()))


def _layout(queries: pd.Series, shown: dict[str, list[dict[str, Any]]], lines: int) -> dict[str, Any]:
    tried = sorted(queries.unique())
    decades = queries.max() / queries.min() > 1000
    ticks = tried if len(tried) <= 6 else [10**power * step for power in range(9) for step in ((1,) if decades else (1, 2, 5))]
    switches = [_button(name, "restyle", _by_trace(changes)) for name, changes in shown.items()]
    scales = [_button(f"{scale} queries", "relayout", {"xaxis.type": scale, "xaxis.autorange": True}) for scale in ("log", "linear")]
    return {
        "template": "none",
        "height": 500 + 4 * lines,
        "margin": {"l": 48, "r": 8, "t": 84, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "xaxis": {"type": "log", "title": {"text": "queries to the teacher", "font": {"size": 13}}, "zeroline": False, "automargin": True,
                  "tickvals": ticks, "ticktext": [short(tick) for tick in ticks]},
        "yaxis": {"range": [0, 1.02], "tickformat": ".0%", "zeroline": False},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "maxheight": 0.65,
                   "font": {"size": 12}},
        "updatemenus": [_menu(switches, above=44), _menu(scales, above=8)],
    }


def _menu(buttons: list[dict[str, Any]], above: int) -> dict[str, Any]:
    """A row of buttons, so many pixels above the plot."""
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": above}}
    return {"type": "buttons", "direction": "right", "buttons": buttons, "showactive": True, **place}


def _button(name: str, method: str, change: dict[str, Any]) -> dict[str, Any]:
    return {"label": name, "method": method, "args": [change]}


def _by_trace(changes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [change[key] for change in changes] for key in ("visible", "y", "text")}


def _published(row: dict[str, Any], colour: str) -> Any:
    at = [queries for queries in (row["claimed"], row["recount"]) if not pd.isna(queries)]
    source = f"{row['method']}: {row['value']:g} %, published<br>{row['paper']}, {row['table']}"
    counted = [f"claimed: {at[0]:,.0f} {row['unit']}", *(f"recount: {queries:,.0f} calls" for queries in at[1:])]
    return go.Scatter(
        x=at, y=[row["value"] / 100] * len(at), mode="lines+markers", name="published: claimed, recounted",
        legendgroup="published", showlegend=False, line={"color": colour, "width": 1}, opacity=0.9,
        marker={"symbol": "circle-open", "size": 9, "color": colour},
        text=[f"{source}<br>{count}<br>selection: {row['selection']}" for count in counted],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(rows: pd.DataFrame, column: str, prefix: str) -> list[str]:
    return [
        f"{100 * row[column]:.1f} %"
        + ("" if pd.isna(row[f"{prefix}spread"]) else f" ± {100 * row[f'{prefix}spread']:.1f}")
        + f", n = {row['n']}<br>{row['budget']:,} queries, {row['queries']:,.0f} spent"
        for row in rows.to_dict("records")
    ]


def _outline(rows: pd.DataFrame, prefix: str) -> list[float]:
    """The band as one closed line: along its upper edge and back along the lower."""
    with_band = rows[rows["low"].notna()]
    return _rounded(with_band[f"{prefix}high"]) + _rounded(with_band[f"{prefix}low"])[::-1]


def _rounded(values: pd.Series) -> list[float]:
    return [round(float(value), 4) for value in values]


def _clear(colour: str, role: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{0.15 if role == RANKED else 0.1})"
