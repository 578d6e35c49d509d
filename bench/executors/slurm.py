"""Workers as an array job of Slurm, submitted by submitit: each runs one command and takes cells until none is left.

Who does which cell the results folder decides (results/claims.py), so nothing is scheduled here. Before its time is up
a job is sent a signal: its worker saves what it is at, and submitit puts the job back into the queue, to go on later.
What submitit needs lies in the results folder too: a node that does not see that folder cannot begin.
"""

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from submitit import Job, SlurmExecutor
from submitit.core.core import PicklingExecutor
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string as sbatch_file

from bench.errors import UsageError, told, unknown

KNOWN = SlurmExecutor._valid_parameters() - {"nodes", "ntasks_per_node", "num_gpus"}  # a worker is one task on one node
TYPES = get_type_hints(sbatch_file)
USUAL = {"time": 60}  # minutes; submitit's own 5 would be spent on starting again
REQUEUES = 1000  # how often a worker may run out of time: each time it has done some more
FLAGS: dict[Any, bool] = {"true": True, "false": False}
KILL_WAIT = 300.0  # seconds in which Slurm kills a job that it has told to end, or sends what puts it back


class WorkerFailed(Exception):
    """The command of a worker ended with neither 0 nor 1; why is in its log."""


class Worker:
    """A command, `bench` with these words, as a child of a submitit job.

    Called, it returns 0, or 1 where a cell failed, whose record says why; WorkerFailed for any other end.
    """

    def __init__(self, words: list[str], folder: Path) -> None:
        """folder: where it starts."""
        self._words, self._folder = words, folder
        self._child = 0  # its process
        self._told = False

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        meant_for_us = {signal.SIGUSR1, signal.SIGUSR2}  # Slurm may send them to all processes of a job
        before = signal.pthread_sigmask(signal.SIG_BLOCK, meant_for_us)
        child = subprocess.Popen([sys.executable, "-m", "bench", *self._words], cwd=self._folder)
        self._child = child.pid
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        child.returncode = self._wait()
        if self._told:
            time.sleep(KILL_WAIT)
        if child.returncode not in {0, 1}:
            raise WorkerFailed(f"the worker ended with {child.returncode}")
        return child.returncode

    def checkpoint(self) -> DelayedSubmission:
        """What submitit calls when the time is up, from a signal handler: save, and be put back into the queue."""
        if self._child:
            self._end()
            with suppress(ChildProcessError):  # it has ended by itself just now
                self._wait()
        return DelayedSubmission(Worker(self._words, self._folder))

    def _end(self) -> None:
        """Tell the child to save; once, for a second time would keep it from that."""
        if self._child and not self._told:
            self._told = True
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)

    def _wait(self) -> int:
        """The child's exit code. Not by Popen, whose lock a signal handler that waits too would never get."""
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])


def checked(given: Mapping[str, Any], run: str) -> dict[str, Any]:
    """The parameters of a run's array, as submitit takes them; UsageError for an unknown one and a wrong value."""
    made: dict[str, Any] = {"job_name": f"bench-{run}", **USUAL}
    for key, value in given.items():
        if key not in KNOWN:
            raise unknown("parameter of submitit", key, KNOWN)
        value = FLAGS.get(value, value) if isinstance(value, str) else value
        try:
            adapter = TypeAdapter(TYPES[key], config=ConfigDict(coerce_numbers_to_str=True))
            made[key] = adapter.validate_python(value)
        except ValidationError as error:
            minutes = ", in minutes" if key == "time" else ""
            message = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise UsageError(f"--slurm {key}={value}: wanted {message}{minutes}") from error
    return made


def script(parameters: dict[str, Any], folder: Path, workers: int) -> str:
    """What sbatch is given for so many workers, whose jobs and logs lie in the folder."""
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return sbatch_file(command=command, folder=folder, map_count=workers if workers > 1 else None, **parameters)


def executor_in(folder: Path, parameters: dict[str, Any]) -> PicklingExecutor:
    """What submits to the Slurm of this machine; UsageError where it has none."""
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise UsageError("--executor slurm: there is no sbatch here; wanted a machine from which Slurm takes jobs")
    executor = SlurmExecutor(folder, max_num_timeout=REQUEUES)
    executor.update_parameters(**parameters)
    return executor


def submit(worker: Worker, folder: Path, parameters: dict[str, Any], workers: int) -> list[Job[int]]:
    """Submit an array of so many such workers; UsageError, in sbatch's words, where that refuses it."""
    executor = executor_in(folder, parameters)
    try:
        with redirect_stderr(io.StringIO()):  # where submitit repeats those words
            return executor.submit_array([worker] * workers)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UsageError("; ".join(str(error).splitlines()) or "sbatch refused the job, and says no more") from error
    except OSError as error:
        raise UsageError(f"sbatch cannot be run: {told(error)}") from error


def array_of(jobs: list[Job[int]]) -> str:
    """The number by which Slurm knows the array: what scancel wants."""
    return jobs[0].job_id.partition("_")[0]


def why_ended(job: Job[int]) -> str | None:
    """Why a worker that has ended did not come to its end; None where it did."""
    paths = job.paths
    if not paths.result_pickle.exists():
        if not (paths.stderr.exists() or paths.stdout.exists()):
            return f"{job.state}, and it left nothing in {paths.folder}: wanted an --out that all nodes share"
        return f"Slurm ended it: {job.state}; its log is {paths.stderr}"
    if job.exception() is None:
        return None
    said = [line for line in (job.stderr() or "").splitlines() if line.startswith("bench: ")]
    return said[-1].removeprefix("bench: ") if said else f"its log is {paths.stderr}"
