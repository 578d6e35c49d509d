"""A cell: one run of one method on one task under one budget with one seed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bench.errors import UsageError, unknown
from bench.tasks.table import Task, task_of
from budgets import Budget, kind_of
from methods import METHODS, inputs_of

SCHEMA = 1

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Cell:
    """task, method: names in TASKS and METHODS. config: the method's whole Config as canonical JSON.

    teacher, teacher_seed: the content hash and the seed of the task's teacher. exam: what the student is examined on,
    `test`, or in a search for settings `validation` or the name of held-out answers (bench/cells/exam.py).
    """

    task: str
    method: str
    config: str
    budget: Budget
    seed: int
    teacher: str
    exam: str = "test"
    teacher_seed: int = 0

    def __post_init__(self) -> None:
        task_of(self.task)
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if kind_of(self.budget.answers) not in METHODS[self.method].ANSWERS:
            raise UsageError(f"method {self.method} cannot learn from {self.budget.answers}")
        if self.budget.inputs not in inputs_of(METHODS[self.method]):
            raise UsageError(f"method {self.method} cannot work with {self.budget.inputs} images; its file says why")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: wanted 0 or more")

    def identity(self) -> dict[str, Any]:
        """All that a result depends on besides the code; no path, device or machine."""
        return {**_identity(task_of(self.task), *self._but_seed()), "seed": self.seed}

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> "Cell":
        """The cell of that identity; UsageError where there is none here, or it would be another one."""
        try:
            cell = cls(
                task=identity["task"],
                method=identity["method"],
                config=identity["config"],
                budget=Budget(identity["queries"], identity["answers"], identity["inputs"]),
                seed=identity["seed"],
                teacher=identity["teacher"],
                exam=identity.get("exam", "test"),
                teacher_seed=identity["teacher_seed"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"no identity of a cell: {type(error).__name__}: {error}") from error
        if differing := [part for part, value in cell.identity().items() if identity.get(part) != value]:
            told = "; ".join(f"{part} {cell.identity()[part]!r}, not {identity.get(part)!r}" for part in differing)
            raise UsageError(f"the cell would be another one here: {told}")
        return cell

    def name(self) -> str:
        """The name of the cell's folder: readable, with a hash of its identity."""
        before, after = _around_seed(task_of(self.task), *self._but_seed())
        digest = hashlib.sha256(f"{before}{self.seed}{after}".encode()).hexdigest()[:12]
        budget = self.budget
        return f"{self.task}.{self.method}.{budget.queries}-{budget.answers}.t{self.teacher_seed}.s{self.seed}.{digest}"

    def _but_seed(self) -> tuple[str, str, str, Budget, str, int, str]:
        return self.task, self.method, self.config, self.budget, self.teacher, self.teacher_seed, self.exam


def _identity(
    task: Task, name: str, method: str, config: str, budget: Budget, teacher: str, teacher_seed: int, exam: str
) -> dict[str, Any]:
    """The identity of a cell, all but its seed. name: the task's."""
    return {
        "schema": SCHEMA,
        "task": name,
        "dataset": task.dataset,
        "student": task.student,
        "scaling": list(task.scaling),
        "method": method,
        "config": config,
        "queries": budget.queries,
        "answers": budget.answers,
        "inputs": budget.inputs,
        "seed": None,
        "teacher": teacher,
        "teacher_seed": teacher_seed,
        **({} if exam == "test" else {"exam": exam}),
    }


@lru_cache(maxsize=2**16)  # the many seeds of a large grid share it
def _around_seed(*of: Any) -> tuple[str, str]:
    """The canonical JSON of an identity before and after the seed."""
    key = '"seed":'  # which a string inside would have with a backslash
    before, _, after = _CANONICAL.encode(_identity(*of)).partition(f"{key}null")
    return before + key, after


def canonical_config(method: str, settings: dict[str, Any]) -> str:
    """The method's Config with all defaults filled in, as canonical JSON.

    Raises pydantic.ValidationError for bad settings, and UsageError for one that is not finite.
    """
    config = METHODS[method].Config(**settings)
    try:
        return _CANONICAL.encode(config.model_dump(mode="json"))
    except ValueError as error:
        raise UsageError(f"method {method}: a setting is infinite or no number; wanted finite ones") from error
