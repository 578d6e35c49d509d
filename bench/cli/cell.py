"""`bench cell`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Foreign, Machine, Words
from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 5.0  # seconds between two lines
AGAIN = 1.0  # until it is tried again to have the cell
FILE_HELP = "cell.json of a cell's folder, or one that bench plan --cells wrote."


def cell(
    file: Annotated[Path, typer.Argument(metavar="CELL", help=FILE_HELP)],
    foreign: Foreign,
    machine: Machine,
    task: Annotated[Words, typer.Option("--task", help="folder:PATH, where the cell's task is one.")] = None,
) -> None:
    """Run one cell in this process, from its checkpoint if it has one: what every executor does.

    What its grid took from outside must be named again, and its teacher be there.
    """
    import torch

    from bench.boxes.door import record_of
    from bench.cells.cell import Cell
    from bench.cells.run import CellFailed, How
    from bench.cli import show
    from bench.cli.asked import load_for
    from bench.cli.work import console_of
    from bench.executors.jobs import work_on_cell
    from bench.provenance import set_precision
    from bench.tasks.table import task_of
    from results.claims import Busy, is_held
    from results.records import CellRecord, Point, RecordError, read

    machine.without_slurm("bench cell")
    console = console_of()
    try:
        identity = read(file, CellRecord).identity
        outside = load_for(str(identity.get("task")), task, foreign)
        chosen = Cell.of(identity)
    except RecordError as error:
        raise UsageError(str(error)) from error
    there = record_of(task_of(chosen.task, chosen.teacher_seed), machine.out)
    if there is None or there.hash != chosen.teacher:
        raise UsageError(f"{file}: no teacher {chosen.teacher[:12]} in {machine.out}; bench teachers trains what lacks")
    slot = machine.slots[0]
    torch.set_num_threads(slot.threads)
    set_precision()
    how, folder = How(machine.checkpoint, isolate=machine.isolate), machine.out / "cells" / chosen.name()
    while True:
        try:
            work_on_cell(chosen, machine.out, machine.data, outside, how, torch.device(slot.device), _Spoken(console))
            break
        except CellFailed as error:
            console.print(f"FAILED {chosen.name()}: {error}", markup=False)
            raise typer.Exit(1) from error
        except Busy as error:
            if is_held(folder):
                raise UsageError(f"{chosen.name()} is at work in another process") from error
            time.sleep(AGAIN)  # it seems to be of a machine that died, which takes a while to be certain
    points = read(folder / "curve.json", list[Point])
    console.print(chosen.name(), markup=False)
    console.print(show.curve(points))


class _Spoken:
    """The report of a job on the screen: a line now and then."""

    def __init__(self, console: "Console") -> None:
        self._console, self._last = console, time.monotonic()

    def __call__(self, done: float, figures: dict[str, float] | None = None) -> None:
        if time.monotonic() - self._last > EVERY:
            told = ", ".join(f"{name} {value:.4g}" for name, value in (figures or {}).items())
            self.say(f"{done:,.0f} queries; {told}")
            self._last = time.monotonic()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)
