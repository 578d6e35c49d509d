"""`bench plan`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.cli.options import Machine, Selection

if TYPE_CHECKING:
    from rich.console import Console

    from bench.grids.plan import Planned


def plan(selection: Selection, machine: Machine) -> None:
    """Show what `run` would do."""
    from bench.cli import show
    from bench.cli.asked import asked
    from bench.cli.work import console_of
    from bench.grids.plan import plan as planned

    ask, console = asked(selection), console_of()
    show.remarks(console, ask.remarks)
    chosen = planned(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    show_plan(console, ask.name, chosen, machine, full=True)


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
    here = device_name(torch.device(machine.slots[0].device))
    cost = estimate(waiting, missing.values(), machine.out, here)
    console.print(show.plan(name, chosen, waiting, missing, cost, here, full=full))
    for line in show.price(to_pay(waiting, machine.out)):
        console.print(line, markup=False)
