"""A cell: one run of one method on one task under one budget with one seed."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import UsageError, unknown
from bench.tasks import TASKS
from budgets import Budget
from methods import METHODS

SCHEMA = 1
ROOT = Path(__file__).parents[1]
RESULT_SOURCES = ("budgets", "methods", "bench/run.py", "bench/data.py", "bench/networks.py", "bench/teachers.py")


@dataclass(frozen=True)
class Cell:
    """task, method: names in TASKS and METHODS. config: the method's whole Config as canonical JSON.

    teacher: the content hash of the task's teacher.
    """

    task: str
    method: str
    config: str
    budget: Budget
    seed: int
    teacher: str

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if self.budget.answers not in METHODS[self.method].ANSWERS:
            raise UsageError(f"method {self.method} cannot learn from {self.budget.answers}")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: wanted 0 or more")

    def identity(self) -> dict[str, Any]:
        """All that a result depends on besides the code; no path, device or machine."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "method": self.method,
            "config": self.config,
            "queries": self.budget.queries,
            "answers": self.budget.answers,
            "inputs": self.budget.inputs,
            "seed": self.seed,
            "teacher": self.teacher,
        }

    def name(self) -> str:
        """The name of the cell's folder: readable, with a hash of its identity."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        budget = self.budget
        return f"{self.task}.{self.method}.{budget.queries}-{budget.answers}.s{self.seed}.{digest}"


def canonical_config(method: str, settings: dict[str, Any]) -> str:
    """The method's Config with all defaults filled in, as canonical JSON; pydantic.ValidationError for bad settings."""
    config = METHODS[method].Config(**settings)
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


@cache
def code_version() -> str:
    """A hash of the source files that results depend on."""
    paths = [ROOT / source for source in RESULT_SOURCES]
    files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
