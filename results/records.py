"""What a run leaves behind, as types: the run's plan, and for each cell what it is, its points and its end.

Each file holds the number of its schema. A file that is cut short, of another shape, or of a newer schema is told in
one line.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic wants these before Python 3.12
    TypeVar,
)

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

SCHEMA = 3
RANKED, CONTROL, REFERENCE = "ranked", "control", "not data-free"  # the roles
CONTROLS = {"noise"}  # what any method must beat

T = TypeVar("T")
State = Literal["done", "stale", "failed", "running", "started", "stopped", "to do", "cannot run"]
Versions = dict[str, int | str]  # part of the code that decides results -> its number, or the hash of a plugin


class RecordError(ValueError):
    """A file of a run that cannot be understood; the message is one line that names it."""


class NewerSchema(RecordError):
    """A file that a newer version of this package wrote, which is therefore not to be touched."""


@dataclass(frozen=True)
class Machine:
    """Where a cell was computed, and by what. precision: of convolutions and products of matrices."""

    device: str
    threads: int
    precision: str
    bench: str
    commit: str | None
    torch: str


@dataclass(frozen=True)
class CellRecord:
    """cell.json. identity: all that the result depends on besides the code. versions: those of the code."""

    identity: dict[str, Any]
    versions: Versions = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Totals:
    """done.json, and stopped.json of a trial that was given up: what the meter counted over the whole run, the last
    unfinished round included, and what computed it. seconds: of wall time, summed over restarts. steps: updates of the
    student, up to the last round. attempts, charged: requests sent to an endpoint, and the images that it charges for:
    those answered, and those whose answer never came or was none."""

    spent: int
    distinct: int
    rounds: int
    seconds: float
    versions: Versions = field(default_factory=dict)
    machine: Machine | None = None
    steps: int | None = None
    attempts: int | None = None
    charged: int | None = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class Failure:
    """failed.json. spent: what was charged until then."""

    reason: str
    traceback: str | None = None
    spent: int = 0
    schema: int = SCHEMA


class Point(TypedDict):
    """One point of curve.json. What a method shows apart follows, as `accuracy_NAME`.

    steps: updates of the student. fitted: the share of what was asked about on which it agrees with the teacher.
    commonest: the share of the commonest answer there.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    budget: int
    round: int
    spent: int
    distinct: int
    figures: dict[str, float] | None
    accuracy: NotRequired[float]  # an exam of held-out answers knows no true labels
    agreement: NotRequired[float]
    steps: NotRequired[int]
    fitted: NotRequired[float]
    commonest: NotRequired[float]


@dataclass(frozen=True)
class TeacherRecord:
    """What is known of a teacher without loading it: its content hash, accuracy on both held-out splits; None where a
    black box from elsewhere was not asked about the split, or nobody knows its labels."""

    hash: str
    validation_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class BoxNote:
    """A black box from elsewhere, as a report names it.

    what: its file, or its adapter and model. answers: what it reveals at most. asked: images that were sent to examine
    it. charged: images on its bill, of all cells and commands, None where it costs nothing. money: what they cost.
    changes: what was seen of other answers, and when.
    """

    what: str
    version: str
    answers: str
    inputs: str
    asked: int
    charged: int | None
    money: str
    changes: list[str]


@dataclass(frozen=True)
class TaskParts:
    """A task as a report names it. classes: how many, so that chance is known. scaling: of the student's input."""

    dataset: str
    teacher: str
    student: str
    classes: int
    scaling: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """A planned run. method: its label in the grid; kind: its name among the methods.

    budgets: those whose points it gives, the largest being its own, `budget`. cell: its folder's name, None while the
    teacher is untrained. narrower: budget -> the cell that a command with `--budget` may have run in its place, whose
    points are the same. reason: why it cannot run here, or None.
    """

    task: str
    answers: str
    inputs: str
    method: str
    kind: str
    data: str
    protocol: str
    teacher_seed: int
    seed: int
    budget: int
    budgets: list[int]
    config: str
    cell: str | None
    narrower: dict[int, str]
    reason: str | None

    @property
    def role(self) -> str:
        """Ranked, control, or not data-free: only the ranked are compared with each other."""
        if self.data != "none":
            return REFERENCE
        return CONTROL if self.kind in CONTROLS else RANKED


@dataclass(frozen=True)
class Provenance:
    """The command that made a run, without secrets and places, and when and with what it was given."""

    command: str
    bench: str
    commit: str | None
    python: str
    packages: dict[str, str]
    at: str


@dataclass(frozen=True)
class RunRecord:
    """run.json: the grid as planned. id: a random name by which MLflow tells this folder's runs from another's.

    teachers: task -> its teachers by seed, None while one is untrained. versions: kind of method -> those of the code
    that planned it. boxes: task -> its black box, where that is from elsewhere.
    """

    grid: str
    id: str
    definition: dict[str, Any]
    tasks: dict[str, TaskParts]
    teachers: dict[str, dict[int, TeacherRecord | None]]
    provenance: Provenance
    versions: dict[str, Versions]
    entries: list[Entry]
    boxes: dict[str, BoxNote] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def roles(self) -> dict[str, str]:
        """Label -> its role."""
        return {entry.method: entry.role for entry in self.entries}


def read(path: Path, kind: type[T]) -> T:
    """The record in a JSON file; RecordError in one line for what is not one that this version can read."""
    try:
        content = _parsed(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path} is not whole: wanted JSON") from error
    schema = content.get("schema", 1) if isinstance(content, dict) else SCHEMA
    if schema != SCHEMA and not (isinstance(schema, int) and schema < SCHEMA and kind is not RunRecord):
        told = f"{path} has schema {schema!r}, this version reads {SCHEMA}"
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerSchema(f"{told}: a newer bench wrote it")
        raise RecordError(f"{told}: give the command that made it again")
    try:
        content = _spelled(content) if kind is RunRecord else content
        record: T = _adapter(kind).validate_python(content)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise RecordError(f"{path} is no {_name(kind)}: {where}: {first['msg']}") from error
    return record


def plain(record: Any) -> dict[str, Any]:
    """A record as what JSON can hold; of a run the entries as rows below their columns' names, each config once."""
    if not isinstance(record, RunRecord):
        return asdict(record)
    columns = [field.name for field in fields(Entry)]
    configs = list(dict.fromkeys(entry.config for entry in record.entries))
    numbers = {config: number for number, config in enumerate(configs)}
    rows = [[getattr(entry, name) for name in columns] for entry in record.entries]
    for row in rows:
        row[columns.index("config")] = numbers[row[columns.index("config")]]
    return {**asdict(replace(record, entries=[])), "configs": configs, "columns": columns, "entries": rows}


def _parsed(text: bytes) -> Any:
    try:
        return from_json(text)  # which makes equal strings one, of which a large run has millions
    except ValueError:
        return json.loads(text)  # which takes names of files that are no Unicode


def _spelled(content: Any) -> Any:
    """The content of a run with its entries as they come, each with its config; earlier versions wrote them so."""
    if not isinstance(content, dict) or not isinstance(content.get("columns"), list):
        return content
    configs = dict(enumerate(content.pop("configs", None) or ()))
    columns, rows = content.pop("columns"), content.get("entries")
    entries = (dict(zip(columns, row, strict=False)) if isinstance(row, list) else row for row in rows or ())
    return {**content, "entries": (_with_config(entry, configs) for entry in entries)}


def _with_config(entry: Any, configs: dict[int, Any]) -> Any:
    return {**entry, "config": configs.get(entry.get("config", -1))} if isinstance(entry, dict) else entry


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _name(kind: Any) -> str:
    return {RunRecord: "record of a run", CellRecord: "record of a cell"}.get(kind, "record of a cell's end")
