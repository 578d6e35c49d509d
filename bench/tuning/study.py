"""The search for settings: a study of trials, each of them cells examined on something other than test data."""

import fnmatch
import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bench.boxes.door import record_of
from bench.cells.cell import Cell, canonical_config
from bench.cells.code import versions_of
from bench.cells.exam import hold_out
from bench.cells.run import AS_USUAL, How
from bench.contract.plugins import Outside
from bench.errors import UsageError, shown, unknown
from bench.grids.plan import Planned
from bench.tasks.table import task_of
from budgets import Budget
from methods import METHODS
from methods.search import Range, Space, including, space, value_at, with_values
from results.claims import wait_for

Objective = Literal["agreement", "transfer", "validation"]
Sampler = Literal["tpe", "gp", "random"]
Against = Literal["queries", "seconds"]
FIRST_SEED = 1000  # of trials: what is measured at the end has seeds from 0
DEATHS = 3  # a trial whose worker died so often, and was not told to stop, is not tried again
HOPELESS = 10  # so many failures and nothing else end a study
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
        described |= {
            "space": hashlib.sha256(canonical.encode()).hexdigest()[:12],
            "versions": versions_of(self.method),
        }
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

    outside: methods and tasks from outside the repository. how: the cells are run.
    """

    root: Path
    data: Path
    storage: str | None = None
    outside: Outside = ()
    how: How = AS_USUAL

    def folder(self, study: Study) -> Path:
        return self.root / "studies" / study.name


def study_of(item: Planned, terms: Terms, fixed: Sequence[str], name: str | None, places: Places) -> Study:
    """The study of a planned run, whose teachers are trained; asks the held-out queries, if it wants any."""
    tried_on = terms.tried_on(item.task)
    teacher = record_of(task_of(tried_on), places.root)
    assert teacher
    exam, held_out = "validation", 0
    if terms.objective == "agreement":
        exam, held_out = hold_out(task_of(tried_on), places.root, terms.held_out, item.budget.inputs), terms.held_out
    parts = [item.label, item.task, str(item.budget.queries), item.budget.answers, terms.objective]
    parts += [item.budget.inputs] if item.budget.inputs != "float" else []
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


def put_back(searched: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that died with its worker again; its cells go on from their checkpoints."""
    deaths = trial.user_attrs.get("deaths", 0) + 1
    if deaths >= DEATHS:
        return
    # Those it was queued with are not among its own until it has asked for them.
    values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    searched.enqueue_trial(values, user_attrs={"deaths": deaths})


def _storage(url: str | None, folder: Path) -> optuna.storages.BaseStorage:
    if url is None:
        return JournalStorage(JournalFileBackend(str(folder / "journal.log"), lock_obj=JournalLock(folder / "journal")))
    return _database(url)


class JournalLock(JournalFileSymlinkLock):
    """The lock of a study's journal, which the operating system takes from a process that dies.

    Optuna's own lies there for 30 seconds, and of two workers that break it then, one breaks the other's new one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._held = folder, ExitStack()

    def acquire(self) -> bool:
        self._held.enter_context(wait_for(self._folder))
        return True

    def release(self) -> None:
        self._held.close()


def _database(url: str) -> optuna.storages.BaseStorage:
    """A database shared by machines; UsageError where it does not answer."""
    if url.startswith("sqlite"):
        raise UsageError(f"storage {url}: SQLite loses workers that open it at once; without --storage it is a journal")
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
        reason = shown((lines or [type(error).__name__])[0])[:200]
        raise UsageError(f"storage {url} cannot be reached: {reason}") from error


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    """Ends a trial that is below the median of the others at the same budget, from a quarter of the budget on."""
    if not study.prune or study.against:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=study.budget.queries // 4)


def _differences(known: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What differs, as `key value, not value`."""
    differing = [key for key in wanted if known.get(key) != wanted[key]]
    return ", ".join(f"{key} {known.get(key)}, not {wanted[key]}" for key in differing[:2])


def _four_digits(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
