"""The trials of a study, run by workers until it has as many as were asked for.

Workers are processes. Who holds the lock on `turn` may look for dead trials and ask for the next one;
who runs a trial holds that trial's lock, and a dead process holds nothing. On several machines, which
share a database and no locks, Optuna's heartbeat finds the dead, and a trial too many gives itself up
by its number.
"""

import socket
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from bench.cells.cell import Cell
from bench.cells.run import CellFailed, Interrupted, Stopped, run_cell
from bench.contract import plugins
from bench.executors.jobs import Job
from bench.tuning.study import Places, Study, counted, finished, open_study, put_back
from methods.search import Choice, Space
from results.claims import Busy, is_held, lock, wait_for
from results.records import Failure, read
from results.store import read_json, state_of

SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "random": optuna.samplers.RandomSampler,
}
GRACE = 60  # seconds in which a trial that has just been asked for gets its host's name


def workers(study: Study, searched: optuna.Study, total: int, places: Places, room: int) -> list[Job]:
    """One job for each worker there is room and work for."""
    lacking = 0 if finished(searched, total) else total
    names = [f"worker {number}" for number in range(1, 1 + min(room, lacking))]
    return [Job(name, work_on_trials, (study, total, places), size=total, saves=True) for name in names]


def work_on_trials(study: Study, total: int, places: Places, device: torch.device, report: Callable[..., None]) -> None:
    """The job of a worker: trials of the study until `total` of them have ended; it reports how many have."""
    warnings.simplefilter("ignore", ExperimentalWarning)
    plugins.load(places.outside)
    searched = open_study(study, places)
    worker = _Worker(study, searched, total, places, device, report)
    while not finished(searched, total):
        if not worker.one_trial():
            time.sleep(0.3)


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
                except Interrupted:  # told to stop, which is not the trial's fault
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
            trial.set_user_attr("cells", {name: spent for name, (spent, _) in ends.items()})
        figure = sum(curve[-1][self.study.figure] for curve in curves) / len(curves)
        costs = {
            "queries": sum(curve[-1]["spent"] for curve in curves) / len(curves),
            "seconds": sum(seconds for _, seconds in ends.values()) / len(ends),
        }
        return figure, *(costs[name] for name in self.study.against)

    def _curve(self, cell: Cell, trial: optuna.Trial | None) -> list[dict[str, Any]]:
        """Run the cell, or wait for whoever runs it for another trial, and read its curve; `trial` may be pruned."""
        while True:
            try:
                places, watch = (self.places.root, self.places.data), self._watch(cell, trial)
                run_cell(cell, *places, self.device, watch, how=self.places.how, outside=self.places.outside)
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
        for trial in self._running():
            # One that came to its end since then has let go of its lock as well: so look again.
            if self._is_dead(trial) and trial.number in [other.number for other in self._running()]:
                self.searched.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                put_back(self.searched, trial)

    def _running(self) -> list[FrozenTrial]:
        return self.searched.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether a running trial is this machine's and nobody works on it."""
        host = trial.user_attrs.get("host")
        if host is None:
            asked = trial.datetime_start or datetime.now()
            return datetime.now() - asked > timedelta(seconds=GRACE)
        return bool(host == socket.gethostname()) and not is_held(self.folder / "trials" / str(trial.number))

    def _say(self) -> None:
        """Report how many trials have ended."""
        self.report(self.ended, {})


class _Surplus(Exception):
    """There are enough trials before this one."""


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


def _totals(cell: Path) -> tuple[int, float]:
    """The queries and seconds that a cell came to at its end, whatever that was."""
    state = state_of(cell, None)
    if state.totals:
        return state.totals.spent, state.totals.seconds
    failed = cell / "failed.json"
    return (read(failed, Failure).spent if failed.exists() else 0), 0.0
