"""Jobs and what happens to them: what every executor takes and yields; and the makers of jobs from a plan."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from bench.boxes import examined, teachers
from bench.boxes.described import Attached, Endpoint, box_of
from bench.cells.cell import Cell
from bench.cells.code import is_ours
from bench.cells.exam import held_out_file
from bench.cells.run import AS_USUAL, How, Interrupted, run_cell
from bench.contract import plugins
from bench.contract.plugins import Outside
from bench.grids.calibration import calibrate
from bench.grids.plan import Planned
from bench.tasks.data import sources
from bench.tasks.table import Task, task_of
from methods import METHODS
from results.claims import Busy, Robbed, lock
from results.records import Failure, plain
from results.store import write_json


class Report(Protocol):
    """How a job speaks to whoever started it.

    Called with what is done and small picklable values; raises Interrupted when the job is to end for now.
    """

    def __call__(self, done: float, figures: dict[str, float] | None = None) -> None: ...

    def say(self, line: str) -> None:
        """Tell a person something."""


@dataclass(frozen=True)
class Away:
    """What makes it possible to do a job where the results folder is not seen.

    reads: files and folders of it that the job needs. fills: the folder of it that the job fills and nobody else does.
    """

    reads: tuple[Path, ...] = ()
    fills: Path | None = None


@dataclass(frozen=True)
class Job:
    """function(*arguments, device, report), importable by name.

    size: what `done` is when all is done. saves: whether it leaves its work for a later attempt when `report` ends it.
    alone: whether its process is to do nothing else, for it runs code of a user's own. away: None for a job that needs
    the results folder itself.
    """

    key: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    size: float = 1.0
    saves: bool = False
    alone: bool = False
    away: Away | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. detail: what it reported, the reason of its failure, or a line for a person.

    busy: another process is at the same work; the job waits and is tried again.
    again: its process was killed; the job is tried once more.
    """

    job: Job
    kind: Literal["started", "progress", "said", "busy", "again", "done", "failed"]
    detail: Any = None


More = Callable[[Event], Iterable[Job]]  # the end of a job -> the jobs that it makes possible


def do(job: Job, device: torch.device, report: Report) -> Event:
    """Do a job in this process; returns how it ended."""
    try:
        job.function(*job.arguments, device, report)
    except Interrupted:
        return Event(job, "again", "it was told to end")
    except Robbed as error:
        return Event(job, "again", str(error))
    except Busy:
        return Event(job, "busy")
    except Exception as error:
        return Event(job, "failed", str(error) or type(error).__name__)
    return Event(job, "done")


def nothing_more(event: Event) -> list[Job]:  # noqa: ARG001 - the shape of More
    return []


def data_jobs(names: Iterable[str], data_folder: Path, outside: Outside = ()) -> list[Job]:
    """One job for each data set that is not decoded yet; it reports the share done."""
    undecoded = [name for name in sorted(names) if not sources.is_decoded(name, data_folder)]
    return [Job(f"data set {name}", decode, (name, data_folder.resolve(), outside), away=Away()) for name in undecoded]


def teacher_jobs(missing: dict[str, Task], root: Path, data_folder: Path, outside: Outside = ()) -> list[Job]:
    """One job for each teacher; it reports the share done."""
    places = (root.resolve(), data_folder.resolve(), outside)  # a process of its own may start elsewhere
    return [
        Job(f"teacher {name}", train_teacher, (task, *places), away=Away(fills=teachers.folder_of(task, places[0])))
        for name, task in missing.items()
    ]


def box_jobs(boxes: dict[str, Task], root: Path, data_folder: Path, outside: Outside = ()) -> list[Job]:
    """One job for each black box from elsewhere; it reports the share of the test images that are answered."""
    places = (root.resolve(), data_folder.resolve(), outside)
    return [
        Job(f"black box {name}", examine_box, (task, *places), away=Away(fills=folder) if folder else None)
        for name, task in boxes.items()
        for folder in [_known_of(task, places[0])]
    ]


def cell_jobs(
    cells: Iterable[Cell],
    root: Path,
    data_folder: Path,
    outside: Outside = (),
    how: How = AS_USUAL,
) -> list[Job]:
    """One job for each cell, largest budgets first, so that no long one is left to the end."""
    named = {cell.name(): cell for cell in cells}
    largest_first = sorted(named.items(), key=lambda item: -item[1].budget.queries)
    places = (root.resolve(), data_folder.resolve(), outside)
    own = any(isinstance(item, Path) or (isinstance(item, Attached) and item.student) for item in outside)
    known = {
        which: _known_of(task_of(*which), places[0])
        for which in {(cell.task, cell.teacher_seed) for cell in named.values()}
    }
    return [
        Job(
            name,
            work_on_cell,
            (cell, *places, how),
            size=cell.budget.queries,
            saves=True,
            alone=own or not is_ours(METHODS[cell.method]),
            away=_away_for(cell, name, known[cell.task, cell.teacher_seed], places[0]),
        )
        for name, cell in largest_first
    ]


def _known_of(task: Task, root: Path) -> Path | None:
    """The folder of what is known of the task's black box; None for an endpoint, whose bill all cells share."""
    box = box_of(task)
    if box is None:
        return teachers.folder_of(task, root)
    return None if isinstance(box, Endpoint) else examined.folder_of(task, root)


def _away_for(cell: Cell, name: str, known: Path | None, root: Path) -> Away | None:
    return Away((known, held_out_file(cell.exam, root)), root / "cells" / name) if known else None


def calibration_jobs(
    groups: dict[str, list[Planned]], root: Path, device: str, patience: float, outside: Outside
) -> list[Job]:
    """One job for each group of runs that are judged by the same rehearsals. device: its name."""
    places = (root.resolve(), outside, device, patience)
    return [Job(f"calibration {name}", rehearse_runs, (runs, *places)) for name, runs in groups.items()]


def decode(
    name: str,
    data_folder: Path,
    outside: Outside,
    device: torch.device,  # noqa: ARG001 - the shape of all jobs
    report: Report,
) -> None:
    """The job of a data set."""
    plugins.load(outside)
    sources.load(name, data_folder, lambda done, total: report(done / total))


def train_teacher(
    task: Task, root: Path, data_folder: Path, outside: Outside, device: torch.device, report: Report
) -> None:
    """The job of a teacher."""
    plugins.load(outside)
    teachers.train(task, root, data_folder, device, report)


def examine_box(
    task: Task, root: Path, data_folder: Path, outside: Outside, device: torch.device, report: Report
) -> None:
    """The job of a black box from elsewhere."""
    plugins.load(outside)
    examined.examine(task, root, data_folder, device, report)


def work_on_cell(
    cell: Cell,
    root: Path,
    data_folder: Path,
    outside: Outside,
    how: How,
    device: torch.device,
    report: Report,
) -> None:
    """The job of a cell; it reports queries spent and the method's figures. Busy where another process is at it."""
    plugins.load(outside)
    run_cell(cell, root, data_folder, device, report, say=report.say, how=how, outside=outside)


def rehearse_runs(
    runs: list[Planned],
    root: Path,
    outside: Outside,
    name: str,
    patience: float,
    device: torch.device,
    report: Report,  # noqa: ARG001 - the shape of all jobs
) -> None:
    """The job of a calibration."""
    plugins.load(outside)
    calibrate(runs, root, device, name, patience)


def note_failure(event: Event, root: Path) -> None:
    """Leave the reason of a cell whose process died before it could write one itself."""
    folder = root / "cells" / event.job.key
    if not folder.is_dir():
        return
    try:
        with lock(folder):
            if not (folder / "failed.json").exists() and not (folder / "done.json").exists():
                write_json(folder / "failed.json", plain(Failure(str(event.detail))))
    except Busy:
        pass  # another process has taken the cell over: its end is what counts
