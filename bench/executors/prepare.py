"""What comes before the cells, once: data sets are decoded, and the teachers that are missing are trained."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.boxes import examined, teachers
from bench.boxes.described import Endpoint, box_of
from bench.boxes.examined import note_of, to_examine
from bench.contract.plugins import Outside
from bench.errors import UsageError
from bench.executors.jobs import Job, box_jobs, data_jobs, teacher_jobs
from bench.grids.plan import Planned, needs
from bench.tasks.table import Task, task_of
from results.records import BoxNote


def preparations(
    runs: Iterable[Planned], root: Path, data_folder: Path, outside: Outside = ()
) -> Iterator[tuple[str, list[Job]]]:
    """The jobs that the runs wait for, stage after stage, each to be done before the next is asked for. An endpoint is
    sent its probes by each command: who knows what answers there today.

    After them the plan is to be made anew: cells are named by their teachers.
    """
    waiting = [run for run in runs if run.runnable]
    yield "data sets", data_jobs({name for run in waiting for name in needs(run)}, data_folder, outside)
    yield "teachers", teacher_jobs(untrained(waiting, root), root, data_folder, outside)
    yield "black boxes", box_jobs(foreign(waiting), root, data_folder, outside)


def untrained(runs: Iterable[Planned], root: Path) -> dict[str, Task]:
    """The teachers of ours that the runs lack and that can be had here, folder name -> a task that has it."""
    ours = [task for task in _tasks(runs) if box_of(task) is None]
    return {teachers.folder_of(task, root).name: task for task in ours if teachers.record_of(task, root) is None}


def foreign(runs: Iterable[Planned]) -> dict[str, Task]:
    """The black boxes from elsewhere that the runs ask, name -> a task that has it."""
    return {f"{task.teacher} {task.dataset}": task for task in _tasks(runs) if box_of(task) is not None}


def to_pay(waiting: Sequence[Planned], root: Path) -> list[tuple[str, BoxNote, float, int]]:
    """For each endpoint: the task, what is known of it, the price of 1,000 queries, and those still to ask there."""
    found = []
    for name in dict.fromkeys(run.task for run in waiting if run.runnable):
        task = task_of(name)
        box = box_of(task)
        if isinstance(box, Endpoint):
            queries = sum(run.budget.queries for run in waiting if run.task == name)
            found.append((name, note_of(task, root), box.price, queries + to_examine(task, root)))
    return found


def changed(runs: Iterable[Planned], root: Path) -> list[str]:
    """A line for each endpoint that answers otherwise than before the runs; it is sent its probes once more."""
    endpoints = [task for task in foreign(runs).values() if isinstance(box_of(task), Endpoint)]
    seen = [_change(task, root) for task in endpoints]
    return [line for line in seen if line]


def _change(task: Task, root: Path) -> str | None:
    try:
        why = examined.changed(task, root)
    except UsageError as error:
        return f"whether the black box {task.teacher} has changed cannot be seen: {error}"
    doubt = "what was asked of it since the runs began is in doubt"
    return f"the black box {task.teacher} has changed meanwhile: {why}; {doubt}" if why else None


def _tasks(runs: Iterable[Planned]) -> list[Task]:
    return [task_of(*which) for which in dict.fromkeys((run.task, run.teacher_seed) for run in runs if run.runnable)]
