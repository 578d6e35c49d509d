"""The command line as a user meets it: what it prints, what it leaves, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import bench

from bench.tasks.data import sources
from results.store import read_json

TINY = """
description: seconds on a CPU
tasks: [digits-lenet]
budgets: [40, 80]
answers: [labels]
seeds: 2
methods:
  noise: {config: {recipe: {passes: 1, min_steps: 2}}}
  ideal: {config: {batch_size: 20, generator_steps: 1, generator_width: 4, latent: 8, crop_padding: 1}}
"""
OFF = ["--mlflow", "off"]
ODD = """
from pydantic import BaseModel
ANSWERS, DATA, PROTOCOL = ("labels",), "none", "anytime"
class Config(BaseModel, frozen=True, extra="forbid"):
    "No settings."
def distill(oracle, student, config, run):
    raise ValueError("logits are [batch, classes], not [/etc]")
    yield {}
"""


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trained teacher in runs/ and a grid in tiny.yaml."""
    home = trained.parent / f"{trained.name}-home"
    home.mkdir()
    trained.rename(home / "runs")
    (home / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(home)
    return home


def test_a_run_ends_with_a_table_and_the_paths_of_what_it_drew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "--grid", "tiny.yaml", *OFF) == 0
    out = capsys.readouterr().out
    assert "grid tiny: 6 runs (6 to do)" in out
    assert re.search(r"method +┃ 40 +┃ 80 ", out)
    for method in ("noise", "ideal"):
        assert re.search(rf"│ {method} +│ [\d.]+ ± [\d.]+( ‡)? +│ [\d.]+ ± [\d.]+( ‡)? +│", out)
    assert "over 2 seeds" in out
    assert [path for path in re.findall(r"^  (runs/\S+)$", out, re.MULTILINE) if any((here / path).iterdir())] == [
        "runs/tiny/tables",
        "runs/tiny/figures",
    ]
    assert (here / "runs/tiny/figures/digits-lenet.labels.float.png").exists()
    assert (here / "runs/tiny/tables/summary.parquet").exists()
    (parts,) = read_json(here / "runs/tiny/run.json")["tasks"].values()
    assert (parts["dataset"], parts["teacher"], parts["student"]) == ("digits", "lenet-bn", "lenet-bn")


def test_the_same_command_again_runs_nothing_and_reports_the_same(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench("run", "--grid", "tiny.yaml", *OFF)
    summary = (here / "runs/tiny/tables/summary.csv").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in here.glob("runs/cells/*/done.json")}
    capsys.readouterr()
    assert bench("run", "--grid", "tiny.yaml", *OFF) == 0
    assert "(6 done)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in here.glob("runs/cells/*/done.json")} == stamps
    assert (here / "runs/tiny/tables/summary.csv").read_bytes() == summary


def test_a_failed_cell_is_a_row_with_its_reason_and_the_run_ends_with_1(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "ideal.generator_lr=1e9", "--set", "noise.recipe.lr=0.05"]
    grid = here / "tiny.yaml"
    grid.write_text(TINY + "  dfme: {config: {student_steps: 60, generator_width: 4}}\n")
    grid.write_text(grid.read_text().replace("answers: [labels]", "answers: [labels, probs]"))
    assert bench("run", "--grid", "tiny.yaml", "--seeds", "1", *settings, *OFF) == 1
    out = capsys.readouterr().out
    assert "not in these tables: 1 runs failed: 40 queries do not cover one round of dfme" in out
    assert bench("status", "tiny") == 0
    assert "40 queries do not cover one round of dfme" in capsys.readouterr().out
    assert "failed" in (here / "runs/tiny/tables/cells.csv").read_text()


def test_a_dry_run_plans_the_whole_paper_grid_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(here.rglob("*"))
    assert bench("run", "--grid", "paper", "--dry-run") == 0
    out = capsys.readouterr().out
    assert re.search(r"grid paper: [\d,]+ runs", out)
    assert "cannot run here: cifar10-resnet18" in out
    assert "no GPU here" in out
    assert "data set mnist is not in data" in out
    assert set(here.rglob("*")) == before


def test_a_partial_run_reports_what_it_has_and_names_what_it_lacks(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench("run", "--grid", "tiny.yaml", *OFF)
    next(here.glob("runs/cells/*noise.40*s0*/done.json")).unlink()
    capsys.readouterr()
    assert bench("report", "tiny") == 0
    out = capsys.readouterr().out
    assert out.startswith("report: runs/tiny/index.html\n")
    assert "not in these tables: 1 runs to do" in out
    assert out.count("(n = 1)") == 1
    assert "5 of 6 runs are done" in (here / "runs/tiny/index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--grid", "digitz"], "unknown grid 'digitz'; did you mean digits"),
        (["run", "--method", "ideel"], "unknown method 'ideel'; did you mean ideal"),
        (["run", "--task", "digits-lenett"], "unknown task 'digits-lenett'; did you mean digits-lenet?"),
        (["run", "--set", "noise*.kidn=uniform"], "unknown key 'kidn'; did you mean kind?"),
        (["run", "--budget", "0"], "budget '0': wanted a whole number of queries"),
        (["run", "--budget", "25k5"], "budget '25k5': wanted a whole number of queries"),
        (["run", "--seeds", "0"], "seeds '0': wanted how many, 1 or more"),
        (["run", "--seeds", "three"], "seeds 'three': wanted how many, 1 or more"),
        (["run", "--device", "tpu"], "device 'tpu': wanted auto, cpu or cuda"),
        (["run", "--gpus", "7"], "gpus 7: this machine has"),
        (["run", "--exclude", "noise"], "exclude 'noise': wanted AXIS=GLOB"),
        (["run", "--exclude", "task=*"], "nothing is left of the grid"),
        (["report", "digits-run"], "no run 'digits-run': there is no run in runs yet"),
        (["list", "method"], "unknown list 'method'; did you mean methods?"),
        (["sync", "nothing"], "no run 'nothing'"),
        (["run", "--seeds", "²"], "seeds '²': wanted how many, 1 or more"),
        (["run", "--answers", "foo"], "answers 'foo': wanted labels, probs, round-D, top-K or above-T"),
        (["tune", "--grid", "digits", "--answers", "foo"], "answers 'foo': wanted labels"),
        (["plan", "--price", "1", "--limit", "2"], "--price, --limit: wanted with --blackbox"),
        (["plan", "--blackbox", "http://127.0.0.1:1", "--limit", "2"], "limit: wanted with a price"),
        (["plan", "--grid", "tiny.yaml", "--cells", "tiny.yaml"], "--cells tiny.yaml: wanted a folder"),
        (["teachers", "--weights", "x.pt", "--dry-run"], "--weights takes weights for a teacher: wanted without"),
    ],
)
def test_bad_input_is_told_in_one_line_and_ends_with_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert bench(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert told in error
    assert error.count("\n") == 1
    assert not (here / "runs/cells").exists()


def test_a_reason_in_brackets_is_told_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "odd.py").write_text(ODD)
    assert bench("run", "--grid", "tiny.yaml", "--plugin", "odd.py", "--method", "odd", *OFF) == 1
    capsys.readouterr()
    assert bench("status", "tiny", "--plugin", "odd.py") == 0
    assert "logits are [batch, classes], not [/etc]" in " ".join(capsys.readouterr().out.split())


def test_the_folder_of_a_run_is_known_from_within(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench("run", "--grid", "tiny.yaml", *OFF)
    summary = (here / "runs/tiny/tables/summary.csv").read_bytes()
    monkeypatch.chdir(here / "runs/tiny")
    assert bench("report", ".") == 0
    assert (here / "runs/tiny/tables/summary.csv").read_bytes() == summary
    capsys.readouterr()
    assert bench("status", ".") == 0
    assert "6 runs (6 done)" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_filters_are_repeated_or_have_commas_in_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("plan", "--grid", "tiny.yaml", "--task", "digits-lenet,digits*", "--answers", "round-2,labels") == 0
    out = capsys.readouterr().out
    assert "grid tiny: 12 runs" in out
    assert "round-2" in out


@pytest.mark.usefixtures("here")
def test_a_data_folder_without_the_data_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "--grid", "mnist", "--data", "empty", *OFF) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nothing can run here: data set mnist is not in empty (no MNIST/raw/train-images-idx3-ubyte)" in error
    assert "give its folder with --data" in error


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that refuses even root")
@pytest.mark.usefixtures("here")
def test_an_output_folder_that_cannot_be_written_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "--grid", "tiny.yaml", "--out", "/proc/refused", *OFF) == 2
    error = capsys.readouterr().err
    assert "output folder /proc/refused" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("here")
def test_a_fault_of_the_harness_ends_with_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "missing", lambda *_: 1 / 0)
    assert bench("plan") == 3
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert "a fault of the harness" in error


@pytest.mark.parametrize("what", ["methods", "tasks", "grids", "networks"])
def test_lists_name_what_there_is(capsys: pytest.CaptureFixture[str], what: str) -> None:
    known = {"methods": "ideal", "tasks": "mnist-lenet5", "grids": "paper", "networks": "resnet18"}
    assert bench("list", what) == 0
    assert known[what] in capsys.readouterr().out


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "bench", "--help"]
    subprocess.run(command, capture_output=True, check=True)  # once, to compile
    times = []
    for _ in range(3):
        start = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.monotonic() - start)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert not loaded & {"torch", "mlflow", "ray", "pandas", "seaborn", "optuna"}
    assert min(times) < 0.6


def test_an_interrupted_run_ends_with_130_and_the_same_command_finishes_it(here: Path) -> None:
    (here / "tiny.yaml").write_text(TINY.replace("min_steps: 2", "min_steps: 2000"))
    command = [sys.executable, "-m", "bench", "run", "--grid", "tiny.yaml", *OFF]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:  # type: ignore[call-overload]
        while not list(here.glob("runs/cells/*/cell.json")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "bench: interrupted; the same command goes on where this one stopped"
    subprocess.run([*command, "--budget", "40", "--method", "ideal"], env=environment, check=True)
    assert read_json(here / "runs/tiny/run.json")["provenance"]["command"]
