"""`bench run`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Foreign, Machine, Selection, Tracking
from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells.run import How
    from bench.cli.asked import Asked
    from bench.cli.time_left import TimeLeft
    from bench.executors.jobs import Event, Job
    from bench.grids.plan import Planned

WORKER_HELP = "Only work, beside other commands on the same folder: no report, no MLflow, and no waiting for others."


def run(
    selection: Selection,
    foreign: Foreign,
    machine: Machine,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; default: the grid's.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Download missing data sets first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, and stop.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run stale cells again too.")] = False,
    keep_students: Annotated[bool, typer.Option("--keep-students", help="Keep final students as models.")] = False,
    worker: Annotated[bool, typer.Option("--worker", help=WORKER_HELP)] = False,
    mlflow: Tracking = None,
) -> None:
    """Run a grid, or what of it is missing, and report it."""
    from bench.cells.run import How
    from bench.cli import show
    from bench.cli.asked import asked
    from bench.cli.plan import show_plan
    from bench.cli.report import show_report
    from bench.cli.runs import keep_record, run_folder, versions_now
    from bench.cli.work import console_of, download_all
    from bench.executors.prepare import changed
    from bench.executors.prepare import foreign as foreign_boxes
    from bench.grids.plan import plan, wanted
    from bench.mirror import Follower, default_uri

    ask, console = asked(selection, foreign), console_of()
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
    keep_record(folder, ask, machine)
    waiting, how = wanted(chosen, rerun=rerun), How(machine.checkpoint, keep_students, machine.isolate)
    if worker:
        raise typer.Exit(1 if _work(console, ask, chosen, waiting, folder, machine, how, patient=False) else 0)
    with Follower(folder, mlflow or default_uri(machine.out), partial(show.warning, console), versions_now()):
        _work(console, ask, chosen, waiting, folder, machine, how, patient=True)
        changes = changed(waiting, machine.out)
        if foreign_boxes(chosen):
            keep_record(folder, ask, machine)  # with what the black boxes have cost by now
        show_report(console, folder)
    for line in changes:
        show.warning(console, line)
    done = plan(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    raise typer.Exit(0 if all(item.state == "done" for item in done) and not changes else 1)


def _work(
    console: "Console",
    ask: "Asked",
    chosen: "list[Planned]",
    waiting: "list[Planned]",
    folder: Path,
    machine: Machine,
    how: "How",
    *,
    patient: bool,
) -> list[str]:
    """Run what waits of the chosen, and before it what is lacking; returns why some failed. patient: see `work`."""
    from bench.cli.runs import keep_record
    from bench.cli.work import work
    from bench.executors.jobs import cell_jobs
    from bench.executors.prepare import Need, Preparation, needs_of
    from bench.grids.plan import plan

    by_need = needs_of(waiting)

    def then(need: Need) -> "list[Job]":
        """The cells of a need, which are named by its teacher."""
        runs = plan(by_need.get(need, []), machine.out, machine.data, gpu=machine.gpu)
        cells = [run.cell for run in runs if run.cell]
        return cell_jobs(cells, machine.out, machine.data, ask.outside, how)

    def more(event: "Event") -> "list[Job]":
        made = preparation(event)
        if any(job.saves for job in made):
            keep_record(folder, ask, machine)  # with the names of the cells
        return made

    preparation = Preparation(needs_of(chosen), machine.out, machine.data, ask.outside, then)
    total = preparation.ahead() + len({run.cell or run for run in waiting})
    left = _time_left(waiting, machine)
    return work(console, "runs", preparation(), machine, more, total, left, patient=patient)


def _time_left(waiting: "list[Planned]", machine: Machine) -> "TimeLeft | None":
    """How long the runs take, as far as that is known of the device; None if it is of none."""
    import math

    import torch

    from bench.cli.time_left import TimeLeft
    from bench.executors.jobs import work_on_cell
    from bench.grids.estimate import Judge
    from bench.provenance import device_name

    device = device_name(torch.device(machine.slots[0].device))
    judge = Judge({run.task for run in waiting}, machine.out, device)
    judged = {run.terms: judge.seconds(run) for run in waiting}

    def of(job: "Job") -> float:
        """Cells are known by what they are, for a plan may be older than the teachers that name them."""
        if job.function is not work_on_cell:
            return math.nan
        cell = job.arguments[0]
        return judged.get((cell.task, cell.method, cell.config, cell.budget), math.nan)

    known = [seconds for run in waiting if not math.isnan(seconds := judged[run.terms])]
    return TimeLeft(of, sum(known), len(machine.slots)) if known else None
