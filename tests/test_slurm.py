"""Slurm: submitit's local executor in its place, a command named sbatch that answers as Slurm's does, and bad input."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from support import bench

pytest.importorskip("submitit")
from submitit import Job, LocalExecutor

from bench.cli.options import Machine, Selection, grouped, words
from bench.executors import slurm
from bench.executors.slurm import Worker

ROOT = Path(__file__).parents[1]
GRID = """
description: seconds on a CPU
tasks: [digits-lenet]
budgets: [80]
answers: [labels]
seeds: 2
methods:
  noise: {config: {recipe: {passes: 1, min_steps: 2}}}
  noting: {}
"""
METHOD = '''"""Trains on uniform noise, slowly, and notes where each run begins.

Differs from the paper: there is none.
Differs from the released code: there is none.
"""

import time
from pathlib import Path

import torch
from pydantic import BaseModel

ANSWERS, DATA, PROTOCOL = ("labels",), "none", "per_budget"


class Config(BaseModel, frozen=True, extra="forbid"):
    """No settings."""


def distill(oracle, student, config, run):
    run.track()
    with Path("NOTES").open("a") as notes:
        notes.write(f"{oracle.budget.queries} {torch.initial_seed()} {oracle.spent}\\n")
    while True:
        images = torch.rand(10, *oracle.shape, generator=run.rng, device=run.device)
        oracle(images)
        with torch.no_grad():
            next(student.parameters()).mul_(1 + images.mean())
        time.sleep(0.4)
        yield {}
'''
SBATCH = """#!/bin/sh
cp "$1" SCRIPT
echo "Submitted batch job 7"
"""
REFUSES = """#!/bin/sh
echo "sbatch: error: invalid partition specified: nope" >&2
echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
exit 1
"""
SACCT = """#!/bin/sh
printf 'JobID|State|NodeList\\n7_0|STATE|n1\\n7_1|STATE|n2\\n'
"""


@pytest.fixture
def home(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a grid, a method that notes where it begins, and a trained teacher in runs/."""
    home = trained.parent / f"{trained.name}-slurm"
    (home / "runs").mkdir(parents=True)
    (trained / "teachers").rename(home / "runs/teachers")
    (home / "g.yaml").write_text(GRID)
    (home / "noting.py").write_text(METHOD.replace("NOTES", str(home / "notes.txt")))
    monkeypatch.chdir(home)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return home


@pytest.fixture
def cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts commands on the path that answer as Slurm's do: sbatch as it is given, jobs in that state."""

    def answer(sbatch: str = SBATCH, state: str = "RUNNING") -> None:
        (home / "bin").mkdir()
        content = {"sbatch": sbatch.replace("SCRIPT", str(home / "script.sh")), "srun": "#!/bin/sh\n"}
        for name, text in {**content, "sacct": SACCT.replace("STATE", state)}.items():
            (home / "bin" / name).write_text(text)
            (home / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return answer


def command(*more: str) -> list[str]:
    plugin = ["--plugin", "noting.py", "--mlflow", "off"]
    return ["run", "--grid", "g.yaml", *plugin, "--device", "cpu", "--jobs", "1", *more]


def here(folder: Path, parameters: dict[str, Any]) -> LocalExecutor:  # noqa: ARG001 - the shape of slurm.executor_in
    """Submitit's own executor on this machine."""
    executor = LocalExecutor(folder)
    executor.update_parameters(timeout_min=5)
    return executor


def curves(root: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in root.glob("cells/*/curve.json")}


def notes(home: Path) -> list[list[int]]:
    """Budget, seed and queries spent of each run of the method that began."""
    return [[int(word) for word in line.split()] for line in (home / "notes.txt").read_text().splitlines()]


def wait_until(is_so: Callable[[], object], job: Job[int] | None = None) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        assert job is None or not job.done(), job.stderr()
        time.sleep(0.1)


def test_workers_share_a_grid_do_each_cell_once_and_leave_the_curves_of_the_local_executor(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "executor_in", here)
    (home / "runs/teachers").rename(home / "teachers")
    assert bench(*command("--executor", "slurm", "--workers", "2")) == 0
    told = capfd.readouterr().out
    assert max(Counter(tuple(cell) for cell in notes(home)).values()) == 1
    (home / "alone").mkdir()
    (home / "teachers").rename(home / "alone/teachers")
    assert bench(*command("--out", "alone")) == 0
    assert curves(home / "runs") == curves(home / "alone")
    assert len(curves(home / "runs")) == 4
    assert "2 workers submitted as " in told
    assert all(f" {cell} (" in told for cell in curves(home / "runs"))
    assert "report: " in told
    assert len(list(home.glob("runs/g/slurm/*_log.err"))) == 2


def test_a_worker_whose_time_is_up_saves_its_cell_and_goes_on_with_it_when_it_is_put_back(home: Path) -> None:
    choice = command("--method", "noting", "--seeds", "1", "--checkpoint", "0")
    (job,) = here(home / "jobs", {}).submit_array([Worker([*choice, "--worker"], home)])
    assert isinstance(job._process, subprocess.Popen)
    wait_until(lambda: list(home.glob("runs/cells/*/checkpoint.pt")), job)
    (submitted,) = subprocess.check_output(["pgrep", "-P", str(job._process.pid)], text=True).split()
    os.kill(int(submitted), signal.SIGUSR2)
    assert job.result() == 0
    assert "Requeued job" in (job.stdout() or "") + (job.stderr() or "")
    (first, second) = notes(home)
    assert first[:2] == second[:2]
    assert first[2] == 0 < second[2] < 80
    (home / "alone").mkdir()
    (home / "runs/teachers").rename(home / "alone/teachers")
    assert bench(*choice, "--out", "alone") == 0
    assert curves(home / "runs") == curves(home / "alone")


def test_a_worker_that_is_told_to_end_has_its_command_save(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "KILL_WAIT", 0.0)
    (home / "bench").mkdir()
    (home / "bench/__init__.py").touch()
    (home / "bench/__main__.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "os.kill(os.getpid(), signal.SIGUSR2)\n"  # which Slurm may send to all of a job
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(slurm.WorkerFailed, match="130"):
            Worker([], home)()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_line_of_a_worker_that_cannot_work_is_told(home: Path) -> None:
    (job,) = here(home / "jobs", {}).submit_array([Worker(["run", "--grid", "digitz", "--worker"], home)])
    wait_until(job.done)
    assert (slurm.why_ended(job) or "").startswith("unknown grid 'digitz'; did you mean digits")


def test_a_dry_run_prints_what_sbatch_is_given_and_submits_nothing(
    home: Path, cluster: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    cluster()
    (home / "site.yaml").write_text("partition: cpu\nsetup: [module load python]\n")
    asked_for = ["--executor", "slurm", "--workers", "2", "--slurm", "site.yaml", "--slurm", "partition=gpu"]
    asked_for += ["--slurm", "time=240", "--slurm", "account=0042"]
    assert bench(*command(*asked_for, "--dry-run")) == 0
    printed = capfd.readouterr().out
    assert not (home / "script.sh").exists()
    assert bench(*command(*asked_for, "--leave")) == 0
    given = (home / "script.sh").read_text()
    assert given in printed
    wanted = {"partition=gpu", "time=240", "account=0042", "array=0-1%2", "job-name=bench-g"}
    assert wanted <= {line.removeprefix("#SBATCH --") for line in given.splitlines()}
    assert "\nmodule load python\n" in given
    assert "2 workers submitted as 7, with logs in " in capfd.readouterr().out


def test_workers_that_leave_nothing_in_the_results_folder_do_not_share_it(
    cluster: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    cluster(state="FAILED")
    assert bench(*command("--executor", "slurm", "--workers", "2")) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("bench: worker 7_0: FAILED, and it left nothing in ")
    assert line.endswith(": wanted an --out that all nodes share")


def test_an_interruption_leaves_the_workers_and_says_how_to_end_them(home: Path, cluster: Callable[..., None]) -> None:
    cluster()
    words = [sys.executable, "-m", "bench", *command("--executor", "slurm", "--workers", "2")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until((home / "script.sh").exists)
    assert process.stdout
    told = ""
    while "submitted as" not in told:
        told = process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "the workers go on; bench status g follows them, scancel 7 ends them" in rest


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--slurm", "partitoin=gpu"], "unknown parameter of submitit 'partitoin'; did you mean partition?"),
        (["--slurm", "time=2:00:00"], "--slurm time=2:00:00: wanted a valid integer"),
        (["--slurm", "gpu"], "--slurm gpu: wanted KEY=VALUE, or a file FILE.yaml with such keys"),
        (["--slurm", "none.yaml"], "--slurm none.yaml cannot be read: No such file or directory"),
        (["--slurm", "partition=nope"], "sbatch: error: invalid partition specified: nope; "),
        (["--worker"], "--worker: wanted without --executor slurm"),
    ],
)
def test_what_slurm_cannot_be_given_is_one_line(
    words: list[str], line: str, cluster: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    cluster(sbatch=REFUSES)
    assert bench(*command("--executor", "slurm", *words)) == 2
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith(f"bench: {line}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (command("--executor", "slurm"), "--executor slurm: there is no sbatch here; wanted a machine from which"),
        (command("--workers", "2"), "--workers: wanted with --executor slurm"),
        (command("--leave"), "--leave: wanted with --executor slurm"),
        (["teachers", "--executor", "slurm"], "--executor slurm: wanted with bench run, and local or ray with bench"),
        (["tune", "noise", "--executor", "slurm"], "--executor slurm: wanted with bench run, and local or ray with"),
    ],
)
def test_slurm_where_it_is_not_is_one_line(
    words: list[str], line: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert bench(*words) == 2
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith(f"bench: {line}")


def test_a_package_that_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "bench.executors.slurm")
    monkeypatch.delattr("bench.executors.slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert bench("run", "--executor", "slurm") == 2
    (told,) = capfd.readouterr().err.splitlines()
    assert told == "bench: --executor slurm: wanted the package submitit; pip install 'blackbox-bench[slurm]'"


def test_the_words_for_a_worker_give_the_options_back() -> None:
    selection = Selection("g.yaml", task=["a,b", "-c"], settings=["noise.recipe.passes=[1, 2]"], teachers=2)
    machine = Machine(Path("some data"), Path("out"), device="cpu", threads=2, isolate=True, checkpoint=0.0)
    found: list[object] = []

    def command(selection: Selection, machine: Machine) -> None:
        found.extend([selection, machine])

    app = typer.Typer()
    app.command()(grouped(command))
    app([*words(selection), *words(machine)], standalone_mode=False)
    assert found == [selection, machine]
