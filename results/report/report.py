"""The report of a run: a page, tables and figures from whatever is done, and a word on what is not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import aggregate, curves, published
from results.records import RunRecord, Versions, plain, read
from results.report import charts, figures, page, tables
from results.store import write_bytes


@dataclass(frozen=True)
class Report:
    """summary: curves.summary at the listed budgets. page: index.html. tables, figures: all that was written."""

    summary: pd.DataFrame
    cells: pd.DataFrame
    page: Path
    tables: list[Path]
    figures: list[Path]


@dataclass(frozen=True)
class _Frames:
    """All that the report of a run is made of. curves: curves.summary of all points, with `listed`."""

    plan: dict[str, Any]
    cells: pd.DataFrame
    points: pd.DataFrame
    curves: pd.DataFrame
    efficiency: pd.DataFrame
    shares: pd.DataFrame
    improvements: pd.DataFrame
    teachers: dict[str, float]
    roles: dict[str, str]
    published: pd.DataFrame


@dataclass(frozen=True)
class _Track:
    """The part of the frames that is about one task, kind of answer and of input, from the first listed budget on."""

    name: str
    title: str
    frames: _Frames
    points: pd.DataFrame
    curves: pd.DataFrame
    teacher: float | None
    published: pd.DataFrame


def write(run: Path, versions: Mapping[str, Versions] | None = None) -> Report:
    """Write `index.html`, `tables/` and `figures/` of the run folder anew from the cells on disk.

    versions: kind of method -> the result versions of the code that is here now (results.curves.cells).
    """
    frames = _frames(run, versions)
    tracks = list(_tracks(frames))
    summary = _listed(frames.curves)
    files = {"cells": frames.cells, "points": frames.points, "summary": summary}
    if len(frames.points):
        files |= {"efficiency": frames.efficiency, "shares": frames.shares, "improvements": frames.improvements}
    written = [path for name, frame in files.items() for path in _write_frame(run / "tables" / name, frame)]
    written += _write_latex(run / "tables", frames, tracks)
    drawn = [path for track in tracks for path in _draw(run / "figures", track)]
    index = page.write(run, frames.plan, frames.cells, [_shown(run, track) for track in tracks], _below(frames))
    return Report(summary, frames.cells, index, written, drawn)


def _frames(run: Path, versions: Mapping[str, Versions] | None) -> _Frames:
    record = read(run / "run.json", RunRecord)
    plan = plain(record)
    points = curves.points(run, versions)
    teachers, roles = curves.teacher_accuracies(run), record.roles
    datasets = {task: parts["dataset"] for task, parts in plan.get("tasks", {}).items()}
    compared = list(aggregate.comparisons(points, teachers, datasets, roles))
    generator = np.random.default_rng(0)
    return _Frames(
        plan,
        curves.cells(run, versions),
        points,
        curves.summary(points),
        curves.efficiency(points, teachers),
        aggregate.shares(compared, roles, generator),
        aggregate.improvements(compared, roles, generator),
        teachers,
        roles,
        published.load(),
    )


def _tracks(frames: _Frames) -> Iterator[_Track]:
    for key, points in frames.points.groupby(["task", "answers", "inputs"], sort=False):
        task, answers, inputs = map(str, key)
        points = points[points["budget"] >= points.loc[points["listed"], "budget"].min()]
        summary = _of(frames.curves, points)
        yield _Track(
            f"{task}.{answers}.{inputs}",
            f"{task}, {answers}, {inputs} inputs",
            frames,
            points,
            summary[summary["budget"] >= points["budget"].min()],
            frames.teachers.get(task),
            published.matching(frames.published, frames.plan.get("tasks", {}).get(task), points),
        )


def _listed(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows at budgets that the grid lists."""
    return summary[summary["listed"]].drop(columns="listed")


def _of(frame: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame that are about the same task, answers and inputs as the points."""
    axes = ["task", "answers", "inputs"]
    return frame[(frame[axes] == points[axes].iloc[0]).all(axis=1)]


def _write_frame(path: Path, frame: pd.DataFrame) -> list[Path]:
    """The frame as CSV for people and Parquet for programs."""
    csv, parquet = path.with_suffix(".csv"), path.with_suffix(".parquet")
    write_bytes(csv, frame.to_csv(index=False, float_format="%.6g").encode())
    write_bytes(parquet, frame.to_parquet(index=False))
    return [csv, parquet]


def _write_latex(folder: Path, frames: _Frames, tracks: list[_Track]) -> list[Path]:
    papers = {track.name: tables.accuracy(_listed(track.curves), frames.roles, track.title) for track in tracks}
    papers |= {page.plain(heading): table for heading, table in _over_tasks(frames).items()}
    for name, table in papers.items():
        write_bytes(folder / f"{name}.tex", tables.latex(table, f"tab:{name}").encode())
    return [folder / f"{name}.tex" for name in papers]


def _draw(folder: Path, track: _Track) -> list[Path]:
    roles = track.frames.roles
    figure = figures.accuracy_vs_queries(track.curves, roles, track.teacher, track.title, track.published)
    drawn = figures.save(figure, folder / track.name)
    asked_again = track.points[track.points["claimed"] != track.points["queries"]]["kind"]
    if len(asked_again):
        labels = track.points[track.points["kind"].isin(asked_again)]["method"]
        same_kind = track.curves[track.curves["method"].isin(labels)]
        figure = figures.claimed_and_counted(same_kind, roles, track.teacher, track.title)
        drawn += figures.save(figure, folder / f"{track.name}.claimed")
    return drawn


def _shown(run: Path, track: _Track) -> page.Track:
    frames = track.frames
    chart = charts.accuracy_vs_queries(track.curves, frames.roles, track.teacher, track.published)
    cells = _of(frames.cells, track.points)
    shown = [
        tables.accuracy(_listed(track.curves), frames.roles, track.title),
        tables.cost(_of(frames.efficiency, track.points), cells, frames.roles),
        tables.parts(_listed(track.curves)),
    ]
    return page.Track(
        track.title, _harmless(chart.to_json()), [table for table in shown if table], page.samples(run, cells)
    )


def _harmless(json: str) -> str:
    """JSON that may stand in a page: no label can end the script it stands in."""
    return json.replace("<", "\\u003c")


def _over_tasks(frames: _Frames) -> dict[str, tables.Table]:
    """For each pair of tracks' answers and inputs, the two comparisons over tasks."""
    shown = {}
    for (answers, inputs), shares in frames.shares.groupby(["answers", "inputs"], sort=False):
        shown[f"Over tasks, {answers}, {inputs} inputs"] = tables.shares(shares)
        pairs = frames.improvements
        pairs = pairs[(pairs["answers"] == answers) & (pairs["inputs"] == inputs)]
        if len(pairs):
            shown[f"Probability of improvement, {answers}, {inputs} inputs"] = tables.improvements(pairs)
    return shown


def _below(frames: _Frames) -> dict[str, tables.Table]:
    """The tables below the tracks, by their headings."""
    datasets = {parts["dataset"] for parts in frames.plan.get("tasks", {}).values()}
    rest = {
        "Runs without a result": tables.lacking(frames.cells),
        "Published numbers": tables.published(frames.published[frames.published["dataset"].isin(datasets)]),
    }
    return _over_tasks(frames) | {heading: table for heading, table in rest.items() if table}
