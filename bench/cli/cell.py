"""`bench cell`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import Foreign, Machine, Words
from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.contract.plugins import Outside

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

    from bench.cli import show
    from bench.cli.asked import load_for
    from bench.cli.work import console_of
    from bench.provenance import set_precision
    from results.records import CellRecord, Point, read

    machine.without_slurm("bench cell")
    console, identity = console_of(), read(file, CellRecord).identity
    outside = load_for(str(identity.get("task")), task, foreign)
    torch.set_num_threads(machine.slots[0].threads)
    set_precision()
    name = _run(identity, outside, machine, console)
    console.print(name, markup=False)
    console.print(show.curve(read(machine.out / "cells" / name / "curve.json", list[Point])))


def _run(identity: dict[str, Any], outside: "Outside", machine: Machine, console: "Console") -> str:
    """Bring the cell to its end; returns its name."""
    import torch

    from bench.boxes.door import record_of
    from bench.cells.cell import Cell
    from bench.cells.run import CellFailed, How
    from bench.executors.jobs import work_on_cell
    from bench.tasks.table import task_of
    from results.claims import Busy, is_held

    cell, device = Cell.of(identity), torch.device(machine.slots[0].device)
    there = record_of(task_of(cell.task, cell.teacher_seed), machine.out)
    if there is None or there.hash != cell.teacher:
        raise UsageError(f"no teacher {cell.teacher[:12]} in {machine.out}; bench teachers trains what lacks")
    how = How(machine.checkpoint, isolate=machine.isolate)
    while True:
        try:
            work_on_cell(cell, machine.out, machine.data, outside, how, device, _Spoken(console))
            return cell.name()
        except CellFailed as error:
            console.print(f"FAILED {cell.name()}: {error}", markup=False)
            raise typer.Exit(1) from error
        except Busy as error:
            if is_held(machine.out / "cells" / cell.name()):
                raise UsageError(f"{cell.name()} is at work in another process") from error
            time.sleep(AGAIN)  # it seems to be of a machine that died, which takes a while to be certain


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
