"""What comes before the cells, once: data sets are decoded, missing teachers are trained, black boxes are examined.

Nothing waits for what it does not need: a cell may run while the teacher of another task is trained.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.boxes import examined, teachers
from bench.boxes.described import Endpoint, box_of
from bench.boxes.examined import note_of, to_examine
from bench.contract.plugins import Outside
from bench.errors import UsageError
from bench.executors.jobs import Event, Job, box_jobs, data_jobs, teacher_jobs, train_teacher
from bench.grids.plan import Planned, needs
from bench.tasks.table import Task, task_of
from results.records import BoxNote


@dataclass(frozen=True)
class Need:
    """What a run waits for: its task's teacher or black box, and the data sets whose files it reads."""

    task: Task
    data: frozenset[str]


def needs_of(runs: Iterable[Planned]) -> dict[Need, list[Planned]]:
    """The runs that can run here, by what they wait for."""
    found: dict[Need, list[Planned]] = defaultdict(list)
    for run in runs:
        if run.runnable:
            found[Need(task_of(run.task, run.teacher_seed), frozenset(needs(run)))].append(run)
    return found


class Preparation:
    """Says which jobs have become possible: called once at the start, then with each event.

    then: the jobs of a need that is met. An endpoint is sent its probes once by each command: who knows what answers
    there today. UsageError for a data set that is broken and for a black box that does not answer; what waits for a
    teacher that failed stays undone.
    """

    def __init__(
        self,
        needs: Iterable[Need],
        root: Path,
        data_folder: Path,
        outside: Outside = (),
        then: Callable[[Need], list[Job]] = lambda _: [],
    ) -> None:
        self._open, self._then = list(dict.fromkeys(needs)), then
        self._places = (root, data_folder, outside)
        self._given: set[str] = set()
        self._done: set[str] = set()

    def __call__(self, event: Event | None = None) -> list[Job]:
        if event is not None:
            if event.job.key not in self._given or event.kind not in {"done", "failed"}:
                return []
            if event.kind == "failed" and event.job.function is not train_teacher:
                raise UsageError(str(event.detail))
            if event.kind == "done":
                self._done.add(event.job.key)
        return self._possible()

    def ahead(self) -> int:
        """How many data sets, teachers and black boxes are still to be prepared."""
        jobs = (
            job for need in self._open for job in (*data_jobs(need.data, *self._places[1:]), *self._answering(need))
        )
        return len({job.key for job in jobs} - self._done)

    def _possible(self) -> list[Job]:
        first: dict[str, Job] = {}
        then: list[Job] = []
        for need in list(self._open):
            lacking = self._lacking(need)
            first |= {job.key: job for job in lacking if job.key not in self._given}
            if not lacking:
                self._open.remove(need)
                then += self._then(need)
        self._given |= first.keys()
        return [*first.values(), *sorted(then, key=lambda job: -job.size)]

    def _lacking(self, need: Need) -> list[Job]:
        """The jobs that the need waits for and that can be done now; one that is done is not asked for again."""
        stages = (data_jobs(need.data, *self._places[1:]), self._answering(need))
        ahead = ([job for job in stage if job.key not in self._done] for stage in stages)
        return next((jobs for jobs in ahead if jobs), [])

    def _answering(self, need: Need) -> list[Job]:
        if box_of(need.task) is None:
            return teacher_jobs(_lacks_teacher([need.task], self._places[0]), *self._places)
        return box_jobs({_box_name(need.task): need.task}, *self._places)


def untrained(runs: Iterable[Planned], root: Path) -> dict[str, Task]:
    """The teachers of ours that the runs lack and that can be had here, folder name -> a task that has it."""
    return _lacks_teacher((task for task in _tasks(runs) if box_of(task) is None), root)


def foreign(runs: Iterable[Planned]) -> dict[str, Task]:
    """The black boxes from elsewhere that the runs ask, name -> a task that has it."""
    return {_box_name(task): task for task in _tasks(runs) if box_of(task) is not None}


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


def _lacks_teacher(tasks: Iterable[Task], root: Path) -> dict[str, Task]:
    return {teachers.folder_of(task, root).name: task for task in tasks if teachers.record_of(task, root) is None}


def _box_name(task: Task) -> str:
    return f"{task.teacher} {task.dataset}"
