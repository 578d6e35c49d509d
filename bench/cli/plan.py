"""`bench plan`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Foreign, Machine, Selection
from bench.errors import UsageError

PATIENCE_HELP = "Seconds of a rehearsal, and up to 32 times as many where that tells more."
CALIBRATE_HELP = "First rehearse each method and task here that was not yet rehearsed to an end, to judge the time by."
PATIENCE = 0.3

if TYPE_CHECKING:
    from rich.console import Console

    from bench.contract.plugins import Outside
    from bench.grids.plan import Planned


def plan(
    selection: Selection,
    foreign: Foreign,
    machine: Machine,
    cells: Annotated[Path | None, typer.Option("--cells", help="Write each cell to be run as a file there.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help=CALIBRATE_HELP)] = False,
    patience: Annotated[float, typer.Option("--patience", min=0.1, help=PATIENCE_HELP)] = PATIENCE,
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
    if calibrate:
        machine.without_slurm("bench plan --calibrate")
        machine.check_writable()
        _calibrate(console, _ahead(chosen, machine), machine, ask.outside, patience)
    show_plan(console, ask.name, chosen, machine, full=True)
    if cells:
        _write(console, wanted(chosen), cells)


def _write(console: "Console", waiting: "Sequence[Planned]", folder: Path) -> None:
    """Leave a file for `bench cell` of each cell that waits, as far as its teacher is there to name it."""
    from bench.cells.code import versions_of
    from results.records import CellRecord, plain
    from results.store import write_json

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--cells {folder}: wanted a folder that can be written ({error.strerror})") from error
    named = {run.cell.name(): run.cell for run in waiting if run.cell}
    for name, cell in named.items():
        write_json(folder / f"{name}.json", plain(CellRecord(cell.identity(), versions_of(cell.method))))
    unnamed = sum(run.cell is None for run in waiting)
    left = f"; {unnamed} runs wait for their teachers: bench teachers" if unnamed else ""
    console.print(f"{len(named)} cells written to {folder}{left}", markup=False)


def _calibrate(
    console: "Console", ahead: "Sequence[Planned]", machine: Machine, outside: "Outside", patience: float
) -> None:
    """Rehearse each kind of run once, on the slots that runs would have."""
    from bench.cli.work import work
    from bench.executors.jobs import calibration_jobs
    from bench.grids.calibration import to_calibrate

    groups, here = to_calibrate(ahead, device_of(machine), machine.out), device_of(machine)
    work(console, "rehearsals", calibration_jobs(groups, machine.out, here, patience, outside), machine)


def _ahead(chosen: "Sequence[Planned]", machine: Machine, *, rerun: bool = False) -> "list[Planned]":
    """The runs without a result, those too that only lack their data."""
    from bench.grids.plan import wanted
    from bench.tasks.table import task_of

    lacking = [run for run in chosen if not run.runnable and (machine.gpu or not task_of(run.task).gpu)]
    return [*wanted(chosen, rerun=rerun), *lacking]


def device_of(machine: Machine) -> str:
    """The name of what computes, by which runs that were done are known; of a cluster that it is one."""
    import torch

    from bench.provenance import device_name

    there = "Slurm" if machine.executor == "slurm" else machine.ray_address and f"the Ray at {machine.ray_address}"
    return there or device_name(torch.device(machine.slots[0].device))


def show_plan(
    console: "Console", name: str, chosen: "Sequence[Planned]", machine: Machine, *, rerun: bool = False, full: bool
) -> None:
    """Print the plan, with what it will take. rerun: whether stale runs are among what is to be done. full: with
    tables, and with the cost of runs that only lack their data."""
    from bench.cli import show
    from bench.executors.prepare import to_pay, untrained
    from bench.grids.estimate import estimate
    from bench.grids.plan import wanted

    waiting, missing = wanted(chosen, rerun=rerun), untrained(chosen, machine.out)
    ahead = _ahead(chosen, machine, rerun=rerun) if full else waiting
    console.print(show.plan(name, chosen, waiting, missing, full=full))
    if ahead and machine.executor != "slurm":  # whose devices are not known before they are given
        cost = estimate(ahead, missing.values(), machine.out, device_of(machine))
        console.print(show.cost(cost, device_of(machine), machine.room, full=full))
    for line in show.price(to_pay(waiting, machine.out)):
        console.print(line, markup=False)
