"""MLflow as people use it, against a real tracking server: curves, cells, several folders, bad addresses."""

import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from support import CPU, QUICK

from bench.cells.code import versions_of
from bench.cells.run import How, run_cell
from bench.errors import UsageError, shown
from bench.grids.definition import Grid
from bench.grids.plan import Planned, plan, record, runs_of
from bench.mirror import Follower, Mirror, TrackingError
from bench.mirror.content import key_of
from bench.mirror.server import Elsewhere
from bench.tuning import outcome
from bench.tuning import study as studies
from bench.tuning.worker import work_on_trials
from results import curves
from results.records import Failure, RunRecord, Versions, plain, read
from results.report import report
from results.store import read_json, write_json

NO_DATA = Path("no-data")
GRID = Grid(
    description="a test",
    tasks=["digits-lenet"],
    methods={  # type: ignore[arg-type]
        "ideal-once": {"method": "ideal", "config": QUICK["ideal"]},
        "noise": {"config": QUICK["noise"]},
    },
    budgets=[40, 100],
    answers=["labels"],
    seeds=[0, 1, 2],
)
CELLS = 9  # a method that answers for both budgets on its way, and one that has a cell for each
CURVES = {"ideal-once on digits-lenet, labels", "noise on digits-lenet, labels"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    uri = f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port), *store]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            wait_until_it_answers(uri, folder / "log")
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too, which may not have heard of each other yet


def wait_until_it_answers(uri: str, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"no mlflow server: {log.read_text()}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), free_port()) as uri:
        yield uri


@pytest.fixture(scope="module")
def finished_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    shutil.copytree(trained_once / "teachers", root / "teachers")
    planned = plan(runs_of(GRID), root, NO_DATA, gpu=False)
    for item in planned:
        assert item.cell
        kept = (item.label, item.budget.queries, item.seed) == ("noise", 100, 0)
        run_cell(item.cell, root, NO_DATA, CPU, how=How(keep_student=kept))
    write_json(root / "tiny" / "run.json", plain(record("tiny", "", GRID, planned, root, ["run"])))
    report.write(root / "tiny")
    return root


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A run folder whose cells are all done, and which no server knows."""
    return another(finished_once / "tiny", tmp_path)


def another(run: Path, root: Path, name: str = "tiny") -> Path:
    """A folder that looks the same and is not: somebody else ran the same grid."""
    shutil.copytree(run.parent, root, dirs_exist_ok=True)
    known = read(root / run.name / "run.json", RunRecord)
    (root / run.name).rename(root / name)
    write_json(root / name / "run.json", plain(replace(known, id=secrets.token_hex(6))))
    return root / name


def synchronise(run: Path, uri: str, versions: dict[str, Versions] | None = None) -> int:
    with Mirror(run, uri, versions=versions) as mirror:
        return mirror.sync()


def shows(uri: str, run: Path, kind: str = "") -> dict[str, Run]:
    """Name -> what MLflow shows of the folder: its `curve`, `cell` or `files` runs, or all."""
    client = MlflowClient(uri)
    ours = f"tags.`bench.run` = '{read(run / 'run.json', RunRecord).id}'"
    (experiment,) = client.search_experiments(filter_string=ours)
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}
    return {name: run for name, run in found.items() if kind in ("", run.data.tags["bench.shows"])}


def everything(uri: str, run: Path) -> object:
    """All that MLflow holds of a folder, to be compared."""
    client = MlflowClient(uri)
    return {
        name: (
            shown.info.run_id,
            shown.info.status,
            shown.data.to_dictionary(),
            {key: history(client, shown, key) for key in shown.data.metrics},
            sorted(file.path for file in client.list_artifacts(shown.info.run_id)),
        )
        for name, shown in shows(uri, run).items()
    }


def history(client: MlflowClient, run: Run, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def cell_folder(run: Path, label: str, budget: int, seed: int) -> Path:
    entries = read(run / "run.json", RunRecord).entries
    (name,) = (e.cell for e in entries if (e.method, e.budget, e.seed) == (label, budget, seed))
    assert name
    return run.parent / "cells" / name


def fail(folder: Path) -> None:
    (folder / "done.json").unlink()
    write_json(folder / "failed.json", plain(Failure("out of paper")))


def run_what_is_missing(run: Path) -> list[Planned]:
    missing = [item for item in plan(runs_of(GRID), run.parent, NO_DATA, gpu=False) if item.state != "done"]
    for item in missing:
        assert item.cell
        run_cell(item.cell, run.parent, NO_DATA, CPU)
    return missing


def test_a_run_is_mirrored_once_however_often_and_from_whichever_copy(
    finished: Path, server: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Mirror(finished, server) as mirror:
        assert mirror.sync() == CELLS
        mirror.log_report()
    before = everything(server, finished)
    assert len(shows(server, finished)) == CELLS + len(CURVES) + 1
    copy = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(finished.parent, copy)  # with other times, at another path
    for folder in (finished, copy / "tiny"):
        with Mirror(folder, server) as mirror:
            assert mirror.sync() == 0
            mirror.log_report()
        assert everything(server, finished) == before


def test_a_curve_is_one_run_with_the_means_over_seeds_at_their_queries(finished: Path, server: str) -> None:
    synchronise(finished, server)
    client, shown_curves = MlflowClient(server), shows(server, finished, "curve")
    assert set(shown_curves) == CURVES
    table = curves.summary(curves.points(finished))
    for (method, answers), rows in table.groupby(["method", "answers"]):
        curve = shown_curves[f"{method} on digits-lenet, {answers}"]
        for figure in ("accuracy", "low", "high", "agreement"):
            assert history(client, curve, figure) == list(zip(rows["budget"], rows[figure], strict=True))
    assert shown_curves["noise on digits-lenet, labels"].data.tags["role"] == "control"
    assert shown_curves["ideal-once on digits-lenet, labels"].data.tags["runs"] == "3"


def test_cells_carry_the_tag_of_their_curve_and_are_folded_into_one_run(finished: Path, server: str) -> None:
    synchronise(finished, server)
    curve = shows(server, finished, "curve")["noise on digits-lenet, labels"]
    (home,) = shows(server, finished, "files").values()
    cells = shows(server, finished, "cell").values()
    of_curve = [cell for cell in cells if cell.data.tags["bench.curve"] == curve.data.tags["bench.curve"]]
    assert len(of_curve) == 6
    assert {cell.data.tags["mlflow.parentRunId"] for cell in cells} == {home.info.run_id}
    assert "mlflow.parentRunId" not in curve.data.tags
    assert all(cell.info.start_time < curve.info.start_time for cell in cells)  # the latest come first in MLflow


def test_a_cells_run_has_its_curve_its_settings_and_its_time(finished: Path, server: str) -> None:
    synchronise(finished, server)
    client, cell = MlflowClient(server), shows(server, finished, "cell")["noise digits-lenet 100 labels t0 s1"]
    folder = cell_folder(finished, "noise", 100, 1)
    assert cell.data.tags["bench.cell"] == folder.name
    points = {point["spent"]: point["accuracy"] for point in read_json(folder / "curve.json")}
    assert dict(history(client, cell, "accuracy")) == points
    assert cell.data.params["recipe.passes"] == "4"
    seconds = read_json(folder / "done.json")["seconds"]
    assert cell.info.end_time - cell.info.start_time == pytest.approx(1000 * seconds, abs=1)


def test_two_folders_of_one_name_never_touch_each_others_runs(
    finished: Path, server: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    theirs = another(finished, tmp_path_factory.mktemp("theirs"))
    assert synchronise(finished, server) == CELLS
    before = everything(server, finished)
    assert synchronise(theirs, server) == CELLS
    assert everything(server, finished) == before
    after = everything(server, theirs)
    assert synchronise(finished, server) == 0
    assert everything(server, theirs) == after
    names = {
        MlflowClient(server).get_experiment(next(iter(shows(server, run).values())).info.experiment_id).name
        for run in (finished, theirs)
    }
    assert len(names) == 2
    assert f"tiny {read(theirs / 'run.json', RunRecord).id[:6]}" in names


def test_two_entries_with_one_cell_are_two_runs() -> None:
    tags = {"bench.shows": "cell", "bench.cell": "noise.40"}
    assert len({key_of({**tags, "bench.curve": f"{label} on digits-lenet, labels"}) for label in ("one", "two")}) == 2


def test_a_folder_whose_experiment_was_deleted_again_and_again_is_mirrored_anew(finished: Path, server: str) -> None:
    for _ in range(4):
        assert synchronise(finished, server) == CELLS
        MlflowClient(server).delete_experiment(next(iter(shows(server, finished).values())).info.experiment_id)


def test_a_cell_run_again_replaces_its_own_run_and_its_curve_alone(finished: Path, server: str) -> None:
    fail(cell_folder(finished, "noise", 40, 0))
    synchronise(finished, server)
    before = shows(server, finished)
    failed = before["noise digits-lenet 40 labels t0 s0"]
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "out of paper")
    assert before["noise on digits-lenet, labels"].data.tags["runs"] == "2 to 3"
    assert len(run_what_is_missing(finished)) == 1
    assert synchronise(finished, server) == 1
    after = shows(server, finished)
    changed = {name for name in before if before[name].info.run_id != after[name].info.run_id}
    assert changed == {"noise digits-lenet 40 labels t0 s0", "noise on digits-lenet, labels"}
    assert after["noise digits-lenet 40 labels t0 s0"].info.status == "FINISHED"
    assert after["noise on digits-lenet, labels"].data.tags["runs"] == "3"


def test_results_of_other_code_are_stale_and_in_no_curve(finished: Path, server: str) -> None:
    synchronise(finished, server)
    now = {"noise": {**versions_of("noise"), "method": 99}}
    assert synchronise(finished, server, now) == 6
    states = {run.data.tags["method"]: run.data.tags["state"] for run in shows(server, finished, "cell").values()}
    assert states == {"noise": "stale", "ideal-once": "done"}
    assert set(shows(server, finished, "curve")) == {"ideal-once on digits-lenet, labels"}


def test_a_cell_that_ran_to_a_narrower_budget_stands_in_for_the_planned_one(finished: Path, server: str) -> None:
    known = read(finished / "run.json", RunRecord)
    at = {e.budget: e for e in known.entries if (e.method, e.seed) == ("noise", 0)}
    planned = replace(at[100], budgets=[40, 100], narrower={40: at[40].cell or ""}, protocol="anytime")
    write_json(finished / "run.json", plain(replace(known, entries=[planned])))
    shutil.rmtree(finished.parent / "cells" / str(planned.cell))
    assert synchronise(finished, server) == 1
    (cell,) = shows(server, finished, "cell").values()
    assert (cell.data.tags["bench.cell"], cell.data.tags["budget"]) == (at[40].cell, "40")


def test_a_curve_file_that_is_cut_short_fails_its_cell_and_nothing_else(finished: Path, server: str) -> None:
    for seed in range(3):
        folder = cell_folder(finished, "noise", 40, seed)
        (folder / "done.json").write_text('{"spent": 4')
    assert synchronise(finished, server) == CELLS
    cells = shows(server, finished, "cell")
    assert sorted(run.info.status for run in cells.values()) == ["FAILED"] * 3 + ["FINISHED"] * 6
    assert "done.json" in cells["noise digits-lenet 40 labels t0 s1"].data.tags["reason"]


def test_a_run_without_a_result_has_its_failures_and_no_curve(finished: Path, server: str) -> None:
    for done in (finished.parent / "cells").glob("*/done.json"):
        fail(done.parent)
    assert synchronise(finished, server) == CELLS
    assert not shows(server, finished, "curve")


def test_a_kept_student_is_a_model(finished: Path, server: str) -> None:
    synchronise(finished, server)
    kept = shows(server, finished, "cell")["noise digits-lenet 100 labels t0 s0"]
    mlflow.set_tracking_uri(server)
    model = mlflow.pytorch.load_model(f"runs:/{kept.info.run_id}/student")
    assert model(torch.zeros(5, 1, 8, 8)).shape == (5, 10)


def test_a_student_of_a_task_that_is_unknown_here_is_skipped_with_a_remark(finished: Path, server: str) -> None:
    known = read(finished / "run.json", RunRecord)
    entries = [replace(entry, task="folder-cats-01234567") for entry in known.entries]
    write_json(finished / "run.json", plain(replace(known, entries=entries)))
    assert synchronise(finished, server) == CELLS
    tags = [run.data.tags for run in shows(server, finished, "cell").values()]
    (remark,) = [of["bench.remark"] for of in tags if "bench.remark" in of]
    assert remark.startswith("student not shown as a model: unknown task")


def test_the_report_lies_in_one_run_with_its_page(finished: Path, server: str) -> None:
    with Mirror(finished, server) as mirror:
        mirror.sync()
        mirror.log_report()
    (home,) = shows(server, finished, "files").values()
    client = MlflowClient(server)
    top = {file.path for file in client.list_artifacts(home.info.run_id)}
    assert top == {"run.json", "index.html", "assets", "figures", "tables"}
    drawn = {file.path for file in client.list_artifacts(home.info.run_id, "figures")}
    assert "figures/digits-lenet.labels.float.png" in drawn


def test_one_process_at_a_time_mirrors_a_folder(finished: Path, server: str) -> None:
    told: list[str] = []
    with Mirror(finished, server) as mirror:
        mirror.sync()
        with pytest.raises(Elsewhere):
            Mirror(finished, server).sync()
        follower = Follower(finished, server, told.append)
        follower.TURN = 0.0
        with follower:
            pass
    assert not told
    assert synchronise(finished, server) == 0


def test_what_a_writer_left_half_done_is_made_anew(
    finished: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("cable")))
    with pytest.raises(TrackingError, match="cable"):
        synchronise(finished, server)
    monkeypatch.undo()
    assert synchronise(finished, server) == CELLS
    assert len(shows(server, finished, "cell")) == CELLS


def follow(run: Path, uri: str, during: Callable[[], None] = lambda: None, last: float = 4.0) -> list[str]:
    """What a follower tells of a run that lasts as long as `during`."""
    told: list[str] = []
    follower = Follower(run, uri, told.append)
    follower.EVERY, follower.LAST = 0.1, last
    with follower:
        during()
    return told


def test_a_dead_server_costs_one_warning_and_is_caught_up_with_when_it_is_back(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port, folder = free_port(), tmp_path_factory.mktemp("back")
    told = follow(finished, f"http://user:secret@127.0.0.1:{port}", lambda: time.sleep(3))
    assert len(told) == 1
    assert "bench sync tiny" in told[0]
    assert "secret" not in told[0]
    with serving(folder, port) as uri:
        assert not follow(finished, uri, last=60.0)
        assert len(shows(uri, finished, "cell")) == CELLS


def test_a_server_that_never_answers_holds_up_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        told = follow(finished, f"http://127.0.0.1:{silent.getsockname()[1]}", lambda: time.sleep(1))
        assert time.monotonic() - begun < 8
    assert len(told) == 1
    assert "bench sync tiny" in told[0]


def test_a_fault_of_the_mirror_is_told_and_does_not_end_the_run(
    finished: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.mirror.mirror.mean_curves", lambda *_: 1 / 0)
    (line,) = follow(finished, server)
    assert "ZeroDivisionError" in line


def test_a_run_that_is_broken_off_waits_for_no_server(finished: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(UsageError):
            follow(finished, f"http://127.0.0.1:{silent.getsockname()[1]}", stop)
        assert time.monotonic() - begun < 2


def stop() -> None:
    raise UsageError("enough")


def test_each_bad_address_is_one_line_within_seconds(finished: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_text("no database")
    newer = database_of_another_mlflow(tmp_path / "newer.db")
    port = free_port()
    addresses = {
        "gar bage": "filesystem",
        "foo://user:secret@host/x": "unsupported URI",
        str(tmp_path / "mlruns"): "filesystem",
        (tmp_path / "mlruns").as_uri(): "filesystem",
        "databricks": "Databricks",
        f"http://user:secret@127.0.0.1:{port}": "Connection refused",
        "http://user:secret@no-such-host.invalid": "no-such-host",
        f"postgresql://user:secret@127.0.0.1:{port}/x": "Connection refused",
        "mysql://user:secret@127.0.0.1/x": "driver",
        "sqlite:////proc/nowhere/mlflow.db": "/proc/nowhere",
        f"sqlite:///{junk}": "not a database",
        f"sqlite:///{newer}": "schema",
    }
    for address, word in addresses.items():
        begun = time.monotonic()
        with pytest.raises(TrackingError) as error:
            synchronise(finished, address)
        told = str(error.value)
        assert word in told, address
        assert "\n" not in told
        assert "secret" not in told
        assert time.monotonic() - begun < 15, address
    assert junk.read_text() == "no database"


def database_of_another_mlflow(path: Path) -> Path:
    ours = path.with_name("ours.db")
    MlflowClient(f"sqlite:///{ours}").search_experiments()
    shutil.copy(ours, path)  # MLflow looks at a schema once in a process
    with sqlite3.connect(path) as database:
        database.execute("update alembic_version set version_num = 'feedfeedfeed'")
    database.close()
    return path


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("http://user:secret@host:5000/a", "http://host:5000/a"),
        ("https://user:sec@ret@host", "https://host"),
        ("postgresql://host/x?password=secret", "postgresql://host/x"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("no server at http://u:p@h/x?token=t: is it up?", "no server at http://h/x is it up?"),
    ],
)
def test_no_address_is_printed_with_its_secrets(address: str, printed: str) -> None:
    assert shown(address) == printed


def test_a_studys_trials_are_nested_under_its_run_and_mirrored_once(trained: Path, server: str) -> None:
    only = GRID.model_copy(update={"methods": {"noise": GRID.methods["noise"]}, "budgets": [40], "seeds": [0]})
    (item,) = plan(runs_of(only), trained, NO_DATA, gpu=False)
    places = studies.Places(trained, NO_DATA)
    study = studies.study_of(item, studies.Terms(held_out=20), [], "nested", places)
    work_on_trials(study, 3, places, CPU, lambda *_: None)
    searched = studies.open_study(study, places)
    files = outcome.write(study, searched, places, [])
    for _ in range(2):
        outcome.mirror(study, searched, places, files, server, pytest.fail)
    client = MlflowClient(server)
    found = client.get_experiment_by_name("nested")
    assert found
    runs = client.search_runs([found.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(trials) == len(runs) - 1 == 3
    assert all("agreement" in run.data.metrics and "accuracy" not in run.data.metrics for run in trials)
    assert "best.yaml" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    warnings: list[str] = []
    outcome.mirror(study, searched, places, files, "http://user:secret@127.0.0.1:1", warnings.append)
    assert len(warnings) == 1
    assert "secret" not in warnings[0]
