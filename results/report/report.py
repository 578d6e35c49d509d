"""The report of a run: a page, tables and figures from whatever is done, and a word on what is not."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from results import aggregate, curves, published
from results.claims import wait_for
from results.curves import Met
from results.records import RunRecord, Versions
from results.report import charts, figures, page, tables
from results.report.style import plain
from results.states import States

PARTS = ("assets", "tables", "figures", "index.html")
ASIDE = ".report"


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

    record: RunRecord
    cells: pd.DataFrame
    points: pd.DataFrame
    curves: pd.DataFrame
    efficiency: pd.DataFrame
    scores: pd.DataFrame
    improvements: pd.DataFrame
    teachers: dict[Met, float]
    roles: dict[str, str]
    published: pd.DataFrame

    @property
    def no_ranking(self) -> str:
        """Why the grid says that nothing is to be ranked, or nothing."""
        return str(self.record.definition.get("no_ranking") or "")


@dataclass(frozen=True)
class _Track:
    """The part of the frames that is about one task, kind of answer and of input, from the first listed budget on.

    teacher: the mean test accuracy of the task's teachers. measure: what its tables and figures call accuracy, which is
    agreement where the images have no labels.
    """

    name: str
    title: str
    frames: _Frames
    points: pd.DataFrame
    curves: pd.DataFrame
    teacher: float | None
    published: pd.DataFrame
    measure: str = "test accuracy"


def write(run: Path, versions: Mapping[str, Versions] | None = None) -> Report:
    """Make `index.html`, `assets/`, `tables/` and `figures/` of the run folder anew from the cells on disk.

    versions: kind of method -> the result versions of the code that is here now (results.states). All is made
    aside and then put in the place of the old report, which stays whole if that is interrupted.
    """
    with wait_for(run):
        aside = run / ASIDE
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        try:
            made = _make(aside / "new", _frames(run, versions), run.parent / "cells")
            _swap(aside, run)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    here = partial(_moved, aside / "new", run)
    return replace(made, page=here(made.page), tables=[*map(here, made.tables)], figures=[*map(here, made.figures)])


def _make(folder: Path, frames: _Frames, store: Path) -> Report:
    """The whole report in a fresh folder. store: of the cells."""
    tracks = list(_tracks(frames))
    summary = _listed(frames.curves)
    files = {"cells": frames.cells, "points": frames.points, "summary": summary}
    if len(frames.points):
        files |= {"efficiency": frames.efficiency, "scores": frames.scores, "improvements": frames.improvements}
    (folder / "tables").mkdir(parents=True)
    written = [path for name, frame in files.items() for path in write_frame(folder / "tables" / name, frame)]
    written += _write_latex(folder / "tables", frames, tracks)
    drawn = [path for track in tracks for path in _draw(folder / "figures", track)]
    shown = [_shown(folder, store, track) for track in tracks]
    index = page.write(folder, frames.record, frames.cells, shown, _below(frames))
    return Report(summary, frames.cells, index, written, drawn)


def _swap(aside: Path, run: Path) -> None:
    """Put the parts of aside/new in the place of the run's; the old ones come back if anything interrupts that."""
    new, old = aside / "new", aside / "old"
    old.mkdir()
    try:
        for source, target in ((run, old), (new, run)):
            for name in PARTS:
                if (source / name).exists():
                    (source / name).rename(target / name)
    except BaseException:
        for name in PARTS:
            if (old / name).exists():
                if (run / name).exists():
                    (run / name).rename(new / name)
                (old / name).rename(run / name)
        raise


def _moved(old: Path, new: Path, path: Path) -> Path:
    return new / path.relative_to(old)


def _frames(run: Path, versions: Mapping[str, Versions] | None) -> _Frames:
    with States(run, versions) as states:
        points, cells = curves.points_of(states), curves.cells_of(states)
        record = replace(states.record, entries=[])  # which are in the frames
        teachers, roles = curves.teacher_accuracies(record), states.record.roles
    del states
    compared = list(aggregate.comparisons(points, teachers, record.tasks, roles))
    return _Frames(
        record,
        cells,
        points,
        curves.summary(points),
        curves.efficiency(points, teachers, roles),
        aggregate.scores(compared, roles),
        aggregate.improvements(compared, roles),
        teachers,
        roles,
        published.load(),
    )


def _tracks(frames: _Frames) -> Iterator[_Track]:
    for key, points in frames.points.groupby(["task", "answers", "inputs"], sort=False):
        task, answers, inputs = map(str, key)
        points = points[points["budget"] >= points.loc[points["listed"], "budget"].min()]
        summary = _of(frames.curves, points)
        measure = "test accuracy"
        if points["accuracy"].isna().all():
            points, summary, measure = *map(_agreement_alone, (points, summary)), "agreement with the black box"
        yield _Track(
            f"{task}.{answers}.{inputs}",
            f"{task}, {answers}, {inputs} inputs",
            frames,
            points,
            summary[summary["budget"] >= points["budget"].min()],
            _mean([accuracy for (of, _), accuracy in frames.teachers.items() if of == task]),
            published.matching(frames.published, asdict(frames.record.tasks[task]), points),
            measure,
        )


def _agreement_alone(frame: pd.DataFrame) -> pd.DataFrame:
    """Points, or means of points, with agreement in the place of an accuracy that nobody knows."""
    places = {"accuracy": "agreement", "spread": "agreement_spread", "low": "agreement_low", "high": "agreement_high"}
    return frame.assign(**{place: frame[of] for place, of in places.items() if of in frame})


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _listed(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows at budgets that the grid lists."""
    return summary[summary["listed"]].drop(columns="listed")


def _of(frame: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame that are about the same task, answers and inputs as the points."""
    axes = ["task", "answers", "inputs"]
    return frame[(frame[axes] == points[axes].iloc[0]).all(axis=1)]


def write_frame(path: Path, frame: pd.DataFrame) -> list[Path]:
    """The frame as CSV for people and Parquet for programs; returns both paths."""
    csv, parquet = path.with_suffix(".csv"), path.with_suffix(".parquet")
    frame.to_csv(csv, index=False, float_format="%.6f")
    frame.to_parquet(parquet, index=False)
    return [csv, parquet]


def _write_latex(folder: Path, frames: _Frames, tracks: list[_Track]) -> list[Path]:
    papers = {track.name: _accuracy(track) for track in tracks}
    papers |= {plain(heading): table for heading, table in _over_tasks(frames).items()}
    for name, table in papers.items():
        (folder / f"{name}.tex").write_text(tables.latex(table, f"tab:{name}"), "utf-8")
    return [folder / f"{name}.tex" for name in papers]


def _accuracy(track: _Track) -> tables.Table:
    frames = track.frames
    return tables.accuracy(
        _listed(track.curves), track.points, frames.roles, track.title, frames.no_ranking, track.measure
    )


def _draw(folder: Path, track: _Track) -> list[Path]:
    roles = track.frames.roles
    figure = figures.accuracy_vs_queries(
        track.curves, roles, track.teacher, track.title, track.published, track.measure
    )
    drawn = figures.save(figure, folder / track.name)
    asked_again = track.points[track.points["claimed"] != track.points["queries"]]["kind"]
    if len(asked_again):
        labels = track.points[track.points["kind"].isin(asked_again)]["method"]
        same_kind = track.curves[track.curves["method"].isin(labels)]
        figure = figures.claimed_and_counted(same_kind, roles, track.teacher, track.title, track.measure)
        drawn += figures.save(figure, folder / f"{track.name}.claimed")
    return drawn


def _shown(folder: Path, store: Path, track: _Track) -> page.Track:
    frames = track.frames
    chart = charts.accuracy_vs_queries(_of(frames.curves, track.points), frames.roles, track.teacher, track.published)
    cells = _of(frames.cells, track.points)
    shown = [
        _accuracy(track),
        tables.spreads(_listed(track.curves), frames.roles),
        tables.cost(_of(frames.efficiency, track.points), cells, frames.roles),
        tables.parts(_listed(track.curves)),
    ]
    strips = page.samples(folder, store, cells)
    return page.Track(track.title, _harmless(chart.to_json()), [table for table in shown if table], strips)


def _harmless(json: str) -> str:
    """JSON that may stand in a page: no label can end the script it stands in."""
    return json.replace("<", "\\u003c")


def _over_tasks(frames: _Frames) -> dict[str, tables.Table]:
    """For each pair of tracks' answers and inputs, the two comparisons over tasks."""
    shown = {}
    for (answers, inputs), scores in frames.scores.groupby(["answers", "inputs"], sort=False):
        shown[f"Over tasks, {answers}, {inputs} inputs"] = tables.scores(scores, frames.no_ranking)
        pairs = frames.improvements
        pairs = pairs[(pairs["answers"] == answers) & (pairs["inputs"] == inputs)]
        if len(pairs):
            heading = f"Probability of improvement, {answers}, {inputs} inputs"
            shown[heading] = tables.improvements(pairs, frames.no_ranking)
    return shown


def _below(frames: _Frames) -> dict[str, tables.Table]:
    """The tables below the tracks, by their headings."""
    datasets = {parts.dataset for parts in frames.record.tasks.values()}
    rest = {
        "Runs without a result": tables.lacking(frames.cells),
        "Published numbers": tables.published(frames.published[frames.published["dataset"].isin(datasets)]),
    }
    return _over_tasks(frames) | {heading: table for heading, table in rest.items() if table}
