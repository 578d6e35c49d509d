"""Jobs at work, with their progress on the screen."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.board import Board
from bench.cli.options import Machine
from bench.cli.time_left import TimeLeft
from bench.contract.plugins import Outside
from bench.executors import local
from bench.executors.jobs import Event, Job, More, note_failure, nothing_more
from bench.executors.prepare import Need, Preparation
from bench.grids.plan import Planned, needs
from bench.tasks.data import sources

if TYPE_CHECKING:
    from rich.console import Console


def console_of() -> "Console":
    """Where commands print: as wide as the terminal, or 140 columns where there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def work(
    console: "Console",
    what: str,
    jobs: Sequence[Job],
    machine: Machine,
    more: More = nothing_more,
    total: int | None = None,
    left: TimeLeft | None = None,
    *,
    patient: bool = True,
) -> list[str]:
    """Run the jobs, and those that they make possible, and show their progress; returns why some failed.

    total: how many there will be, where it is more than the first ones. left: how long they take, if that is known.
    patient: whether to wait for what others do.
    """
    failed = []
    if jobs:
        events = _execute(jobs, machine, more, patient=patient)
        with Board(console, what, total or len(jobs), left) as board, closing(events):
            for event in events:
                board.show(event)
                if event is not None and event.kind == "failed":
                    failed.append(str(event.detail))
                    note_failure(event, machine.out)
    return failed


def _execute(jobs: Sequence[Job], machine: Machine, more: More, *, patient: bool) -> Generator[Event | None]:
    silence = machine.silence * 60 if machine.silence else None
    if machine.executor == "ray":
        cluster = machine.cluster  # first of all, for it says in a line that Ray is not installed
        from bench.executors import ray

        return ray.execute(jobs, cluster, silence, more, patient=patient)
    return local.execute(jobs, machine.slots, silence, more, patient=patient)


def download_all(runs: Sequence[Planned], data: Path) -> None:
    """Download the data sets that the runs read, where they are missing."""
    for data_set in sorted({needed for run in runs for needed in needs(run)}):
        sources.download(data_set, data)


def prepare(console: "Console", wanted: Iterable[Need], outside: Outside, machine: Machine) -> list[str]:
    """Decode the data sets, train the teachers and examine the black boxes that are lacking; returns why some failed.

    UsageError for a data set that is broken and for a black box that does not answer.
    """
    preparation = Preparation(wanted, machine.out, machine.data, outside)
    total = preparation.ahead()
    return work(console, "preparations", preparation(), machine, preparation, total)
