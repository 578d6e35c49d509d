"""`bench plan`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Foreign, Machine, Selection

if TYPE_CHECKING:
    from rich.console import Console

    from bench.grids.plan import Planned


def plan(
    selection: Selection,
    foreign: Foreign,
    machine: Machine,
    cells: Annotated[Path | None, typer.Option("--cells", help="Write each cell to be run as a file there.")] = None,
) -> None:
    """Show what `run` would do."""
    from bench.cli import show
    from bench.cli.asked import asked
    from bench.cli.work import console_of
    from bench.grids.plan import plan as planned
    from bench.grids.plan import wanted

    ask, console = asked(selection, foreign), console_of()
    show.remarks(console, ask.remarks)
    chosen = planned(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    show_plan(console, ask.name, chosen, machine, full=True)
    if cells:
        _write(console, wanted(chosen), cells)


def _write(console: "Console", waiting: "Sequence[Planned]", folder: Path) -> None:
    """Leave a file for `bench cell` of each cell that waits, as far as its teacher is there to name it."""
    from bench.cells.code import versions_of
    from results.records import CellRecord, plain
    from results.store import write_json

    named = {run.cell.name(): run.cell for run in waiting if run.cell}
    for name, cell in named.items():
        write_json(folder / f"{name}.json", plain(CellRecord(cell.identity(), versions_of(cell.method))))
    unnamed = sum(run.cell is None for run in waiting)
    left = f"; {unnamed} runs wait for their teachers: bench teachers" if unnamed else ""
    console.print(f"{len(named)} cells written to {folder}{left}", markup=False)


def show_plan(
    console: "Console", name: str, chosen: "Sequence[Planned]", machine: Machine, *, rerun: bool = False, full: bool
) -> None:
    """Print the plan, with what it will take. rerun: whether stale runs are among what is to be done."""
    import torch

    from bench.cli import show
    from bench.executors.prepare import to_pay, untrained
    from bench.grids.estimate import estimate
    from bench.grids.plan import wanted
    from bench.provenance import device_name

    waiting, missing = wanted(chosen, rerun=rerun), untrained(chosen, machine.out)
    there = "Slurm" if machine.executor == "slurm" else machine.ray_address and f"the Ray at {machine.ray_address}"
    here = there or device_name(torch.device(machine.slots[0].device))
    cost = estimate(waiting, missing.values(), machine.out, here)
    console.print(show.plan(name, chosen, waiting, missing, cost, here, full=full))
    for line in show.price(to_pay(waiting, machine.out)):
        console.print(line, markup=False)
