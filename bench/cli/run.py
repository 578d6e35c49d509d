"""`bench run`."""

from typing import Annotated

import typer

from bench.cli.options import Machine, Selection, Tracking
from bench.errors import UsageError


def run(
    selection: Selection,
    machine: Machine,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; default: the grid's.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Download missing data sets first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, and stop.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run stale cells again too.")] = False,
    keep_students: Annotated[bool, typer.Option("--keep-students", help="Keep final students as models.")] = False,
    mlflow: Tracking = None,
) -> None:
    """Run a grid, or what of it is missing, and report it."""
    from bench.cells.run import How
    from bench.cli import show
    from bench.cli.asked import asked
    from bench.cli.plan import show_plan
    from bench.cli.report import show_report
    from bench.cli.runs import keep_record, run_folder, versions_now
    from bench.cli.work import console_of, download_all, prepare, work
    from bench.executors.jobs import cell_jobs
    from bench.executors.prepare import changed
    from bench.grids.plan import plan, wanted
    from bench.mirror import Follower, default_uri

    ask, console = asked(selection), console_of()
    show.remarks(console, ask.remarks)
    if download and not dry_run:
        download_all(ask.chosen, machine.data)
    chosen = plan(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    show_plan(console, ask.name, chosen, machine, rerun=rerun, full=dry_run)
    if dry_run:
        return
    if not any(item.runnable for item in chosen):
        raise UsageError(f"nothing can run here: {chosen[0].reason}")
    folder = run_folder(name or ask.name, machine)
    prepare(console, chosen, ask.outside, machine)
    chosen = plan(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    keep_record(folder, ask, machine)
    uri = mlflow or default_uri(machine.out)

    cells = [item.cell for item in wanted(chosen, rerun=rerun) if item.cell]
    jobs = cell_jobs(
        cells,
        machine.out,
        machine.data,
        ask.outside,
        How(machine.checkpoint, keep_students, machine.isolate),
    )
    with Follower(folder, uri, lambda line: show.warning(console, line), versions_now()):
        work(console, "cells", jobs, machine)
        changes = changed(chosen, machine.out)
        keep_record(folder, ask, machine)  # with what the black boxes have cost by now
        show_report(console, folder)
    for line in changes:
        show.warning(console, line)
    done = plan(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    raise typer.Exit(0 if all(item.state == "done" for item in done) and not changes else 1)
