"""The mirror: one experiment for a run's folder, in it one run of MLflow for each curve and for each cell."""

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.mirror.content import Content, Ended, cell_of, ended_cells, key_of, mean_curves
from bench.mirror.server import SERVED, Elsewhere, connect, guarded
from bench.mirror.student import log_student
from results.claims import Busy, lock
from results.index import Cells
from results.records import Entry, RunRecord, Versions, read
from results.states import States
from results.store import digest, read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ID = "bench.run"  # the tag with the folder's id, on its experiment and on all that is in it
RECORD = "/"  # for the record among the names of cells
SMALL = 25_000_000  # bytes; a page with more beside it stays on disk
BATCH = 850  # metrics in a call, which holds 1000 of all kinds


class Mirror:
    """What is on disk, shown in MLflow, by one process at a time: the first that writes holds on to it.

    The curves lie open in the experiment. The cells are nested in one run, which holds the report too, so that MLflow
    folds them up and draws none of them.

    run: the folder. root: under which its cells lie, if not where it lies itself. versions: kind of method -> those of
    the code that is here, by which results are `stale` or not; of a kind that is not there, those of the code that
    planned it.
    Raises TrackingError from every method when the server does not answer, and Elsewhere where another process mirrors
    the same folder.
    """

    def __init__(
        self, run: Path, uri: str, root: Path | None = None, versions: Mapping[str, Versions] | None = None
    ) -> None:
        self._run, self._uri = run, uri
        self._root, self._versions = root or run.parent, versions or {}
        self.left = 0  # cells of the sync under way that are not there yet
        # What is known while this is the process that writes.
        self._held: ExitStack | None = None
        self._client: MlflowClient
        self._id: str
        self._experiment: str
        self._there: dict[str, tuple[str, str]]  # key -> its run in MLflow, and the stamp of what that shows
        self._seen: dict[str, object]  # of the cells when all that they hold was last shown

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        if self._held:
            self._held.close()
        self._held = None

    def sync(self) -> int:
        """Add every cell that came to an end and every curve, as they are now; returns how many cells were added."""
        with States(self._run, self._versions, self._root) as states, guarded():
            self._hold()
            ended = list(ended_cells(states.record.entries, states.cells, states.versions))
            seen = _seen(self._run, ended, states.cells)
            if seen == self._seen:
                return 0
            same = {} if seen[RECORD] != self._seen.get(RECORD) else self._seen
            new = [one for one in ended if seen[one.cell] != same.get(one.cell)]
            added = self._add_cells(new, self._home("report and cells"), states.cells)
            self._add_curves(mean_curves(states))
            self._seen = seen
        return added

    def sync_study(self, entries: list[Entry], files: list[Path]) -> int:
        """Add the cells of a study's trials, nested in one run that holds its files; returns how many were added."""
        with Cells(self._root) as cells, guarded():
            self._hold()
            home = self._home("study")
            self._log_files(home, dict.fromkeys(files, ""))
            return self._add_cells(ended_cells(entries, cells, self._versions), home, cells)

    def log_report(self) -> None:
        """Put the run's page, figures and tables, as they are now, where MLflow shows them.

        A file that is no longer on disk stays in MLflow: its clients can delete none.
        """
        with guarded():
            self._hold()
            self._log_files(self._home("report and cells"), _report_files(self._run))

    def _hold(self) -> None:
        """Be the one process that writes, and know what is there."""
        if self._held:
            return
        with ExitStack() as held:
            try:
                held.enter_context(lock(self._run / "mlflow"))
            except Busy as error:
                raise Elsewhere("another process mirrors this run, and adds what is there") from error
            self._client = connect(self._uri)
            self._id = _id_of(self._run)
            self._experiment = self._open_experiment()
            self._there, self._seen = self._find_runs(), {}
            self._held = held.pop_all()

    def _open_experiment(self) -> str:
        """This folder's experiment, under whatever name; a new one has the folder's, or that with a part of its id."""
        ours = self._client.search_experiments(filter_string=f"tags.`{ID}` = '{self._id}'")
        if ours:
            return str(ours[0].experiment_id)
        own = self._run.resolve().name
        names = (own, f"{own} {self._id[:6]}", f"{own} {secrets.token_hex(6)}")
        # One that is taken is another folder's, or was deleted.
        name = next(name for name in names if self._client.get_experiment_by_name(name) is None)
        # A database would put artifacts beside the working directory; a server knows its own place.
        local = (self._root / "mlflow-artifacts" / name).resolve().as_uri()
        place = None if self._uri.startswith(SERVED) else local
        return str(self._client.create_experiment(name, artifact_location=place, tags={ID: self._id}))

    def _find_runs(self) -> dict[str, tuple[str, str]]:
        """What is there; of what is there twice, since a writer was cut off, one goes."""
        found: dict[str, tuple[str, str]] = {}
        for run in self._all_runs():
            key = key_of(run.data.tags)
            if key in found:
                self._client.delete_run(run.info.run_id)
            else:
                found[key] = (run.info.run_id, run.data.tags.get("bench.stamp", ""))
        return found

    def _all_runs(self) -> Iterator["Run"]:
        ours, token = f"tags.`{ID}` = '{self._id}'", None
        while True:
            page = self._client.search_runs([self._experiment], ours, max_results=1000, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _home(self, name: str) -> str:
        """The run that holds files and in which cells are nested, made if there is none."""
        if "files" not in self._there:
            tags = {ID: self._id, "bench.shows": "files"}
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
            self._client.set_terminated(run.info.run_id)
            self._there["files"] = (run.info.run_id, "")
        return self._there["files"][0]

    def _add_cells(self, ended: Iterable[Ended], home: str, cells: Cells) -> int:
        """Log those that MLflow does not show as they are now; returns how many. What each holds is made when it is its
        turn: of a hundred thousand it would fill the memory."""
        new = [one for one in ended if not self._shows(cell_of(one, cells))]
        # The disk does not know when a cell ran. All begin with the run that they are nested in, and so before any
        # curve: MLflow lists the latest first, a hundred at a time.
        begun = self._client.get_run(home).info.start_time if new else None
        for logged, one in enumerate(new):
            self.left = len(new) - logged
            self._log(cell_of(one, cells), begun, {"mlflow.parentRunId": home})
        self.left = 0
        return len(new)

    def _add_curves(self, curves: list[Content]) -> None:
        """Log what has changed; a curve none of whose cells has a result any more goes."""
        for curve in curves:
            if not self._shows(curve):
                self._log(curve)
        gone = {key for key in self._there if key.startswith("curve ")} - {curve.key for curve in curves}
        for key in gone:
            self._delete(key)

    def _shows(self, new: Content) -> bool:
        return self._there.get(new.key, ("", ""))[1] == new.stamp

    def _delete(self, key: str) -> None:
        self._client.delete_run(self._there.pop(key)[0])

    def _log(self, new: Content, begun: int | None = None, tags: dict[str, str] | None = None) -> None:
        """Log it in three calls, in place of an earlier one. What metrics MLflow has once, it cannot change."""
        from mlflow.entities import Metric, Param, RunTag

        if new.key in self._there:
            self._delete(new.key)
        tags = {ID: self._id, **new.tags, **(tags or {})}
        run = self._client.create_run(self._experiment, begun, tags, new.name).info
        self._there[new.key] = (run.run_id, "")
        metrics = [Metric(name, value, run.start_time, step) for name, value, step in new.metrics]
        for start in range(BATCH, len(metrics), BATCH):
            self._client.log_batch(run.run_id, metrics=metrics[start : start + BATCH])
        remark = log_student(self._client, run.run_id, new.tags["task"], new.folder) if new.folder else None
        # The stamp comes last: a run that broke off half-way has none, and is made anew.
        last = {"bench.remark": remark, "bench.stamp": new.stamp} if remark else {"bench.stamp": new.stamp}
        self._client.log_batch(
            run.run_id,
            metrics[:BATCH],
            [Param(key, value) for key, value in new.params.items()],
            [RunTag(key, value) for key, value in last.items()],
        )
        ended = run.start_time + round(new.seconds * 1000) if new.folder else None
        self._client.set_terminated(run.run_id, new.status, ended)
        self._there[new.key] = (run.run_id, new.stamp)

    def _log_files(self, home: str, files: dict[Path, str]) -> None:
        """Put files into folders of the run's artifacts, unless all are as they were."""
        hashes = [(file.name, place, hashlib.sha256(file.read_bytes()).hexdigest()) for file, place in files.items()]
        stamp = digest(repr(hashes))[:16]
        if self._there["files"][1] != stamp:
            for file, place in files.items():
                self._client.log_artifact(home, str(file), place or None)
            self._client.set_tag(home, "bench.stamp", stamp)
            self._there["files"] = (home, stamp)


def _seen(run: Path, ended: Iterable[Ended], cells: Cells) -> dict[str, object]:
    """What differs, of the record of the run and of each cell that ended, when anything to be shown does."""
    record = (run / "run.json").stat()
    seen: dict[str, object] = {RECORD: (record.st_mtime_ns, record.st_size)}
    for _, _, cell, state in ended:
        seen[cell] = cells.stamp(cell) or state.totals, state.name, state.reason
    return seen


def _report_files(run: Path) -> dict[Path, str]:
    """The files of a run that MLflow is to hold, with their folders there: the page only if it is small."""
    page = [file for file in (run / "index.html", *(run / "assets").rglob("*")) if file.is_file()]
    small = page if sum(file.stat().st_size for file in page) <= SMALL else []
    drawn = [file for folder in ("tables", "figures") for file in (run / folder).rglob("*") if file.is_file()]
    return {file: "/".join(file.relative_to(run).parts[:-1]) for file in sorted([run / "run.json", *small, *drawn])}


def _id_of(run: Path) -> str:
    """The random name of a folder: its record's, or for a study's, which has none, one that is kept beside it."""
    if (run / "run.json").exists():
        return read(run / "run.json", RunRecord).id
    kept = run / "mlflow" / "id.json"
    if not kept.exists():
        write_json(kept, secrets.token_hex(6))
    return str(read_json(kept))
