"""What MLflow is to hold of a cell and of a curve: made from the disk alone, so that the same files give the same."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from results import curves
from results.index import Cells
from results.records import Entry, RecordError, Versions
from results.states import States
from results.store import CellState, digest

ENDINGS = {"done": "FINISHED", "stale": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
LONGEST = 500  # characters of a reason


@dataclass(frozen=True)
class Content:
    """One run of MLflow. metrics: (name, value, step). folder: of the cell, if it is one.

    tags: with those that find it again, `bench.shows` and `bench.cell` or `bench.curve`.
    """

    name: str
    tags: dict[str, str]
    metrics: list[tuple[str, float, int]]
    params: dict[str, str]
    status: str = "FINISHED"
    seconds: float = 0.0
    folder: Path | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        return key_of(self.tags)

    @property
    def stamp(self) -> str:
        """A hash of all that would be shown, whatever the folder and its times."""
        return digest(json.dumps({**asdict(self), "folder": None}, sort_keys=True))[:16]


def key_of(tags: dict[str, str]) -> str:
    """What tells a run of MLflow from the others of its experiment, given all its tags."""
    shown = (tags["bench.shows"], tags.get("bench.cell", ""), tags.get("bench.curve", ""))
    return " ".join(filter(None, shown))


class Ended(NamedTuple):
    """A cell that came to an end, before anything but its state was looked at."""

    entry: Entry
    budget: int
    cell: str
    state: CellState


def ended_cells(entries: list[Entry], cells: Cells, versions: Mapping[str, Versions]) -> Iterator[Ended]:
    """Each cell that came to an end; of an entry whose own has no result, also those that ran in its place.

    versions: kind of method -> those by which a result is `stale` or not.
    """
    for entry in entries:
        for budget, cell in sorted({**entry.narrower, entry.budget: entry.cell}.items(), reverse=True):
            state = cells.state(cell, versions.get(entry.kind))
            if cell and state.name in ENDINGS:
                yield Ended(entry, budget, cell, state)
                if state.name == "done":
                    break


def mean_curves(states: States) -> list[Content]:
    """The mean of each task, method, answers and inputs, at step = queries; the run's first comes last."""
    table = curves.summary(curves.points_of(states))
    first = {curve_of(entry): entry for entry in reversed(states.record.entries)}
    found = []
    for key, rows in table.groupby(curves.SETTING, sort=False):
        task, answers, inputs, method = map(str, key)
        name = _curve(task, answers, inputs, method)
        entry = first[name]
        tags = {
            **_facts(entry),
            "protocol": ", ".join(rows["protocol"].unique()),
            "teachers": _range(rows["teachers"]),
            "runs": _range(rows["runs"]),
            "bench.shows": "curve",
        }
        metrics = [
            (figure, float(row[figure]), int(row["budget"]))
            for row in rows.to_dict("records")
            for figure in ("accuracy", "low", "high", "agreement", "optimistic")
            if not math.isnan(row[figure])  # no interval for two seeds
        ]
        found.append(Content(name, tags, metrics, _settings(entry)))
    return found[::-1]


def curve_of(entry: Entry) -> str:
    """The name of the curve that an entry's cell belongs to."""
    return _curve(entry.task, entry.answers, entry.inputs, entry.method)


def _curve(task: str, answers: str, inputs: str, method: str) -> str:
    """METHOD on TASK, ANSWERS; and what is sent, where that is not the usual."""
    return f"{method} on {task}, {answers}" + ("" if inputs == "float" else f", {inputs}")


def cell_of(ended: Ended, cells: Cells) -> Content:
    """What MLflow is to hold of a cell."""
    entry, budget, name, state = ended
    tags = {
        **_facts(entry),
        "protocol": entry.protocol,
        "teacher_seed": str(entry.teacher_seed),
        "seed": str(entry.seed),
        "budget": str(budget),
        "state": state.name,
        "bench.shows": "cell",
        "bench.cell": name,
    }
    metrics: list[tuple[str, float, int]] = []
    try:
        points = [] if state.name == "failed" else cells.points(name)
    except RecordError as error:
        state, points = CellState("failed", reason=str(error)), []
        tags["state"] = "failed"
    for point in {point["spent"]: point for point in points}.values():  # two marks may be met in one round
        names = ("accuracy", "agreement", "distinct", "fitted", "steps")
        figures: dict[str, Any] = {name: point.get(name) for name in names}
        metrics += [(name, value, point["spent"]) for name, value in figures.items() if value is not None]
    if state.totals:
        metrics += [("spent", state.totals.spent, 0), ("seconds", state.totals.seconds, 0)]
    if state.reason:
        tags["reason"] = state.reason[:LONGEST]
    title = f"{entry.method} {entry.task} {budget} {entry.answers} t{entry.teacher_seed} s{entry.seed}"
    seconds = state.totals.seconds if state.totals else 0.0
    return Content(title, tags, metrics, _settings(entry), ENDINGS[state.name], seconds, cells.folder(name))


def _facts(entry: Entry) -> dict[str, str]:
    """What one may filter or group by, of cells and of curves."""
    facts = {name: getattr(entry, name) for name in ("task", "method", "kind", "answers", "inputs", "role")}
    return {**facts, "bench.curve": curve_of(entry)}


def _settings(entry: Entry) -> dict[str, str]:
    return {key: str(value) for key, value in _flat(json.loads(entry.config)).items()}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `outer.inner` keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _range(n: Any) -> str:
    """How many: `3`, or `1 to 3` where points differ."""
    return str(n.min()) if n.min() == n.max() else f"{n.min()} to {n.max()}"
