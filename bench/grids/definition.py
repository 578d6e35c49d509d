"""A grid: a YAML file that names tasks, methods, budgets and seeds, and the plan of cells it stands for."""

import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from bench.boxes import teachers
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import MARKS, is_done
from bench.errors import UsageError, unknown
from bench.tasks.data import sources
from bench.tasks.table import Task, task_of
from budgets import Answers, Budget, BudgetError, Inputs, parse_queries
from methods import METHODS
from results.records import TeacherRecord

SHIPPED = Path(__file__).with_name("shipped")
BOUNDS = {"": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
AXES = ("task", "dataset", "method", "budget", "answers", "inputs", "seed")


class Entry(BaseModel, frozen=True, extra="forbid"):
    """A named way to run a method. method: the name in METHODS, if the entry's own name is another.

    answers: the tracks it enters, if not all that the grid has and the method can use. config: settings; in
    a file also the path of a YAML that bench tune wrote, relative to the grid's.
    tasks: globs of the tasks or data sets it enters. where: such a glob -> settings that go before `config` there.
    """

    method: str = ""
    config: dict[str, Any] = {}
    answers: list[Answers] = list(get_args(Answers))
    tasks: list[str] = ["*"]
    where: dict[str, dict[str, Any]] = {}


class Grid(BaseModel, frozen=True, extra="forbid"):
    """The file as written: every method meets every task, budget, input kind and seed, and the answers it can use."""

    description: str
    tasks: list[str] = Field(min_length=1)
    methods: dict[str, Entry] = Field(min_length=1)
    budgets: list[int] = Field(min_length=1)
    answers: list[Answers] = list(get_args(Answers))
    inputs: list[Inputs] = ["float"]
    seeds: list[int] = Field(min_length=1)
    per_budget: bool = False
    exclude: list[dict[str, str]] = []

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_names(cls, methods: Any) -> Any:
        return {name: entry or {} for name, entry in methods.items()} if isinstance(methods, dict) else methods

    @field_validator("budgets", mode="before")
    @classmethod
    def _parse_budgets(cls, budgets: Any) -> Any:
        return sorted({parse_queries(budget) for budget in budgets}) if isinstance(budgets, list) else budgets

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, seeds: Any) -> Any:
        return parse_seeds(seeds)


class Part(BaseModel, frozen=True, extra="forbid"):
    """A file that stands for a part of another grid: what the filters, axis -> globs, leave of it."""

    description: str
    of: str
    filters: dict[Literal["task", "dataset", "method", "budget"], list[str]]

    def grid(self) -> Grid:
        _, whole = load(self.of)
        return select(whole, {str(axis): globs for axis, globs in self.filters.items()}).model_copy(
            update={"description": self.description}
        )


@dataclass(frozen=True)
class Planned:
    """One run that the grid asks for, or the reason why it cannot be.

    label: the entry's name in the grid. budgets: the budgets whose points this run gives, the largest
    being its own. protocol: `anytime` where one run answers for all budgets on its way, else
    `per_budget`. cell: None while the teacher is untrained. reason: why it cannot run here, or None.
    """

    label: str
    task: str
    method: str
    config: str
    budget: Budget
    budgets: tuple[int, ...]
    protocol: str
    seed: int
    cell: Cell | None = None
    reason: str | None = None
    state: str = "to do"


def load(name: str) -> tuple[str, Grid]:
    """The grid of that name among those shipped, or of that file. Returns its short name as well."""
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = SHIPPED / f"{name}.yaml"
        if not path.exists():
            raise unknown("grid", name, shipped())
    try:
        content = yaml.safe_load(path.read_text())
        if not isinstance(content, dict):
            raise UsageError(f"grid {path}: wanted a mapping with {', '.join(Grid.model_fields)}")
        if "of" in content:
            return path.stem, Part(**content).grid()
        methods = _with_tuned(content.get("methods"), path.parent)
        return path.stem, _checked(parse({**content, "methods": methods}, f"grid {path}"))
    except OSError as error:
        raise UsageError(f"grid {path.stem}: {error.filename} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"grid {path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UsageError(f"grid {path}: {one_line(error, Part.model_fields)}") from error


def parse(content: dict[str, Any], origin: str) -> Grid:
    """The grid that a mapping describes; UsageError that starts with `origin`, where it comes from."""
    try:
        return Grid(**content)
    except ValidationError as error:
        raise UsageError(f"{origin}: {one_line(error, Grid.model_fields)}") from error


def _checked(grid: Grid) -> Grid:
    """The grid; UsageError where an entry names a task that the grid has not."""
    names = {name for task in grid.tasks for name in (task, task_of(task).dataset)}
    for entry in grid.methods.values():
        for glob in (*entry.tasks, *entry.where):
            if not _matches("task", glob, *names):
                raise unknown("task", glob, names)
    return grid


def shipped() -> list[str]:
    """The names of the grids that come with the harness."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def parse_seeds(given: Any) -> Any:
    """`3` or `"3"` means seeds 0, 1 and 2; `"4,7"` or a list means those."""
    seeds = given
    if isinstance(seeds, str) and "," in seeds:
        seeds = [int(seed) if seed.strip().isdigit() else seed for seed in seeds.split(",")]
    if isinstance(seeds, str) and seeds.strip().isdigit():
        seeds = int(seeds)
    count = isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1
    listed = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds) and seeds
    if not count and not listed:
        raise UsageError(f"seeds {given!r}: wanted how many, 1 or more, or a list such as 0,1,2")
    return list(range(seeds)) if count else sorted(set(seeds))


def configure(grid: Grid, settings: Iterable[str]) -> Grid:
    """The grid with `METHOD.KEY=VALUE` put into every entry whose label or method the glob METHOD matches."""
    entries = {label: entry.model_dump() for label, entry in grid.methods.items()}
    for setting in settings:
        path, separator, value = setting.partition("=")
        pattern, *keys = path.split(".")
        if not separator or not keys:
            raise UsageError(f"setting {setting!r}: wanted METHOD.KEY=VALUE")
        chosen = [label for label in entries if _matches("method", pattern, label, grid.methods[label].method or label)]
        if not chosen:
            raise unknown("method", pattern, entries)
        for label in chosen:
            for config in (entries[label]["config"], *entries[label]["where"].values()):
                _put(config, keys, yaml.safe_load(value))
    return grid.model_copy(update={"methods": {label: Entry(**entry) for label, entry in entries.items()}})


def select(grid: Grid, filters: Mapping[str, Iterable[str]], exclude: Iterable[str] = ()) -> Grid:
    """The part of the grid that the filters (axis -> globs) leave; UsageError for a glob that matches nothing."""
    update: dict[str, Any] = {}
    for axis, globs in filters.items():
        wanted = [glob for text in globs for glob in text.split(",")]
        if wanted and axis in {"task", "dataset"}:
            update["tasks"] = matching(axis, update.get("tasks", grid.tasks), wanted, _names_of(axis))
        elif wanted and axis == "method":
            kept = matching(axis, list(grid.methods), wanted, lambda label: (label, grid.methods[label].method))
            update["methods"] = {label: grid.methods[label] for label in kept}
        elif wanted and axis == "budget":
            update["budgets"] = matching(axis, grid.budgets, wanted, lambda n: (str(n),))
    exclusions = []
    for text in exclude:
        axis, separator, glob = text.partition("=")
        if not separator:
            raise UsageError(f"exclude {text!r}: wanted AXIS=GLOB with an axis of {', '.join(AXES)}")
        exclusions.append({axis: glob})
    return grid.model_copy(update={**update, "exclude": [*grid.exclude, *exclusions]})


def plan(grid: Grid, root: Path, data_folder: Path, *, gpu: bool) -> list[Planned]:
    """Every run of the grid in a fixed order, with its cell and state where those can be known, or its reason.

    gpu: whether tasks that want a GPU may run.
    """
    exclusions = [_exclusion(rule) for rule in grid.exclude]
    states = _States(root / "cells")
    planned = []
    for task_name in grid.tasks:
        task = task_of(task_name)
        in_the_way = obstacle(task, data_folder, gpu)
        record = teachers.record_of(task, root)
        for label, entry in grid.methods.items():
            method, config = _config(label, entry, (task_name, task.dataset))
            if not any(_matches("task", glob, task_name, task.dataset) for glob in entry.tasks):
                continue
            reason = in_the_way or _lacking_images(method, config, data_folder)
            start = "cannot run" if reason else "to do"
            for budget, budgets, protocol in _budgets(grid, method, entry.answers):
                for seed in grid.seeds:
                    item = Planned(
                        label, task_name, method, config, budget, budgets, protocol, seed, None, reason, start
                    )
                    if left := _without(item, task, exclusions):
                        planned.append(left if reason or record is None else _with_cell(left, record, states))
    return planned


def one_line(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first complaint of pydantic in one line, with the nearest known names for an unknown key."""
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return str(unknown("key", where, known))
    message = str(first["msg"]).removeprefix("Value error, ")
    given = f", given {first['input']!r}" if first["type"] not in {"value_error", "missing"} else ""
    return f"{where}: {message}{given}"


def _with_tuned(methods: Any, folder: Path) -> Any:
    """The methods with `config: FILE`, relative to the grid, replaced by the settings in that file of bench tune."""
    if not isinstance(methods, dict):
        return methods
    read = dict(methods)
    for label, entry in methods.items():
        if isinstance(entry, dict) and isinstance(entry.get("config"), str):
            read[label] = {**entry, "config": _tuned(folder / entry["config"], entry.get("method") or label)}
    return read


def _tuned(path: Path, method: str) -> dict[str, Any]:
    """The settings in a file that bench tune wrote for the method."""
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise UsageError(f"tuned settings {path}: wanted a mapping with method and config, as bench tune writes")
    if content.get("method") != method:
        raise UsageError(f"tuned settings {path} are for method {content.get('method')}, not for {method}")
    return dict(content["config"])


def _config(label: str, entry: Entry, names: tuple[str, ...]) -> tuple[str, str]:
    """The method an entry names and its whole config as canonical JSON, on a task of those names."""
    method = entry.method or label
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    settings = dict(entry.config)
    for glob, special in entry.where.items():
        settings |= special if _matches("task", glob, *names) else {}
    try:
        return method, canonical_config(method, settings)
    except ValidationError as error:
        raise UsageError(f"method {label}: {one_line(error, METHODS[method].Config.model_fields)}") from error


def _budgets(grid: Grid, method: str, tracks: list[Answers]) -> Iterable[tuple[Budget, tuple[int, ...], str]]:
    """The budgets to run a method under, each with the points it answers for and the protocol of those."""
    shared = METHODS[method].PROTOCOL == "anytime" and not grid.per_budget
    largest = max(grid.budgets)
    for answers in (kind for kind in grid.answers if kind in tracks and kind in METHODS[method].ANSWERS):
        for inputs in grid.inputs:
            along = tuple(n for n in grid.budgets if shared and (n in MARKS or n == largest))
            for queries in (n for n in grid.budgets if n not in along):
                yield Budget(queries, answers, inputs), (queries,), "per_budget"
            if along:
                yield Budget(largest, answers, inputs), along, "anytime"


def obstacle(task: Task, data_folder: Path, gpu: bool) -> str | None:
    """Why no cell of the task can run here, or None."""
    if task.gpu and not gpu:
        return "no GPU here; --device cpu runs it all the same"
    return sources.missing(task.dataset, data_folder)


def _lacking_images(method: str, config: str, data_folder: Path) -> str | None:
    """Why a method that needs another data set's images cannot have them, or None."""
    if METHODS[method].DATA != "other":
        return None
    return sources.missing_other(json.loads(config)["images"], data_folder)


def _exclusion(rule: dict[str, str]) -> dict[str, str]:
    for axis in rule:
        if axis not in AXES:
            raise unknown("axis to exclude by", axis, AXES)
    return rule


def _without(item: Planned, task: Task, exclusions: list[dict[str, str]]) -> Planned | None:
    """The run without the budgets that a rule excludes, or None if nothing is left of it."""
    if not exclusions:
        return item
    kept = tuple(n for n in item.budgets if not any(_hits(rule, item, task, n) for rule in exclusions))
    if not kept:
        return None
    return replace(item, budgets=kept, budget=replace(item.budget, queries=max(kept)))


def _hits(rule: dict[str, str], item: Planned, task: Task, queries: int) -> bool:
    values = {
        "task": (item.task,),
        "dataset": (task.dataset,),
        "method": (item.label, item.method),
        "budget": (str(queries),),
        "answers": (item.budget.answers,),
        "inputs": (item.budget.inputs,),
        "seed": (str(item.seed),),
    }
    return all(_matches(axis, glob, *values[axis]) for axis, glob in rule.items())


def _with_cell(item: Planned, record: TeacherRecord, states: "_States") -> Planned:
    cell = Cell(item.task, item.method, item.config, item.budget, item.seed, record.hash)
    parts = (item.label, item.task, item.method, item.config, item.budget, item.budgets, item.protocol, item.seed)
    return Planned(*parts, cell, None, states.of(cell))  # three times as fast as `replace`, and plans are large


class _States:
    """The states of cells on disk; the folder is listed once, so that a large plan of new cells costs no look-ups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def of(self, cell: Cell) -> str:
        if not self._names or (name := cell.name()) not in self._names:
            return "to do"
        folder = self._folder / name
        if (folder / "done.json").exists():
            return "done" if is_done(folder, cell.method) else "stale"
        if (folder / "failed.json").exists():
            return "failed"
        return "started" if (folder / "checkpoint.pt").exists() else "to do"


def _names_of(axis: str) -> Any:
    return (lambda name: (name,)) if axis == "task" else (lambda name: (task_of(name).dataset,))


def matching(axis: str, values: list[Any], wanted: list[str], names: Any) -> list[Any]:
    """The values one of whose names matches one of the globs; each glob must match something."""
    for glob in wanted:
        if not any(_matches(axis, glob, *names(value)) for value in values):
            raise unknown(axis, glob, {name for value in values for name in names(value) if name})
    return [value for value in values if any(_matches(axis, glob, *names(value)) for glob in wanted)]


def _matches(axis: str, glob: str, *names: str) -> bool:
    """Whether the glob fits one of the names; a budget may also be bounded, as in `>=1M`."""
    if axis == "budget" and not any(mark in glob for mark in "*?["):
        return any(_within(glob, int(name)) for name in names)
    return any(fnmatchcase(name, glob) for name in names if name)


@cache
def _within(bound: str, queries: int) -> bool:
    """Whether so many queries are those of the bound: a number, or one after <, <=, > or >=."""
    number = bound.lstrip("<>=")
    sign = bound.removesuffix(number)
    if sign not in BOUNDS:
        raise UsageError(f"budget {bound!r}: wanted a number such as 2.5k, or a bound such as >=1M")
    try:
        return bool(BOUNDS[sign](queries, parse_queries(number)))
    except BudgetError as error:
        raise UsageError(str(error)) from error


def _put(config: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    config[keys[-1]] = value
