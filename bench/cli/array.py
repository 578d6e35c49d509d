"""Workers on Slurm: what they are to do, and what becomes of them."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import show
from bench.cli.board import Board
from bench.cli.options import Foreign, Machine, Selection, Slurm, words
from bench.errors import UsageError
from bench.grids.plan import Planned

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Array:
    """An array job for a run, still to be submitted. words: of the command that each worker runs. folder: of its jobs
    and logs."""

    words: list[str]
    folder: Path
    parameters: dict[str, Any]
    workers: int

    def script(self, waiting: Sequence[Planned]) -> str:
        """What sbatch would be given."""
        from bench.executors import slurm

        return slurm.script(self.parameters, self.folder, self._size(waiting))

    def submit(self, console: "Console", waiting: Sequence[Planned]) -> list[Any]:
        """Submit as many workers as were asked for, but no more than there are runs; returns their jobs."""
        from bench.executors import slurm

        size = self._size(waiting)
        jobs = slurm.submit(slurm.Worker(self.words, Path.cwd()), self.folder, self.parameters, size)
        console.print(f"{size} workers submitted as {slurm.array_of(jobs)}, with logs in {self.folder}", markup=False)
        return jobs

    def _size(self, waiting: Sequence[Planned]) -> int:
        return max(1, min(self.workers, len(waiting)))


def array(name: str, own: list[str], selection: Selection, foreign: Foreign, machine: Machine, given: Slurm) -> Array:
    """The array of a run of that name; UsageError for what is wrong with it before anything is done.

    own: the words of `bench run` that are in none of the groups.
    """
    try:
        from bench.executors import slurm
    except ModuleNotFoundError as error:
        wanted = "wanted the package submitit; pip install 'blackbox-bench[slurm]'"
        raise UsageError(f"--executor slurm: {wanted}") from error
    there = replace(machine, executor="local", out=machine.out.absolute(), data=machine.data.absolute())
    command = ["run", *words(selection), *words(foreign), *words(there), f"--name={name}", *own, "--worker"]
    folder = there.out / name / "slurm"
    return Array(command, folder, slurm.checked(given.given(), name), given.workers or 1)


def follow(console: "Console", jobs: list[Any], waiting: Sequence[Planned], machine: Machine, run: str) -> None:
    """Show what the workers do until all have ended; UsageError where none of them could work."""
    from bench.executors import slurm
    from bench.executors.watch import watch

    broken: list[str] = []
    open_jobs = list(jobs)

    def at_work() -> bool:
        for job in [job for job in open_jobs if job.done()]:
            open_jobs.remove(job)
            if why := slurm.why_ended(job):
                broken.append(f"worker {job.job_id}: {why}")
                show.warning(console, broken[-1])
        return bool(open_jobs)

    events = watch(waiting, machine.out, machine.data, at_work)
    try:
        with Board(console, "runs", len({run.cell or run for run in waiting})) as board, closing(events):
            for event in events:
                board.show(event)
    except KeyboardInterrupt:
        told = f"the workers go on; bench status {run} follows them, scancel {slurm.array_of(jobs)} ends them"
        console.print(told, markup=False)
        raise
    if len(broken) == len(jobs):
        raise UsageError(broken[0])
