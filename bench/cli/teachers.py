"""`bench teachers`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import TASK_HELP, Machine, Words
from bench.errors import UsageError


def teachers(
    machine: Machine,
    task: Annotated[Words, typer.Option("--task", help=TASK_HELP)] = None,
    teachers: Annotated[int, typer.Option("--teachers", min=1, help="How many of each task, of other seeds.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and stop.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Measure those there are again; train none.")] = False,
    weights: Annotated[Path | None, typer.Option("--weights", help="A state dict to use as the teacher.")] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="What these weights subtract: 0.5 or 0.5,0.4,0.4.")] = None,
    std: Annotated[str | None, typer.Option("--std", help="What they divide by; default: the training set's.")] = None,
) -> None:
    """Train the teachers that are missing, and list all."""
    from bench.boxes import listing
    from bench.boxes import weights as from_elsewhere
    from bench.cli import show
    from bench.cli.asked import load_outside
    from bench.cli.work import console_of, prepare
    from bench.executors.prepare import Need
    from bench.tasks import image_folder

    machine.without_slurm("bench teachers")
    (outside, remarks), console = load_outside(None, task), console_of()
    show.remarks(console, remarks)
    made, globs = image_folder.split(task or [])
    chosen = listing.choose([*globs, *map(image_folder.register, made)], range(teachers))
    failed: list[str] = []
    if weights is not None and (check or dry_run):
        raise UsageError("--weights takes weights for a teacher: wanted without --dry-run and --check")
    if not (check or dry_run):
        machine.check_writable()
    if weights is not None:
        from_elsewhere.install(chosen, weights, machine.out, machine.data, from_elsewhere.normalisation(mean, std))
    elif not (check or dry_run):
        missing = listing.trainable(chosen, machine.out, machine.data, gpu=machine.gpu)
        failed = prepare(console, (Need(of, frozenset({of.dataset})) for of in missing.values()), outside, machine)
    check_on = machine.slots[0].device if check else None
    lines = listing.lines(chosen, machine.out, machine.data, gpu=machine.gpu, check_on=check_on)
    console.print(show.listing(listing.COLUMNS, (line.cells() for line in lines)))
    raise typer.Exit(1 if failed or any(line.wrong for line in lines) else 0)
