"""The MLflow mirror: what is on disk, shown in MLflow. Written by one process, and only ever added to."""

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from results.records import Entry, RunRecord, plain, read
from results.store import read_json

T = TypeVar("T")
KEY = "bench.cell"  # the tag by which a cell's run is found again
# A dead server is noticed in seconds, and MLflow neither prints nor reports home, unless the user says otherwise.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class TrackingError(Exception):
    """The tracking server cannot be reached or refuses; the disk holds everything, so `bench sync` can follow later."""


def default_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file among the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


class Mirror:
    """One experiment for a run folder, one flat run for each finished or failed cell, one for the report.

    cells: where the cells lie, if not beside the run. Raises TrackingError from every method when the
    server does not answer.
    """

    def __init__(self, run: Path, uri: str, cells: Path | None = None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._run, self._cells = run, cells or run.parent / "cells"
        self._parent: str | None = None
        run.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = _guard(self._open_experiment, uri)
        self._mirrored = _guard(self._find_runs)

    def sync(self) -> int:
        """Add every finished or failed cell that is not there yet; returns how many were added."""
        run = read(self._run / "run.json", RunRecord)
        return self._add(run.grid, run.entries)

    def sync_study(self, entries: list[Entry], files: list[Path]) -> int:
        """Add the cells of a study's trials, nested under one run that holds its files; returns how many were added."""
        self._parent = _guard(self._log_study, files)
        return self._add(self._run.name, entries)

    def _add(self, grid: str, entries: list[Entry]) -> int:
        added = 0
        for entry in map(plain, entries):
            record = self._record(entry)
            if record is not None and self._mirrored.get(entry["cell"]) != record["stamp"]:
                _guard(self._log_cell, grid, entry, record)
                self._mirrored[entry["cell"]] = record["stamp"]
                added += 1
        return added

    def log_report(self) -> None:
        """Put the run's figures and tables, as they are now, where MLflow shows them."""
        _guard(self._log_report)

    def _open_experiment(self, uri: str) -> str:
        name = self._run.name
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A local store would put artifacts beside the working directory; a server knows its own place.
        local = uri.startswith("sqlite:")
        place = (self._cells.parent / "mlflow-artifacts" / name).resolve().as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _find_runs(self) -> dict[str, str]:
        """Cell -> the stamp under which it is mirrored."""
        found: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            found |= {run.data.tags[KEY]: run.data.tags.get("bench.stamp", "") for run in page if KEY in run.data.tags}
            token = page.token
            if not token:
                return found

    def _record(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        """What the disk says of a cell's end, with a stamp that changes when it is run again; None before its end."""
        folder = self._cells / str(entry["cell"])
        for state in ("done", "failed", "stopped"):
            file = f"{state}.json"
            if (folder / file).exists():
                record = read_json(folder / file)
                curve = read_json(folder / "curve.json") if state != "failed" else []
                stamp = f"{state} {record.get('versions')} {(folder / file).stat().st_mtime_ns}"
                return {"state": state, "totals": record, "curve": curve, "stamp": stamp, "folder": folder}
        return None

    def _log_cell(self, grid: str, entry: dict[str, Any], record: dict[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        stale = self._client.search_runs([self._experiment], filter_string=f"tags.`{KEY}` = '{entry['cell']}'")
        for run in stale:
            self._client.delete_run(run.info.run_id)
        name = f"{entry['method']} {entry['task']} {entry['budget']} {entry['answers']} s{entry['seed']}"
        nested = {"mlflow.parentRunId": self._parent} if self._parent else {}
        run = self._client.create_run(self._experiment, run_name=name, tags={KEY: entry["cell"], **nested})
        settings = _flat(json.loads(entry["config"]))
        facts = ("task", "method", "kind", "answers", "inputs", "protocol", "seed", "budget")
        tags = {"grid": grid, "state": record["state"], **{key: entry[key] for key in facts}}
        if record["state"] == "failed":
            tags["reason"] = record["totals"]["reason"]
        points = {point["spent"]: point for point in record["curve"]}
        at = run.info.start_time
        metrics = [
            Metric(name, point[name], at, step)
            for step, point in points.items()
            for name in ("accuracy", "agreement", "distinct")
            if name in point  # who holds out answers knows no true labels, and so no accuracy
        ]
        totals = [Metric(key, record["totals"][key], at, 0) for key in ("spent", "seconds") if key in record["totals"]]
        for batch in [metrics[i : i + 900] for i in range(0, len(metrics), 900)] or [[]]:
            self._client.log_batch(run.info.run_id, metrics=batch)
        self._client.log_batch(
            run.info.run_id,
            metrics=totals,
            params=[Param(key, str(value)) for key, value in settings.items()],
            tags=[RunTag(key, str(value)) for key, value in tags.items()],
        )
        if (record["folder"] / "student.pt").exists():
            self._log_student(run.info.run_id, entry, record["folder"])
        # The stamp comes last: a run that broke off half-way has none, and is made anew.
        self._client.set_tag(run.info.run_id, "bench.stamp", record["stamp"])
        endings = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
        self._client.set_terminated(run.info.run_id, endings[record["state"]])

    def _log_student(self, run_id: str, entry: dict[str, Any], folder: Path) -> None:
        """The final student as an MLflow model: images in, logits out."""
        import mlflow
        import torch

        from bench.tasks import networks
        from bench.tasks.data import sources
        from bench.tasks.table import task_of

        task = task_of(entry["task"])
        source = sources.source_of(task.dataset)
        student = networks.build(task.student, source.shape, source.classes)
        student.load_state_dict(torch.load(folder / "student.pt", map_location="cpu", weights_only=True))
        mlflow.set_tracking_uri(self._client.tracking_uri)
        student.to(memory_format=torch.contiguous_format)  # the layout in which MLflow's format stores weights
        images = torch.zeros(2, *source.shape)  # two: of one, MLflow could not tell that the batch may vary
        with torch.no_grad():
            signature = mlflow.models.infer_signature(images.numpy(), student.eval()(images).numpy())
        with mlflow.start_run(run_id=run_id):
            mlflow.pytorch.log_model(
                student, name="student", input_example=images.numpy(), signature=signature, pip_requirements=["torch"]
            )

    def _run_named(self, name: str) -> str:
        """The experiment's one run of that name that is no cell, made if there is none."""
        tag = f"bench.{name}"
        found = self._client.search_runs([self._experiment], filter_string=f"tags.`{tag}` = 'yes'", max_results=1)
        run = found[0] if found else self._client.create_run(self._experiment, run_name=name, tags={tag: "yes"})
        return str(run.info.run_id)

    def _log_study(self, files: list[Path]) -> str:
        run = self._run_named("study")
        for file in files:
            self._client.log_artifact(run, str(file))
        self._client.set_terminated(run)
        return run

    def _log_report(self) -> None:
        run = self._run_named("report")
        for folder in ("tables", "figures"):
            if (self._run / folder).is_dir():
                self._client.log_artifacts(run, str(self._run / folder), folder)
        self._client.log_artifact(run, str(self._run / "run.json"))
        self._client.set_terminated(run)


def _guard(call: Callable[..., T], *arguments: Any) -> T:
    """The call, with whatever a client may raise about its server made a TrackingError of one line."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        return call(*arguments)
    except (MlflowException, RequestException, OSError) as error:
        raise TrackingError(" ".join(str(error).split())[:200]) from error


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `outer.inner` keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


class Follower:
    """Mirrors a run while it goes on. A dead server costs one warning, told to `warn`, and nothing else."""

    EVERY = 60.0  # seconds

    def __init__(self, run: Path, uri: str, warn: Callable[[str], None]) -> None:
        self._run, self._uri, self._warn = run, uri, warn
        self._mirror: Mirror | None = None
        self._dead = uri == "off"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            self._catch_up(report=True)

    def _follow(self) -> None:
        while not self._ended.wait(self.EVERY):
            self._catch_up(report=False)

    def _catch_up(self, *, report: bool) -> None:
        if self._dead:
            return
        try:
            self._mirror = self._mirror or Mirror(self._run, self._uri)
            self._mirror.sync()
            if report:
                self._mirror.log_report()
        except TrackingError as error:
            self._dead = True
            self._warn(f"MLflow at {shown(self._uri)} does not answer, results are on disk: bench sync later ({error})")


def shown(uri: str) -> str:
    """An address as it may be printed: without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)
