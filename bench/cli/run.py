"""`bench run`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Machine, Selection, Tracking
from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells.run import How
    from bench.cli.asked import Asked
    from bench.grids.plan import Planned


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
    from bench.cli.runs import keep_record, run_folder
    from bench.cli.work import console_of, download_all, prepare
    from bench.grids.plan import plan, wanted
    from bench.mirror import default_uri

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
    how = How(machine.checkpoint, keep_students, machine.isolate)
    changes = _work(console, ask, wanted(chosen, rerun=rerun), folder, machine, how, mlflow or default_uri(machine.out))
    done = plan(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    raise typer.Exit(0 if all(item.state == "done" for item in done) and not changes else 1)


def _work(
    console: "Console",
    ask: "Asked",
    waiting: "list[Planned]",
    folder: Path,
    machine: Machine,
    how: "How",
    uri: str,
) -> list[str]:
    """Run what waits, and report it; returns what was seen of black boxes that answer otherwise than before."""
    from bench.cli import show
    from bench.cli.report import show_report
    from bench.cli.runs import keep_record, versions_now
    from bench.cli.work import work
    from bench.executors.jobs import cell_jobs
    from bench.executors.prepare import changed, foreign
    from bench.mirror import Follower

    cells = [item.cell for item in waiting if item.cell]
    jobs = cell_jobs(cells, machine.out, machine.data, ask.outside, how)
    with Follower(folder, uri, lambda line: show.warning(console, line), versions_now()):
        work(console, "cells", jobs, machine)
        changes = changed(waiting, machine.out)
        if foreign(waiting):
            keep_record(folder, ask, machine)  # once more, with what the black boxes have cost by now
        show_report(console, folder)
    for line in changes:
        show.warning(console, line)
    return changes
