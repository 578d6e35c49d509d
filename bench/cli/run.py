"""`bench run`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Foreign, Machine, Selection, Slurm, Tracking
from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells.run import How
    from bench.cli.array import Array
    from bench.cli.asked import Asked
    from bench.cli.time_left import TimeLeft
    from bench.executors.jobs import Event, Job
    from bench.grids.plan import Planned

WORKER_HELP = "Only work, beside other commands on the same folder: no report, no MLflow, and no waiting for others."


def run(
    selection: Selection,
    foreign: Foreign,
    machine: Machine,
    slurm: Slurm,
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
    from bench.cli.array import follow
    from bench.cli.asked import asked
    from bench.cli.plan import show_plan
    from bench.cli.runs import run_folder
    from bench.cli.work import console_of, download_all
    from bench.grids.plan import plan, wanted

    ask, console = asked(selection, foreign), console_of()
    own = [word for word, is_given in (("--rerun", rerun), ("--keep-students", keep_students)) if is_given]
    array = _array(name or ask.name, own, selection, foreign, machine, slurm, worker=worker)
    show.remarks(console, ask.remarks)
    if download and not dry_run:
        download_all(ask.chosen, machine.data)
    chosen = plan(ask.chosen, machine.out, machine.data, gpu=machine.gpu)
    show_plan(console, ask.name, chosen, machine, rerun=rerun, full=dry_run)
    waiting, how = wanted(chosen, rerun=rerun), How(machine.checkpoint, keep_students, machine.isolate)
    if dry_run:
        if array:
            console.print(array.script(waiting), markup=False, soft_wrap=True)
        return
    if not any(item.runnable for item in chosen):
        raise UsageError(f"nothing can run here: {chosen[0].reason}")
    this = _Run(console, ask, chosen, waiting, run_folder(name or ask.name, machine), machine, how)
    this.keep_record()
    if worker:
        raise typer.Exit(1 if this.work(patient=False) else 0)
    jobs = array.submit(console, waiting) if array and waiting else []
    if not slurm.leave:
        watch = partial(follow, console, jobs, waiting, machine, this.folder.name)
        raise typer.Exit(0 if this.is_done(watch if array else this.work, mlflow) else 1)


def _array(
    name: str, own: list[str], selection: Selection, foreign: Foreign, machine: Machine, slurm: Slurm, *, worker: bool
) -> "Array | None":
    """The array of workers, where Slurm is to do the runs; UsageError for options that do not go together."""
    if machine.executor == "slurm":
        if worker:
            raise UsageError("--worker: wanted without --executor slurm, whose workers are given it")
        from bench.cli.array import array

        return array(name, own, selection, foreign, machine, slurm)
    for option, given in (("--workers", slurm.workers), ("--slurm", slurm.slurm), ("--leave", slurm.leave)):
        if given:
            raise UsageError(f"{option}: wanted with --executor slurm")
    return None


@dataclass(frozen=True)
class _Run:
    """A grid whose chosen runs are to have results. waiting: those of them that have none. folder: of the report."""

    console: "Console"
    ask: "Asked"
    chosen: "list[Planned]"
    waiting: "list[Planned]"
    folder: Path
    machine: Machine
    how: "How"

    def keep_record(self) -> None:
        """Write run.json, as things are now."""
        from bench.cli.runs import keep_record

        keep_record(self.folder, self.ask, self.machine)

    def is_done(self, do: Callable[[], object], mlflow: str | None) -> bool:
        """Report what there is once `do` has ended, and mirror it meanwhile; returns whether all has a result."""
        from bench.cli import show
        from bench.cli.report import show_report
        from bench.cli.runs import versions_now
        from bench.executors.prepare import changed, foreign
        from bench.grids.plan import plan
        from bench.mirror import Follower, default_uri

        machine, uri = self.machine, mlflow or default_uri(self.machine.out)
        with Follower(self.folder, uri, partial(show.warning, self.console), versions_now()):
            do()
            changes = changed(self.waiting, machine.out)
            if foreign(self.chosen) or machine.executor == "slurm":
                self.keep_record()  # with what the black boxes have cost, and which cells the workers found, by now
            show_report(self.console, self.folder)
        for line in changes:
            show.warning(self.console, line)
        done = plan(self.ask.chosen, machine.out, machine.data, gpu=machine.gpu)
        return all(item.state == "done" for item in done) and not changes

    def work(self, *, patient: bool = True) -> list[str]:
        """Run what waits, and before it what is lacking; returns why some failed. patient: see `work`."""
        from bench.cli.work import work
        from bench.executors.jobs import cell_jobs
        from bench.executors.prepare import Need, Preparation, needs_of
        from bench.grids.plan import plan

        by_need, machine, outside = needs_of(self.waiting), self.machine, self.ask.outside

        def then(need: Need) -> "list[Job]":
            """The cells of a need, which are named by its teacher."""
            runs = plan(by_need.get(need, []), machine.out, machine.data, gpu=machine.gpu)
            cells = [run.cell for run in runs if run.cell and run.runnable]  # an examined box may reveal too little
            return cell_jobs(cells, machine.out, machine.data, outside, self.how)

        def more(event: "Event") -> "list[Job]":
            made = preparation(event)
            if any(job.saves for job in made):
                self.keep_record()  # with the names of the cells
            return made

        preparation = Preparation(needs_of(self.chosen), machine.out, machine.data, outside, then)
        total = preparation.ahead() + len({run.cell or run for run in self.waiting})
        left = _time_left(self.waiting, total, machine)
        return work(self.console, "runs", preparation(), machine, more, total, left, patient=patient)


def _time_left(waiting: "list[Planned]", total: int, machine: Machine) -> "TimeLeft | None":
    """How long the runs take, as far as that is known of the device; None if it is of none. total: of all jobs."""
    import math

    from bench.cli.plan import device_of
    from bench.cli.time_left import TimeLeft
    from bench.executors.jobs import work_on_cell
    from bench.grids.estimate import Judge

    judge = Judge({run.task for run in waiting}, machine.out, device_of(machine))
    judged = {run.terms: judge.seconds(run) for run in waiting}

    def of(job: "Job") -> float:
        """Cells are known by what they are, for a plan may be older than the teachers that name them."""
        if job.function is not work_on_cell:
            return math.nan
        cell = job.arguments[0]
        return judged.get((cell.task, cell.method, cell.config, cell.budget), math.nan)

    each = {run.cell or run: judged[run.terms] for run in waiting}
    known = [seconds for seconds in each.values() if not math.isnan(seconds)]
    return TimeLeft(of, sum(known), total - len(known), machine.room) if known else None
