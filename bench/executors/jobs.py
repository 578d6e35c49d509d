"""Executors: each takes jobs and yields events, so that the rest of the harness need not know where work runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """function(*arguments, device, report), importable by name; `report(done, ...)` takes small picklable values.

    size: what `done` is when all is done.
    """

    key: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    size: float = 1.0


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. detail: what it reported, or the reason of its failure in one line."""

    job: Job
    kind: Literal["started", "progress", "done", "failed"]
    detail: Any = None
