"""The report of a run: tables and figures from whatever is done, and a word on what is not."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from results import curves, figures
from results.store import read_json, write_bytes


@dataclass(frozen=True)
class Report:
    """summary: curves.summary at the budgets the grid lists. files: all that was written."""

    summary: pd.DataFrame
    cells: pd.DataFrame
    tables: list[Path]
    figures: list[Path]


def write(run: Path) -> Report:
    """Write `tables/` and `figures/` of the run folder anew from the cells on disk."""
    cells, points = curves.cells(run), curves.points(run)
    summary = curves.summary(points[points["listed"].astype(bool)])
    teachers = curves.teacher_accuracies(run)
    tables = {"cells": cells, "points": points, "summary": summary}
    if len(points):
        tables["efficiency"] = curves.efficiency(points, teachers)
    written = [path for name, table in tables.items() for path in _write_table(run / "tables" / name, table)]
    return Report(summary, cells, written, _draw(run, points, teachers))


def _write_table(path: Path, table: pd.DataFrame) -> list[Path]:
    """The table as CSV for people and Parquet for programs."""
    csv, parquet = path.with_suffix(".csv"), path.with_suffix(".parquet")
    write_bytes(csv, table.to_csv(index=False, float_format="%.6g").encode())
    write_bytes(parquet, table.to_parquet(index=False))
    return [csv, parquet]


def _draw(run: Path, points: pd.DataFrame, teachers: dict[str, float]) -> list[Path]:
    kinds = {entry["method"]: entry["kind"] for entry in read_json(run / "run.json")["entries"]}
    drawn: list[Path] = []
    for key, track in points.groupby(["task", "answers", "inputs"], sort=False):
        task, answers, inputs = map(str, key)
        track = track[track["budget"] >= track.loc[track["listed"].astype(bool), "budget"].min()]
        name, title = f"{task}.{answers}.{inputs}", f"{task}, {answers}, {inputs} inputs"
        figure = figures.accuracy_vs_queries(curves.summary(track), kinds, teachers.get(task), title)
        drawn += figures.save(figure, run / "figures" / name)
        asked_again = track[track["claimed"] != track["queries"]]["kind"].unique()
        if len(asked_again):
            same_kind = curves.summary(track[track["kind"].isin(asked_again)])
            figure = figures.claimed_and_counted(same_kind, teachers.get(task), title)
            drawn += figures.save(figure, run / "figures" / f"{name}.claimed")
    return drawn
