"""What comes before the cells: nothing waits for what it does not need, and what fails holds up nothing else."""

from pathlib import Path

import pytest
import torch
from support import CPU

from bench.boxes import teachers
from bench.errors import UsageError
from bench.executors import local
from bench.executors.jobs import Event, Job, decode, train_teacher
from bench.executors.local import Slot
from bench.executors.prepare import Need, Preparation
from bench.tasks.data import sources
from bench.tasks.table import task_of

NO_DATA = Path("no-data")
THERE, MISSING = (Need(task_of("digits-lenet", seed), frozenset({"digits"})) for seed in (0, 1))


def cell_of(need: Need) -> list[Job]:
    return [Job(f"cell of teacher {need.task.teacher_seed}", print, ())]


def note(path: Path, name: str, *_: object) -> None:
    with path.open("a") as file:
        file.write(f"{name}\n")


def be_slow(path: Path, *rest: object) -> None:
    """A teacher that is trained until the cell of the other has been run."""
    while not path.exists():
        pass
    note(path, *rest)


def test_a_cell_is_possible_at_once_where_its_teacher_is_there_and_else_after_that_was_trained(trained: Path) -> None:
    preparation = Preparation([THERE, MISSING], trained, NO_DATA, then=cell_of)
    assert preparation.ahead() == 1
    teacher, cell = preparation()
    assert (teacher.function, cell.key) == (train_teacher, "cell of teacher 0")
    assert preparation(Event(cell, "done")) == []
    teachers.train(MISSING.task, trained, NO_DATA, CPU, lambda _: None)
    (cell,) = preparation(Event(teacher, "done"))
    assert cell.key == "cell of teacher 1"
    assert preparation.ahead() == 0


def test_two_tasks_that_share_a_teacher_wait_for_one_training(tmp_path: Path) -> None:
    other = Need(task_of("digits-mlp"), THERE.data)
    preparation = Preparation([THERE, other], tmp_path, NO_DATA, then=cell_of)
    (teacher,) = preparation()
    teachers.train(THERE.task, tmp_path, NO_DATA, CPU, lambda _: None)
    assert len(preparation(Event(teacher, "done"))) == 2


def test_what_waits_for_a_teacher_that_failed_stays_undone_and_the_others_go_on(trained: Path) -> None:
    preparation = Preparation([THERE, MISSING], trained, NO_DATA, then=cell_of)
    teacher, _ = preparation()
    assert preparation(Event(teacher, "failed", "it did not learn")) == []


def test_a_data_set_that_is_broken_ends_the_command_and_nothing_of_it_is_trained_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "is_decoded", lambda name, _: name != "mnist")
    preparation = Preparation([Need(task_of("mnist-lenet5"), frozenset({"mnist"}))], tmp_path, NO_DATA, then=cell_of)
    (data,) = preparation()
    assert data.function is decode
    with pytest.raises(UsageError, match="it is cut short"):
        preparation(Event(data, "failed", "it is cut short"))


def test_cells_run_while_the_teacher_of_others_is_trained(tmp_path: Path) -> None:
    """The slow one ends only once a cell has been run beside it."""
    file = tmp_path / "order"
    first = [Job("teacher", be_slow, (file, "teacher")), Job("cell", note, (file, "cell"))]
    last = Job("cell of that teacher", note, (file, "its cell"))
    events = local.execute(first, [Slot("cpu", 1)] * 2, more=lambda event: [last] * (event.job.key == "teacher"))
    ends = [event.job.key for event in events if event and event.kind == "done"]
    # The end of the first cell may be told after those of jobs of the other process, however late.
    assert [key for key in ends if key != "cell"] == ["teacher", "cell of that teacher"]
    assert ends.count("cell") == 1
    assert file.read_text().split("\n")[:3] == ["cell", "teacher", "its cell"]


@pytest.mark.parametrize("patient", [True, False])
def test_cells_that_others_are_at_are_waited_for_or_left_to_them(patient: bool, tmp_path: Path) -> None:
    jobs = [
        Job("theirs", busy_once, (tmp_path / "tries",), saves=True),
        Job("ours", note, (tmp_path / "notes", "ours")),
    ]
    ended = [
        event.job.key
        for event in local.execute(jobs, [Slot("cpu", 1)], patient=patient)
        if event and event.kind == "done"
    ]
    assert ended == (["ours", "theirs"] if patient else ["ours"])


def busy_once(path: Path, device: torch.device, *_: object) -> None:
    from results.claims import Busy

    if not path.exists():
        path.write_text(str(device))
        raise Busy("theirs")
