"""The MLflow mirror, against a real tracking server on this machine."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from support import CPU, QUICK

from bench.cells.run import run_cell
from bench.executors import prepare
from bench.grids import definition
from bench.grids.definition import Grid, Planned
from bench.mirror import Follower, Mirror, TrackingError
from bench.tuning import outcome
from bench.tuning import study as studies
from bench.tuning.worker import work_on_trials
from results.report import report
from results.store import read_json

NO_DATA = Path("no-data")
DEFINITION = Grid(
    description="a test",
    tasks=["digits-lenet"],
    methods={  # type: ignore[arg-type]
        "ideal-once": {"method": "ideal", "config": QUICK["ideal"]},
        "noise": {"config": QUICK["noise"]},
    },
    budgets=[40, 100],
    answers=["labels"],
    seeds=[0],
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    uri = f"http://127.0.0.1:{free_port()}"
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", uri.rpartition(":")[2], *store]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"no mlflow server: {(folder / 'log').read_text()}")
        yield uri
        process.terminate()


@pytest.fixture
def finished(trained: Path) -> Path:
    """A run folder whose cells are done, but for one that failed."""
    planned = definition.plan(DEFINITION, trained, NO_DATA, gpu=False)
    for item in planned:
        assert item.cell
        run_cell(item.cell, trained, NO_DATA, CPU, keep_student=item.label == "noise" and item.budgets == (100,))
    run = trained / "tiny"
    prepare.write_run(run, "tiny", DEFINITION, planned, trained, "cpu")
    fail(trained, planned[1])
    report.write(run)
    return run


def fail(root: Path, item: Planned) -> None:
    assert item.cell
    folder = root / "cells" / item.cell.name()
    (folder / "done.json").unlink()
    prepare.write_json(folder / "failed.json", {"reason": "out of paper", "traceback": None})


def state(client: MlflowClient, name: str) -> list[tuple[object, ...]]:
    """All that is in an experiment, but for the times."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = []
    for run in client.search_runs([experiment.experiment_id]):
        histories = {
            key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
            for key in sorted(run.data.metrics)
        }
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        found.append((run.info.run_id, run.info.status, sorted(run.data.params.items()), histories, files))
    return sorted(found)


def test_a_run_is_mirrored_once_however_often_it_is_synchronised(finished: Path, server: str) -> None:
    mirror = Mirror(finished, server)
    assert mirror.sync() == 3
    mirror.log_report()
    client = MlflowClient(server)
    before = state(client, "tiny")
    assert len(before) == 4  # three cells and the report
    again = Mirror(finished, server)
    assert again.sync() == 0
    again.log_report()
    assert state(client, "tiny") == before

    runs = {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("tiny").experiment_id])}  # type: ignore[union-attr]
    ideal = runs["ideal-once digits-lenet 100 labels s0"]
    curve = read_json(finished.parent / "cells" / ideal.data.tags["bench.cell"] / "curve.json")
    history = client.get_metric_history(ideal.info.run_id, "accuracy")
    assert {(metric.step, metric.value) for metric in history} == {(p["spent"], p["accuracy"]) for p in curve}
    assert ideal.data.params["relabel"] == "once"
    assert ideal.data.tags["method"] == "ideal-once"
    failed = next(run for run in runs.values() if run.data.tags.get("state") == "failed")
    assert failed.info.status == "FAILED"
    assert failed.data.tags["reason"] == "out of paper"
    files = {file.path for file in client.list_artifacts(runs["report"].info.run_id, "figures")}
    assert "figures/digits-lenet.labels.float.png" in files

    kept = runs["noise digits-lenet 100 labels s0"]
    mlflow.set_tracking_uri(server)
    model = mlflow.pytorch.load_model(f"runs:/{kept.info.run_id}/student")
    assert model(torch.zeros(5, 1, 8, 8)).shape == (5, 10)


def test_a_cell_run_again_replaces_its_mirror(finished: Path, server: str) -> None:
    renamed = finished.rename(finished.with_name("tiny-again"))
    assert Mirror(renamed, server).sync() == 3
    failed = next(folder for folder in (renamed.parent / "cells").iterdir() if (folder / "failed.json").exists())
    (failed / "failed.json").unlink()
    item = next(i for i in definition.plan(DEFINITION, renamed.parent, NO_DATA, gpu=False) if i.state != "done")
    assert item.cell
    run_cell(item.cell, renamed.parent, NO_DATA, CPU)
    assert Mirror(renamed, server).sync() == 1
    statuses = [status for _, status, *_ in state(MlflowClient(server), "tiny-again")]
    assert statuses == ["FINISHED"] * 3


def test_a_dead_server_costs_one_warning_and_a_later_sync_catches_up(
    finished: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    warnings: list[str] = []
    follower = Follower(finished, f"http://127.0.0.1:{free_port()}", warnings.append)
    follower.finish()
    follower.finish()
    assert len(warnings) == 1
    assert "bench sync" in warnings[0]
    later = finished.with_name("later")
    shutil.copytree(finished, later)
    assert Mirror(later, server).sync() == 3


def test_a_server_that_is_not_there_is_told_in_one_line(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError) as error:
        Mirror(finished, f"http://127.0.0.1:{free_port()}")
    assert "\n" not in str(error.value)


def test_a_studys_trials_are_nested_under_its_run_and_mirrored_once(trained: Path, server: str) -> None:
    (item,) = definition.plan(
        DEFINITION.model_copy(update={"methods": {"noise": DEFINITION.methods["noise"]}, "budgets": [40]}),
        trained,
        NO_DATA,
        gpu=False,
    )
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
    outcome.mirror(study, searched, places, files, "http://127.0.0.1:1", warnings.append)
    assert len(warnings) == 1
