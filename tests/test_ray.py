"""Ray: the same curves as on this machine alone, whatever dies meanwhile, and on nodes that do not see the results."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import bench
from test_executor import be_busy_twice, count_until_told, die, kinds, raise_an_error, reason, say_nothing, succeed

from bench.executors.jobs import Away, Job
from results.claims import is_held
from results.store import read_json

ray = pytest.importorskip("ray")
ROOT = Path(__file__).parents[1]
STORE = 100 * 2**20  # bytes of shared memory for a node
GRID = """
description: seconds on a CPU
tasks: [digits-lenet]
budgets: [40, 80]
answers: [labels]
seeds: 2
methods:
  noise: {config: {recipe: {passes: 1, min_steps: 2}}}
  ideal: {config: {batch_size: 20, generator_steps: 1, generator_width: 4, latent: 8, crop_padding: 1}}
"""
SLOW = """
description: cells that note that they begin, and of which process
tasks: [digits-lenet]
budgets: [40]
answers: [labels]
seeds: 5
methods:
  noting: {}
"""
METHOD = '''"""Trains on uniform noise, slowly, and notes each run.

Differs from the paper: there is none.
Differs from the released code: there is none.
"""

import os
import time
from pathlib import Path

import torch
from pydantic import BaseModel

ANSWERS, DATA, PROTOCOL = ("labels",), "none", "per_budget"


class Config(BaseModel, frozen=True, extra="forbid"):
    """No settings."""


def distill(oracle, student, config, run):
    with Path("NOTES").open("a") as notes:
        notes.write(f"{oracle.budget.queries} {torch.initial_seed()} {os.getppid()}\\n")
    while True:
        images = torch.rand(10, *oracle.shape, generator=run.rng, device=run.device)
        oracle(images)
        with torch.no_grad():
            next(student.parameters()).mul_(1 + images.mean())
        time.sleep(0.5)
        yield {}
'''
# Put before all else in the processes of a node: what lies in the folder HIDDEN is not there.
BLIND = """
import os, sys

def hide(event, arguments):
    if event in {"open", "os.mkdir", "os.listdir", "os.scandir", "os.rename", "os.remove"} and arguments:
        if str(arguments[0]).startswith(os.environ["HIDDEN"]):
            raise FileNotFoundError(f"hidden: {arguments[0]}")

sys.addaudithook(hide)
"""


def note_where(folder: Path, key: str, device: object, _: object) -> None:
    (folder / key).write_text(f"{device} {os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head of a cluster that does no jobs itself; tests add nodes, whose processes can import ours."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        made = Cluster(initialize_head=True, head_node_args=head)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Iterator[Any]:
    """Adds nodes of one core each, which are gone after the test."""
    added = []

    def add(number: int, **how: Any) -> list[Any]:
        how = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE, **how}
        made = [cluster.add_node(**how) for _ in range(number)]
        added.extend(made)
        return made

    yield add
    ray.shutdown()
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


@pytest.fixture
def home(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trained teacher in runs/, and again in alone/ for the local executor."""
    home = trained.parent / f"{trained.name}-home"
    (home / "alone").mkdir(parents=True)
    (trained / "teachers").rename(home / "alone/teachers")
    subprocess.run(["cp", "-r", home / "alone", home / "runs"], check=True)
    (home / "g.yaml").write_text(GRID)
    (home / "slow.yaml").write_text(SLOW)
    (home / "noting.py").write_text(METHOD.replace("NOTES", str(home / "notes.txt")))
    monkeypatch.chdir(home)
    return home


def command(grid: str, *more: str) -> list[str]:
    plugin = ["--plugin", "noting.py", "--checkpoint", "1000"] if grid == "slow.yaml" else []
    return [sys.executable, "-m", "bench", "run", "--grid", grid, *plugin, "--mlflow", "off", "--device", "cpu", *more]


def run(*words: str) -> str:
    """The command's output, which ends with 0."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return done.stdout


def curves(root: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in root.glob("cells/*/curve.json")}


def notes(home: Path) -> list[tuple[str, int]]:
    """For each run that began: its budget and seed, and the process that started its process, that of a node."""
    file = home / "notes.txt"
    lines = [line.rpartition(" ") for line in file.read_text().splitlines()] if file.exists() else []
    return [(cell, int(parent)) for cell, _, parent in lines]


def wait_until(is_so: Any, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_grid_on_a_ray_of_this_machine_has_the_curves_of_the_local_executor(home: Path) -> None:
    assert bench(*command("g.yaml", "--out", "alone", "--jobs", "1")[3:]) == 0
    told = run(*command("g.yaml", "--executor", "ray", "--jobs", "1"))
    assert curves(home / "runs") == curves(home / "alone")
    assert len(curves(home / "runs")) == 6
    assert set(Counter(line.split()[1] for line in told.splitlines() if " s)" in line).values()) == {1}
    assert "ray" not in told.casefold().replace("array", "")
    assert {path.name for path in (home / "runs").iterdir()} == {"cells", "index", "teachers", "g"}


def test_jobs_that_raise_die_say_nothing_or_are_busy_end_as_on_this_machine(
    cluster: Any, nodes: Any, tmp_path: Path
) -> None:
    from bench.executors.ray import connect, execute

    nodes(1)
    at = connect(cluster.address, tmp_path / "out", "cpu", 1, 1, None)
    jobs = [
        Job("raises", raise_an_error, ()),
        Job("dies", die, ()),
        Job("silent", say_nothing, ()),
        Job("busy", be_busy_twice, (tmp_path / "tries",)),
        Job("succeeds", succeed, (tmp_path / "file",)),
    ]
    events = list(execute(jobs, at, silence=2.0))
    assert reason(events, "raises") == "out of paper (on node " + os.uname().nodename + ")"
    assert kinds(events, "dies") == ["started", "again", "started", "failed"]
    assert reason(events, "dies") == "its process died"
    assert reason(events, "silent") == "it reported nothing for 2 seconds"
    assert kinds(events, "busy") == ["started", "busy", "started", "busy", "started", "done"]
    assert kinds(events, "succeeds") == ["started", "progress", "done"]
    assert not list((tmp_path / "out").iterdir())


def test_a_gpu_is_shared_by_as_many_jobs_as_asked_each_in_a_process_of_its_own(
    cluster: Any, nodes: Any, tmp_path: Path
) -> None:
    from bench.executors.ray import connect, execute

    nodes(1, num_gpus=2)  # that Ray believes in
    at = connect(cluster.address, tmp_path, "auto", 3, 1, None)
    assert (at.gpu, at.slots(), at.window()) == (True, 6, 12)
    jobs = [Job(key, note_where, (tmp_path, key), away=Away()) for key in ("first", "second")]
    assert sorted(kinds(list(execute(jobs, at)), "first")) == ["done", "started"]
    given = {key: (tmp_path / key).read_text().split() for key in ("first", "second")}
    assert [device for device, *_ in given.values()] == ["cuda:0", "cuda:0"]
    assert {visible for _, visible, _ in given.values()} <= {"0", "1"}
    assert given["first"][2] != given["second"][2]


def test_closing_lets_a_job_save_its_work_and_leaves_no_task(cluster: Any, nodes: Any, tmp_path: Path) -> None:
    from bench.executors.ray import connect, execute

    nodes(1)
    at = connect(cluster.address, tmp_path, "cpu", 1, 1, None)
    jobs = [Job("counts", count_until_told, (tmp_path,), saves=True), Job("waits", succeed, (tmp_path / "never",))]
    events = execute(jobs, at)
    for event in events:
        if event is not None and event.kind == "progress":
            break
    events.close()
    assert int((tmp_path / "saved").read_text()) > 1
    until = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 1:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not (tmp_path / "never").exists()


def test_closing_brings_home_what_a_job_saved_where_the_results_folder_is_not_seen(
    cluster: Any, nodes: Any, tmp_path: Path
) -> None:
    from bench.executors.ray import connect, execute

    out = tmp_path / "out"
    (tmp_path / "sitecustomize.py").write_text(BLIND)
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    nodes(1, env_vars={"PYTHONPATH": path, "HIDDEN": str(out)})
    at = connect(cluster.address, out, "cpu", 1, 1, None)
    events = execute([Job("counts", count_until_told, (out,), saves=True, away=Away(fills=out))], at)
    for event in events:
        if event is not None and event.kind == "progress":
            assert is_held(out), "nobody else does what is away"
            assert not (out / "alive").exists()
            break
    events.close()
    assert int((out / "saved").read_text()) > 1
    assert not is_held(out)


def test_results_come_back_from_nodes_that_do_not_see_the_results_folder(
    cluster: Any, nodes: Any, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLIND)
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    nodes(1, env_vars={"PYTHONPATH": path, "HIDDEN": str(home / "runs")})
    assert bench(*command("g.yaml", "--out", "alone", "--jobs", "1")[3:]) == 0
    subprocess.run(["rm", "-r", home / "runs/teachers"], check=True)
    run(*command("g.yaml", "--executor", "ray", "--ray-address", cluster.address))
    assert curves(home / "runs") == curves(home / "alone")
    assert sorted(path.name for path in home.glob("runs/cells/*/*")) == sorted(
        path.name for path in home.glob("alone/cells/*/*")
    )
    assert read_json(next(home.glob("runs/cells/*/done.json")))["spent"] > 0


def test_a_killed_command_goes_on_when_it_is_given_again_and_a_lost_node_is_made_good(
    cluster: Any, nodes: Any, home: Path
) -> None:
    victim = nodes(3)[0]
    given = command("slow.yaml", "--executor", "ray", "--ray-address", cluster.address)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(given, **pipes) as process:
        wait_until(lambda: list(home.glob("runs/cells/*/done.json")), process)
        process.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in home.glob("runs/cells/*/done.json")}
    before = len(notes(home))
    (raylet,) = (info.process.pid for info in victim.all_processes["raylet"])
    with subprocess.Popen(given, **pipes) as process:
        wait_until(lambda: raylet in [parent for _, parent in notes(home)[before:]], process)
        cluster.remove_node(victim, allow_graceful=False)
        told, _ = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert "is tried again: its node was lost" in told
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(home.glob("runs/cells/*/done.json"))) == 5
    runs = Counter(cell for cell, _ in notes(home)[before:])
    assert len(runs) == 5 - len(finished)
    assert sorted(runs.values())[:-1] == [1] * (len(runs) - 1), "all but the lost one were run once"
    assert bench(*command("slow.yaml", "--out", "alone", "--jobs", "2")[3:]) == 0
    assert curves(home / "runs") == curves(home / "alone")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--executor", "rai"], "unknown executor 'rai'; did you mean ray?"),
        (["--ray-address", "auto"], "--ray-address auto: wanted with --executor ray"),
        (["--executor", "ray", "--ray-address", "127.0.0.1:1"], "Connection refused; wanted auto, or HOST:PORT of a"),
        (["--executor", "ray", "--ray-address", "here"], "wanted auto, or HOST:PORT of a Ray that runs"),
        (["--executor", "ray", "--ray-address", "auto", "--gpus", "0"], "--gpus 0: wanted for the GPUs of this"),
    ],
)
def test_bad_input_is_one_line(home: Path, capsys: pytest.CaptureFixture[str], given: list[str], line: str) -> None:  # noqa: ARG001
    assert bench("run", "--grid", "g.yaml", *given) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_a_wheel_that_is_missing_is_one_line(
    home: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "bench.executors.ray", raising=False)
    monkeypatch.delattr("bench.executors.ray", raising=False)
    assert bench("run", "--grid", "g.yaml", "--executor", "ray", "--jobs", "1") == 2
    assert capsys.readouterr().err == (
        "bench: --executor ray: wanted the package ray; pip install 'blackbox-bench[ray]'\n"
    )


def test_a_node_with_other_code_is_named_before_it_does_anything(
    cluster: Any, nodes: Any, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import bench\nbench.__version__ = '0.0.1'\n")
    nodes(1, env_vars={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"})
    given = command("g.yaml", "--executor", "ray", "--ray-address", cluster.address)
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has blackbox-bench 0.0.1, not 0.1.0; wanted the same blackbox-bench on every node" in done.stderr
    assert not list(home.glob("runs/cells/*"))


def test_a_search_for_settings_needs_a_folder_that_all_nodes_share(
    cluster: Any, nodes: Any, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLIND)
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    nodes(1, env_vars={"PYTHONPATH": path, "HIDDEN": str(home / "runs")})
    words = ["noise", "--task", "digits-lenet", "--budget", "40", "--trials", "1", "--device", "cpu", "--mlflow", "off"]
    given = [sys.executable, "-m", "bench", "tune", *words, "--executor", "ray", "--ray-address", cluster.address]
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"does not see {home}/runs, which worker 1 needs: wanted an --out that all nodes share" in done.stderr
