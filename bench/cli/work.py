"""Jobs at work, with their progress on the screen."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.board import Board
from bench.cli.options import Machine
from bench.contract.plugins import Outside
from bench.errors import UsageError
from bench.executors import jobs as made
from bench.executors import local
from bench.executors.prepare import preparations
from bench.grids.plan import Planned, needs
from bench.tasks.data import sources

if TYPE_CHECKING:
    from rich.console import Console


def console_of() -> "Console":
    """Where commands print: as wide as the terminal, or 140 columns where there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def work(console: "Console", what: str, jobs: Sequence[made.Job], machine: Machine) -> list[str]:
    """Run the jobs and show their progress; returns the reasons of those that failed."""
    failed = []
    silence = machine.silence * 60 if machine.silence else None
    if jobs:
        events = local.execute(jobs, machine.slots, silence)
        with Board(console, what, jobs) as board, closing(events):
            for event in events:
                board.show(event)
                if event is not None and event.kind == "failed":
                    failed.append(str(event.detail))
                    made.note_failure(event, machine.out)
    return failed


def download_all(runs: Sequence[Planned], data: Path) -> None:
    """Download the data sets that the runs read, where they are missing."""
    for data_set in sorted({needed for run in runs for needed in needs(run)}):
        sources.download(data_set, data)


def prepare(console: "Console", runs: Sequence[Planned], outside: Outside, machine: Machine) -> None:
    """Decode the data sets and train the teachers that the runs lack.

    UsageError for a data set that is broken and for a black box that does not answer; a teacher that fails is told, and
    its runs stay without a result.
    """
    for what, jobs in preparations(runs, machine.out, machine.data, outside):
        failed = work(console, what, jobs, machine)
        if failed and what in {"data sets", "black boxes"}:
            raise UsageError(failed[0])
