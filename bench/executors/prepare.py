"""What comes before the cells, once: data sets are decoded, and the teachers that are missing are trained."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.boxes import teachers
from bench.boxes.described import box_of
from bench.contract.plugins import Outside
from bench.executors.jobs import Job, box_jobs, data_jobs, teacher_jobs
from bench.grids.plan import Planned, needs
from bench.tasks.table import Task, task_of


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


def _tasks(runs: Iterable[Planned]) -> list[Task]:
    return [task_of(*which) for which in dict.fromkeys((run.task, run.teacher_seed) for run in runs if run.runnable)]
