"""The plan of a grid: every run it asks for, with its cell and state, or the reason why it cannot be."""

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.boxes.described import MARK, box_of, offers
from bench.boxes.door import record_of
from bench.boxes.examined import note_of
from bench.cells.cell import Cell, canonical_config
from bench.cells.code import is_ours, versions_of
from bench.cells.curve import MARKS
from bench.errors import UsageError, one_line, unknown
from bench.globs import matches
from bench.grids.definition import Entry, Grid
from bench.provenance import provenance
from bench.tasks.data import sources
from bench.tasks.table import Task, obstacle, task_of
from budgets import Budget, kind_of
from methods import METHODS, inputs_of
from results import records
from results.index import Cells
from results.records import RunRecord, State, TaskParts, TeacherRecord, Versions

AXES = ("task", "dataset", "method", "budget", "answers", "inputs", "teacher", "seed")


@dataclass(frozen=True)
class Planned:
    """One run that the grid asks for.

    label: the entry's name in the grid. budgets: the budgets whose points this run gives, the largest being its own.
    protocol: `anytime` where one run answers for all budgets on its way, else `per_budget`. widest: the queries of
    that run in the grid, before a filter cut it. cell: None while the teacher is untrained. reason: why it is in its
    state, where there is more to say.
    """

    label: str
    task: str
    method: str
    config: str
    budget: Budget
    budgets: tuple[int, ...]
    protocol: str
    teacher_seed: int
    seed: int
    widest: int
    cell: Cell | None = None
    state: State = "to do"
    reason: str | None = None

    @property
    def runnable(self) -> bool:
        return self.state != "cannot run"

    @property
    def terms(self) -> tuple[str, str, str, Budget]:
        """What decides how long it takes: task, method, settings and budget."""
        return self.task, self.method, self.config, self.budget


def runs_of(grid: Grid) -> list[Planned]:
    """Every run of the grid in a fixed order, as far as the grid alone says; nothing is looked up."""
    rules = [_exclusion(rule) for rule in grid.exclude]
    runs = []
    for task_name in grid.tasks:
        task = task_of(task_name)
        for label, entry in grid.methods.items():
            names = (*_task_names(task_name), task.dataset)
            method, config = _config(label, entry, names)
            if not any(matches("task", glob, *names) for glob in entry.tasks):
                continue
            for budget, budgets, protocol in _budgets(grid, method, entry):
                for teacher_seed, seed in product(range(grid.teachers), grid.seeds):
                    replicate = (protocol, teacher_seed, seed)
                    run = Planned(label, task_name, method, config, budget, budgets, *replicate, budget.queries)
                    if left := _without(run, rules):
                        runs.append(left if left is run else replace(left, widest=left.budget.queries))
    return runs


def plan(runs: Iterable[Planned], root: Path, data_folder: Path, *, gpu: bool) -> list[Planned]:
    """The runs with their cells and states, as far as those can be known.

    gpu: whether tasks that want a GPU may run.
    """
    with Cells(root) as cells:
        look = _Look(root, data_folder, gpu, cells)
        return [look.at(run) for run in runs]


def wanted(runs: Iterable[Planned], *, rerun: bool = False) -> list[Planned]:
    """The runs that a command is to work on: what has no result, and of stale ones a plugin's, or all on `rerun`."""
    waiting = {"to do", "started", "failed", "stopped", "running"}
    return [
        run
        for run in runs
        if run.state in waiting or (run.state == "stale" and (rerun or not is_ours(METHODS[run.method])))
    ]


def cut(run: Planned, wanted: Callable[[int], bool]) -> Planned | None:
    """The run for those of its budgets that are wanted; None if there is none."""
    kept = tuple(queries for queries in run.budgets if wanted(queries))
    if kept == run.budgets:
        return run
    return replace(run, budgets=kept, budget=replace(run.budget, queries=max(kept))) if kept else None


def names_on(axis: str, run: Planned) -> tuple[str, ...]:
    """The names by which a filter on that axis may know the run; `budget` is for `cut`."""
    return _NAMES[axis](run)


def _task_names(task: str) -> tuple[str, str]:
    """The task's name, and without the black box that stands for its teacher."""
    return task, task.partition(MARK)[0]


_NAMES: dict[str, Callable[[Planned], tuple[str, ...]]] = {
    "task": lambda run: _task_names(run.task),
    "dataset": lambda run: (task_of(run.task).dataset,),
    "method": lambda run: (run.label, run.method),
    "answers": lambda run: (run.budget.answers,),
    "inputs": lambda run: (run.budget.inputs,),
    "teacher": lambda run: (str(run.teacher_seed),),
    "seed": lambda run: (str(run.seed),),
}


def needs(run: Planned) -> set[str]:
    """The data sets whose files the run reads: its task's, and that whose images its method takes."""
    return {task_of(run.task).dataset} | _other_images(run)


def record(name: str, id: str, grid: Grid, planned: list[Planned], root: Path, command: Iterable[str]) -> RunRecord:
    """The run as it is kept: the grid, one entry for each run it asks for, its teachers, and where it comes from.

    id: of an earlier record of this run, or empty.
    """
    tasks = dict.fromkeys(run.task for run in planned)
    met = dict.fromkeys((run.task, run.teacher_seed) for run in planned)
    trained: dict[str, dict[int, TeacherRecord | None]] = {task: {} for task in tasks}
    for task, seed in met:
        trained[task][seed] = record_of(task_of(task, seed), root)
    return RunRecord(
        grid=name,
        id=id or secrets.token_hex(6),
        definition=grid.model_dump(mode="json"),
        tasks={task: _parts(task_of(task)) for task in tasks},
        teachers=trained,
        provenance=provenance(command),
        versions={method: versions_of(method) for method in dict.fromkeys(run.method for run in planned)},
        entries=[entry(run) for run in planned],
        boxes={task: note_of(task_of(task), root) for task in tasks if box_of(task_of(task))},
    )


def entry(run: Planned) -> records.Entry:
    """A planned run as it is kept."""
    return records.Entry(
        task=run.task,
        answers=run.budget.answers,
        inputs=run.budget.inputs,
        method=run.label,
        kind=run.method,
        data=METHODS[run.method].DATA,
        protocol=run.protocol,
        teacher_seed=run.teacher_seed,
        seed=run.seed,
        budget=run.budget.queries,
        budgets=list(run.budgets),
        config=run.config,
        cell=run.cell.name() if run.cell else None,
        narrower={n: _at(run.cell, n).name() for n in run.budgets[:-1]} if run.cell else {},
        reason=run.reason if run.state == "cannot run" else None,
    )


class _Look:
    """What is on this machine: teachers, data, states of cells. What many runs share is looked up once."""

    def __init__(self, root: Path, data_folder: Path, gpu: bool, cells: Cells) -> None:
        self._root, self._data_folder, self._gpu = root, data_folder, gpu
        self._cells = cells
        self._obstacles: dict[tuple[str, str, str], str | None] = {}
        self._teachers: dict[tuple[str, int], TeacherRecord | None] = {}
        self._refusals: dict[tuple[str, str, str], str | None] = {}
        self._reveals: dict[str, str] = {}
        self._versions: dict[str, Versions] = {}

    def at(self, run: Planned) -> Planned:
        reason = self._obstacle(run)
        teacher = self._teacher(run.task, run.teacher_seed)
        if teacher is None:
            return replace(run, state="cannot run", reason=reason) if reason else run
        identity = (run.task, run.method, run.config, run.budget, run.seed, teacher.hash)
        cell = Cell(*identity, teacher_seed=run.teacher_seed)
        if run.widest != run.budget.queries:
            wide = _at(cell, run.widest)
            if self._state(wide, None)[0] == "done":
                cell = wide  # whose points are those of the narrower one
        state, why = self._state(cell, reason)
        # Three times as fast as `replace`, and plans are large.
        parts = (run.label, run.task, run.method, run.config, run.budget, run.budgets, run.protocol, run.teacher_seed)
        return Planned(*parts, run.seed, run.widest, cell, state, why)

    def _state(self, cell: Cell, reason: str | None) -> tuple[State, str | None]:
        if cell.method not in self._versions:
            self._versions[cell.method] = versions_of(cell.method)
        found = self._cells.state(cell.name(), self._versions[cell.method], reason)
        return found.name, found.reason

    def _teacher(self, *key: *tuple[str, int]) -> TeacherRecord | None:
        if key not in self._teachers:
            self._teachers[key] = record_of(task_of(*key), self._root)
        return self._teachers[key]

    def _obstacle(self, run: Planned) -> str | None:
        key = (run.task, run.method, run.config)
        if key not in self._obstacles:
            reason = obstacle(task_of(run.task), self._data_folder, self._gpu) or _lacks_images(run)
            lacking = (sources.missing(name, self._data_folder) for name in _other_images(run))
            self._obstacles[key] = reason or next((why for why in lacking if why), None)
        terms = (run.task, run.budget.answers, run.budget.inputs)
        if terms not in self._refusals:
            self._refusals[terms] = self._refusal(run)
        return self._obstacles[key] or self._refusals[terms]

    def _refusal(self, run: Planned) -> str | None:
        """Why the task's black box cannot be asked under such terms, if it cannot."""
        task = task_of(run.task)
        if (box := box_of(task)) is None:
            return None
        if run.task not in self._reveals:
            self._reveals[run.task] = note_of(task, self._root).answers
        return offers(box, self._reveals[run.task], run.budget.answers, run.budget.inputs)


def _lacks_images(run: Planned) -> str | None:
    labelled = sources.source_of(task_of(run.task).dataset).labelled
    return None if labelled or METHODS[run.method].DATA != "train" else "the task has no training images"


def _other_images(run: Planned) -> set[str]:
    """The data set whose images the method takes, where those lie in files."""
    if METHODS[run.method].DATA != "other":
        return set()
    return {str(json.loads(run.config)["images"])} - {"photos"}


def _at(cell: Cell, queries: int) -> Cell:
    return replace(cell, budget=replace(cell.budget, queries=queries))


def _parts(task: Task) -> TaskParts:
    classes = sources.source_of(task.dataset).classes
    return TaskParts(task.dataset, task.teacher, task.student, classes, task.scaling)


def _config(label: str, entry: Entry, names: tuple[str, ...]) -> tuple[str, str]:
    """The method an entry names and its whole config as canonical JSON, on a task of those names."""
    method = entry.method or label
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    settings: dict[str, Any] = dict(entry.config)
    for glob, special in entry.where.items():
        settings |= special if matches("task", glob, *names) else {}
    try:
        return method, canonical_config(method, settings)
    except ValidationError as error:
        raise UsageError(f"method {label}: {one_line(error, METHODS[method].Config.model_fields)}") from error


def _budgets(grid: Grid, method: str, entry: Entry) -> Iterable[tuple[Budget, tuple[int, ...], str]]:
    """The budgets to run a method under, each with the points it answers for and the protocol of those."""
    shared = METHODS[method].PROTOCOL == "anytime" and not grid.per_budget
    budgets = entry.budgets or grid.budgets
    largest = max(budgets)
    for answers in grid.answers:
        if (entry.answers and answers not in entry.answers) or kind_of(answers) not in METHODS[method].ANSWERS:
            continue
        for inputs in (kind for kind in grid.inputs if kind in inputs_of(METHODS[method])):
            along = tuple(n for n in budgets if shared and (n in MARKS or n == largest))
            for queries in (n for n in budgets if n not in along):
                yield Budget(queries, answers, inputs), (queries,), "per_budget"
            if along:
                yield Budget(largest, answers, inputs), along, "anytime"


def _exclusion(rule: dict[str, str]) -> dict[str, str]:
    for axis in rule:
        if axis not in AXES:
            raise unknown("axis to exclude by", axis, AXES)
    return rule


def _without(run: Planned, rules: list[dict[str, str]]) -> Planned | None:
    """The run without the budgets that a rule excludes, or None if nothing is left of it."""
    left: Planned | None = run
    for rule in rules:
        if left and all(matches(axis, glob, *names_on(axis, run)) for axis, glob in rule.items() if axis != "budget"):
            bound = rule.get("budget", "*")
            left = cut(left, lambda queries, bound=bound: not matches("budget", bound, str(queries)))  # type: ignore[misc]
    return left
