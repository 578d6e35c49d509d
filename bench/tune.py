"""The search for settings: a study of trials, each of them cells that are examined on something other than test data.

Workers are processes that take trials from one study until it has as many as were asked for. Who holds
the lock on `turn` may look for dead trials and ask for the next one; who runs a trial holds that
trial's lock, and a dead process holds nothing. On several machines, which share a database and no
locks, Optuna's heartbeat finds the dead, and a trial too many gives itself up by its number.
"""

import fnmatch
import hashlib
import json
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bench import plugins, teachers
from bench.cell import Cell, canonical_config, code_version
from bench.errors import UsageError, unknown
from bench.exam import hold_out
from bench.execute import Outside
from bench.executors import Job
from bench.grid import Planned
from bench.run import CellFailed, Stopped, run_cell
from bench.tasks import task_of
from budgets import Budget
from methods import METHODS
from methods.search import Choice, Range, Space, including, space, value_at, with_values
from results.store import Busy, lock, read_json

Objective = Literal["agreement", "transfer", "validation"]
Sampler = Literal["tpe", "gp", "random"]
Against = Literal["queries", "seconds"]
SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "random": optuna.samplers.RandomSampler,
}
FIRST_SEED = 1000  # of trials: what is measured at the end has seeds from 0
DEATHS = 3  # a trial whose worker died so often, and was not told to stop, is not tried again
HOPELESS = 10  # so many failures and nothing else end a study
GRACE = 60  # seconds in which a trial that has just been asked for gets its host's name
HEARTBEAT = 60  # seconds; on a database, a trial is dead after five times as long in silence
BUDGET = "budget"  # the setting that is searched as well when queries are traded off


@dataclass(frozen=True)
class Study:
    """What is searched, and by what it is judged.

    task, budget: what the settings are for. tried_on: the task on which they are tried, another one for
    the objective `transfer`. teacher: the hash of that task's teacher. exam: what a trial's student is
    examined on (bench/exam.py). seeds: cells in a trial. start: the method's whole config to start
    from, canonical JSON. fixed: settings that are not searched. against: what else is minimised.
    """

    name: str
    method: str
    task: str
    budget: Budget
    objective: Objective
    tried_on: str
    teacher: str
    exam: str
    held_out: int
    seeds: int
    start: str
    fixed: tuple[str, ...]
    sampler: Sampler
    against: tuple[Against, ...]
    prune: bool

    @property
    def figure(self) -> str:
        """The figure of a point that is to be high."""
        return "agreement" if self.objective == "agreement" else "accuracy"

    def space(self) -> Space:
        """What is searched, wide enough to hold the settings that it starts from."""
        settings = json.loads(self.start)
        notes = space(METHODS[self.method].Config)
        found = {key: including(note, value_at(settings, key)) for key, note in notes.items() if key not in self.fixed}
        if "queries" in self.against:
            found[BUDGET] = Range(max(1, self.budget.queries // 10), self.budget.queries, log=True, whole=True)
        return found

    def starting_point(self) -> dict[str, Any]:
        """The settings it starts from, as far as they are searched."""
        settings = {BUDGET: self.budget.queries, **json.loads(self.start)}
        return {key: value_at(settings, key) for key in self.space()}

    def config(self, values: dict[str, Any]) -> str:
        """The whole config with those values in it, to four digits, as canonical JSON."""
        chosen = {key: _four_digits(value) for key, value in values.items() if key != BUDGET}
        return canonical_config(self.method, with_values(json.loads(self.start), chosen))

    def cells(self, values: dict[str, Any]) -> list[Cell]:
        """The cells of a trial, one for each seed."""
        budget = Budget(values.get(BUDGET, self.budget.queries), self.budget.answers, self.budget.inputs)
        seeds = range(FIRST_SEED, FIRST_SEED + self.seeds)
        config = self.config(values)
        return [Cell(self.tried_on, self.method, config, budget, seed, self.teacher, self.exam) for seed in seeds]

    def identity(self) -> dict[str, Any]:
        """All that makes two trials comparable."""
        canonical = json.dumps({key: repr(note) for key, note in self.space().items()}, sort_keys=True)
        described = {key: value for key, value in asdict(self).items() if key not in {"name", "sampler", "prune"}}
        described |= {"space": hashlib.sha256(canonical.encode()).hexdigest()[:12], "code": code_version(self.method)}
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain


@dataclass(frozen=True)
class Terms:
    """How to search, the same for all studies of a command; the fields are those of Study."""

    objective: Objective = "agreement"
    proxy: str | None = None
    held_out: int = 500
    seeds: int = 1
    sampler: Sampler = "tpe"
    against: tuple[Against, ...] = ()
    prune: bool = True

    def __post_init__(self) -> None:
        for name, value, known in (
            ("objective", self.objective, get_args(Objective)),
            ("sampler", self.sampler, get_args(Sampler)),
            *(("cost", cost, get_args(Against)) for cost in self.against),
        ):
            if value not in known:
                raise unknown(name, value, known)
        for name, number in (("held-out", self.held_out), ("seeds", self.seeds)):
            if number < 1:
                raise UsageError(f"{name} {number}: wanted 1 or more")
        if self.proxy is not None:
            task_of(self.proxy)
        if (self.objective == "transfer") != (self.proxy is not None):
            raise UsageError("the objective transfer, and no other, wants a proxy task, such as --proxy digits-lenet")

    def tried_on(self, task: str) -> str:
        """The task on which settings for the given one are tried."""
        if self.proxy == task:
            raise UsageError(f"proxy {task}: wanted a task other than the one to tune for")
        return self.proxy or task


@dataclass(frozen=True)
class Places:
    """root: the results folder. data: that of the data sets. storage: a database, or None for the study's journal.

    outside: methods and tasks from outside the repository.
    """

    root: Path
    data: Path
    storage: str | None = None
    outside: Outside = ()

    def folder(self, study: Study) -> Path:
        return self.root / "studies" / study.name


def study_of(item: Planned, terms: Terms, fixed: Sequence[str], name: str | None, places: Places) -> Study:
    """The study of a planned run, whose teachers are trained; asks the held-out queries, if it wants any."""
    tried_on = terms.tried_on(item.task)
    teacher = teachers.record_of(task_of(tried_on), places.root)
    assert teacher
    exam, held_out = "validation", 0
    if terms.objective == "agreement":
        exam, held_out = hold_out(task_of(tried_on), places.root, terms.held_out, item.budget.inputs), terms.held_out
    parts = (item.label, item.task, str(item.budget.queries), item.budget.answers, terms.objective)
    study = Study(
        name=name or "-".join(parts),
        method=item.method,
        task=item.task,
        budget=item.budget,
        objective=terms.objective,
        tried_on=tried_on,
        teacher=teacher.hash,
        exam=exam,
        held_out=held_out,
        seeds=terms.seeds,
        start=item.config,
        fixed=tuple(fixed),
        sampler=terms.sampler,
        against=terms.against,
        prune=terms.prune,
    )
    if not study.space():
        raise UsageError(f"method {item.method}: nothing is left to search; its settings have no range, or all are set")
    return study


def fixed_keys(item: Planned, settings: Sequence[str]) -> list[str]:
    """The settings of the planned run that METHOD.KEY=VALUE has set."""
    paths = [setting.partition("=")[0].partition(".") for setting in settings]
    return [key for pattern, _, key in paths if fnmatch.filter((item.label, item.method), pattern)]


def workers(study: Study, searched: optuna.Study, total: int, places: Places, room: int) -> list[Job]:
    """One job for each worker there is room and work for."""
    lacking = 0 if finished(searched, total) else total
    names = [f"worker {number}" for number in range(1, 1 + min(room, lacking))]
    return [Job(name, work_on_trials, (study, total, places), size=total) for name in names]


def open_study(study: Study, places: Places) -> optuna.Study:
    """The study as it stands in its storage, made if there is none.

    Raises UsageError for a storage that does not answer, and for a study of that name made for something else.
    """
    folder = places.folder(study)
    with wait_for(folder / "turn"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        searched = optuna.create_study(
            study_name=study.name,
            storage=_storage(places.storage, folder),
            directions=[StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] * len(study.against))],
            pruner=_pruner(study),
            load_if_exists=True,
        )
        known = searched.user_attrs.get("identity")
        if known is None:
            searched.set_user_attr("identity", study.identity())
            searched.enqueue_trial(study.starting_point())
        elif differing := _differences(known, study.identity()):
            raise UsageError(f"study {study.name} was made for {differing}; choose another --name")
    return searched


def work_on_trials(study: Study, total: int, places: Places, device: torch.device, report: Callable[..., None]) -> None:
    """The job of a worker: trials of the study until `total` of them have ended; it reports how many have."""
    warnings.simplefilter("ignore", ExperimentalWarning)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    plugins.load(places.outside)
    searched = open_study(study, places)
    worker = _Worker(study, searched, total, places, device, report)
    while not finished(searched, total):
        if not worker.one_trial():
            time.sleep(0.3)


def finished(searched: optuna.Study, total: int) -> bool:
    """Whether the study has so many trials, all of them ended, or nothing but failures."""
    ended = [trial for trial in counted(searched) if trial.state.is_finished()]
    failed = [trial for trial in ended if trial.state == TrialState.FAIL]
    return len(ended) >= total or len(ended) == len(failed) >= HOPELESS


def counted(searched: optuna.Study) -> list[FrozenTrial]:
    """The trials that are running or have ended. One lost with its worker, or one too many, is no trial."""
    return [
        trial
        for trial in searched.get_trials(deepcopy=False)
        if trial.state in {TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED} or "reason" in trial.user_attrs
    ]


class _Worker:
    """One process at work on a study."""

    def __init__(
        self,
        study: Study,
        searched: optuna.Study,
        total: int,
        places: Places,
        device: torch.device,
        report: Callable[..., None],
    ) -> None:
        self.study, self.searched, self.total = study, searched, total
        self.places, self.device, self.report = places, device, report
        self.folder = places.folder(study)
        self.ended = 0

    def one_trial(self) -> bool:
        """Run the next trial, if there is room for one; whether there was."""
        with ExitStack() as turn, ExitStack() as held:
            turn.enter_context(wait_for(self.folder / "turn"))
            self._bury_the_dead()
            trials = counted(self.searched)
            self.ended = sum(trial.state.is_finished() for trial in trials)
            if len(trials) >= self.total:
                return False
            # One seed a trial: a study that goes on, or has many workers, draws nothing twice.
            self.searched.sampler = SAMPLERS[self.study.sampler](seed=len(self.searched.get_trials(deepcopy=False)))

            def objective(trial: optuna.Trial) -> tuple[float, ...]:
                held.enter_context(lock(self.folder / "trials" / str(trial.number)))
                trial.set_user_attr("host", socket.gethostname())
                values = suggest(trial, self.study.space())
                turn.close()
                self._give_up_if_surplus(trial)
                try:
                    return self._run(trial, values)
                except SystemExit:  # told to stop, which is not the trial's fault
                    trial.set_user_attr("deaths", trial.user_attrs.get("deaths", 0) - 1)
                    raise

            self.searched.optimize(objective, n_trials=1, catch=(CellFailed, _Surplus))
        self.ended += 1
        self._say()
        return True

    def _run(self, trial: optuna.Trial, values: dict[str, Any]) -> tuple[float, ...]:
        """The values of a trial: the mean figure over its seeds, then what is traded off against it."""
        cells = self.study.cells(values)
        try:
            curves = [self._curve(cell, trial if cell is cells[0] else None) for cell in cells]
        except CellFailed as failure:
            trial.set_user_attr("reason", str(failure))
            raise
        except Stopped as stop:
            raise optuna.TrialPruned from stop
        finally:
            ends = {cell.name(): _totals(self._place(cell)) for cell in cells}
            trial.set_user_attr("cells", {name: end.get("spent", 0) for name, end in ends.items()})
        figure = sum(curve[-1][self.study.figure] for curve in curves) / len(curves)
        costs = {
            "queries": sum(curve[-1]["spent"] for curve in curves) / len(curves),
            "seconds": sum(end["seconds"] for end in ends.values()) / len(ends),
        }
        return figure, *(costs[name] for name in self.study.against)

    def _curve(self, cell: Cell, trial: optuna.Trial | None) -> list[dict[str, Any]]:
        """Run the cell, or wait for whoever runs it for another trial, and read its curve; `trial` may be pruned."""
        while True:
            try:
                run_cell(cell, self.places.root, self.places.data, self.device, self._watch(cell, trial))
                curve: list[dict[str, Any]] = read_json(self._place(cell) / "curve.json")
                return curve
            except Busy:
                time.sleep(0.3)

    def _watch(self, cell: Cell, trial: optuna.Trial | None) -> Callable[[int, dict[str, float]], None]:
        """What to do between two rounds: a sign of life, new points for the trial, and its end if they are poor."""
        file, handed = self._place(cell) / "curve.json", 0

        def watch(spent: int, _: dict[str, float]) -> None:
            nonlocal handed
            self._say()
            if trial is None or self.study.against or not file.exists():
                return
            new = [point for point in read_json(file)[handed:] if point["spent"] <= spent]
            for point in new:
                trial.report(point[self.study.figure], point["budget"])
            handed += len(new)
            if new and self.study.prune and trial.should_prune():
                raise Stopped

        return watch

    def _place(self, cell: Cell) -> Path:
        return self.places.root / "cells" / cell.name()

    def _give_up_if_surplus(self, trial: optuna.Trial) -> None:
        """Two machines may both have seen room for the last trial: the later one gives up."""
        if sum(other.number < trial.number for other in counted(self.searched)) >= self.total:
            raise _Surplus

    def _bury_the_dead(self) -> None:
        """Put the trials whose workers are gone back into the queue."""
        optuna.storages.fail_stale_trials(self.searched)  # other machines', by their heartbeat
        for trial in self.searched.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial):
                self.searched.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                put_back(self.searched, trial)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether a running trial is this machine's and nobody works on it."""
        host = trial.user_attrs.get("host")
        if host is None:
            asked = trial.datetime_start or datetime.now()
            return datetime.now() - asked > timedelta(seconds=GRACE)
        return bool(host == socket.gethostname()) and is_free(self.folder / "trials" / str(trial.number))

    def _say(self) -> None:
        """Report how many trials have ended; whoever reports to nobody stops."""
        try:
            self.report(self.ended, {})
        except BrokenPipeError as error:
            raise SystemExit("the command that started this worker is gone") from error


class _Surplus(Exception):
    """There are enough trials before this one."""


def put_back(searched: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that died with its worker again; its cells go on from their checkpoints."""
    deaths = trial.user_attrs.get("deaths", 0) + 1
    if deaths >= DEATHS:
        return
    # Those it was queued with are not among its own until it has asked for them.
    values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    searched.enqueue_trial(values, user_attrs={"deaths": deaths})


def wait_for(folder: Path) -> ExitStack:
    """The lock of the folder, once whoever holds it lets it go."""
    held = ExitStack()
    while True:
        try:
            held.enter_context(lock(folder))
            return held
        except Busy:
            time.sleep(0.05)


def is_free(folder: Path) -> bool:
    """Whether no process holds the folder."""
    try:
        with lock(folder):
            return True
    except Busy:
        return False


def _totals(cell: Path) -> dict[str, Any]:
    """What a cell left in its folder at its end, whatever that was."""
    endings = [cell / f"{ending}.json" for ending in ("done", "stopped", "failed")]
    return next((read_json(ending) for ending in endings if ending.exists()), {})


def _storage(url: str | None, folder: Path) -> optuna.storages.BaseStorage:
    if url is None:
        return JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return _database(url)


def _database(url: str) -> optuna.storages.BaseStorage:
    """A database shared by machines; UsageError where it does not answer."""
    shown = url.rpartition("@")[2] if "@" in url else url  # without the password
    if url.startswith("sqlite"):
        raise UsageError(
            f"storage {shown}: SQLite loses workers that open it at once; without --storage it is a journal"
        )
    try:
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": {"connect_timeout": 10}} if url.startswith("postgresql") else {},
            heartbeat_interval=HEARTBEAT,
            grace_period=5 * HEARTBEAT,
            heartbeat_stale_trial_callback=put_back,
        )
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0].replace(url, shown)
        raise UsageError(f"storage {shown} cannot be reached: {reason[:200]}") from error


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    """Ends a trial that is below the median of the others at the same budget, from a quarter of the budget on."""
    if not study.prune or study.against:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=study.budget.queries // 4)


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """A value for every setting that is searched."""
    values: dict[str, Any] = {}
    for key, note in space.items():
        if isinstance(note, Choice):
            values[key] = trial.suggest_categorical(key, note.values)
        elif note.whole:
            values[key] = trial.suggest_int(key, int(note.low), int(note.high), log=note.log, step=int(note.step or 1))
        else:
            values[key] = trial.suggest_float(key, note.low, note.high, log=note.log, step=note.step)
    return values


def _differences(known: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What differs, as `key value, not value`."""
    differing = [key for key in wanted if known.get(key) != wanted[key]]
    return ", ".join(f"{key} {known.get(key)}, not {wanted[key]}" for key in differing[:2])


def _four_digits(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
