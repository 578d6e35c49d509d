"""From a plan to jobs, and from a plan to the run folder that reports are made of."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench import __version__
from bench.boxes import teachers
from bench.cells.cell import ROOT, Cell
from bench.cells.run import CellFailed, device_name, run_cell
from bench.contract import plugins
from bench.executors.jobs import Event, Job
from bench.grids.definition import Grid, Planned
from bench.tasks.data import sources
from bench.tasks.image_folder import Folder
from bench.tasks.table import Task, task_of
from methods import METHODS
from results.store import Busy, write_json

Outside = Sequence[Path | Folder]  # what a process must load by plugins.load; absolute paths


def untrained(planned: Iterable[Planned], root: Path) -> dict[str, Task]:
    """The teachers that the runnable part of the plan still lacks, folder name -> a task that has it."""
    tasks = [task_of(name) for name in dict.fromkeys(item.task for item in planned if not item.reason)]
    return {teachers.folder_of(task, root).name: task for task in tasks if teachers.record_of(task, root) is None}


def data_sets(planned: Iterable[Planned]) -> set[str]:
    """What the runnable part of the plan reads: the data sets of its tasks, and those whose images a method takes."""
    names = set()
    for item in planned:
        if not item.reason:
            names.add(task_of(item.task).dataset)
            names |= {json.loads(item.config)["images"]} if METHODS[item.method].DATA == "other" else set()
    return names - {"photos"}


def data_jobs(names: Iterable[str], data_folder: Path, outside: Outside = ()) -> list[Job]:
    """One job for each data set that is not decoded yet; it reports the share done."""
    undecoded = [name for name in sorted(names) if not sources.is_decoded(name, data_folder)]
    return [Job(f"data set {name}", decode, (name, data_folder.resolve(), outside)) for name in undecoded]


def teacher_jobs(missing: dict[str, Task], root: Path, data_folder: Path, outside: Outside = ()) -> list[Job]:
    """One job for each teacher; it reports the share done."""
    places = (root.resolve(), data_folder.resolve(), outside)  # a process of its own may start elsewhere
    return [Job(f"teacher {name}", train_teacher, (task, *places)) for name, task in missing.items()]


def cell_jobs(
    cells: Iterable[Cell], root: Path, data_folder: Path, outside: Outside = (), *, keep_student: bool = False
) -> list[Job]:
    """One job for each cell, largest budgets first, so that no long one is left to the end."""
    named = {cell.name(): cell for cell in cells}
    largest_first = sorted(named.items(), key=lambda item: -item[1].budget.queries)
    places = (root.resolve(), data_folder.resolve(), outside)
    return [
        Job(name, work_on_cell, (cell, *places, keep_student), size=cell.budget.queries) for name, cell in largest_first
    ]


def decode(
    name: str,
    data_folder: Path,
    outside: Outside,
    device: torch.device,  # noqa: ARG001 - the shape of all jobs
    report: Callable[..., None],
) -> None:
    """The job of a data set."""
    plugins.load(outside)
    sources.load(name, data_folder, lambda done, total: report(done / total))


def train_teacher(
    task: Task, root: Path, data_folder: Path, outside: Outside, device: torch.device, report: Callable[..., None]
) -> None:
    """The job of a teacher."""
    plugins.load(outside)
    teachers.train(task, root, data_folder, device, report)


def work_on_cell(
    cell: Cell,
    root: Path,
    data_folder: Path,
    outside: Outside,
    keep_student: bool,
    device: torch.device,
    report: Callable[..., None],
) -> None:
    """The job of a cell; it reports queries spent and the method's figures."""
    plugins.load(outside)
    try:
        run_cell(cell, root, data_folder, device, report, keep_student=keep_student)
    except Busy as error:
        raise CellFailed("another process is running this cell") from error


def note_failure(event: Event, root: Path) -> None:
    """Leave the reason of a cell whose process died before it could write one itself."""
    folder = root / "cells" / event.job.key
    if folder.is_dir() and not (folder / "failed.json").exists():
        write_json(folder / "failed.json", {"reason": str(event.detail), "traceback": None})


def write_run(folder: Path, name: str, grid: Grid, planned: list[Planned], root: Path, device: str) -> None:
    """Write run.json: the grid, one entry for each run it asks for, its teachers, and where the numbers come from."""
    tasks = dict.fromkeys(item.task for item in planned)
    records = {task: teachers.record_of(task_of(task), root) for task in tasks}
    write_json(
        folder / "run.json",
        {
            "grid": name,
            "definition": grid.model_dump(mode="json"),
            "tasks": {task: asdict(task_of(task)) for task in tasks},
            "teachers": {task: record and asdict(record) for task, record in records.items()},
            "provenance": provenance(device),
            "entries": [entry(item) for item in planned],
        },
    )


def entry(item: Planned) -> dict[str, Any]:
    """A planned run as plain values. method: its label in the grid; kind: its name in METHODS."""
    return {
        "task": item.task,
        "answers": item.budget.answers,
        "inputs": item.budget.inputs,
        "method": item.label,
        "kind": item.method,
        "data": METHODS[item.method].DATA,
        "protocol": item.protocol,
        "seed": item.seed,
        "budget": item.budget.queries,
        "budgets": item.budgets,
        "config": item.config,
        "cell": item.cell.name() if item.cell else None,
        "reason": item.reason,
    }


def provenance(device: str) -> dict[str, Any]:
    """Command, code and versions, for whoever wants to repeat or cite the run."""
    packages = ("torch", "torchvision", "numpy", "pandas", "mlflow")
    git = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "command": shlex.join(["bench", *sys.argv[1:]]),
        "bench": __version__,
        "commit": git.stdout.strip() or None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "device": device_name(torch.device(device)),
    }
