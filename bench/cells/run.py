"""run_cell: a cell from its start, or from its checkpoint, to the files it leaves."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.boxes.process import OwnProcess, WentRound
from bench.cells import checkpoint
from bench.cells.assemble import Parts, assemble
from bench.cells.cell import Cell
from bench.cells.code import versions_of
from bench.cells.curve import Curve, marks
from bench.cells.steps import Steps
from bench.contract.plugins import Outside
from bench.errors import UsageError
from bench.provenance import commit, machine
from budgets import BudgetExhausted, journal
from results.claims import Robbed, lock
from results.records import CellRecord, Failure, NewerSchema, RecordError, Totals, Versions, plain, read
from results.store import state_of, write_json

commit()  # asked, and kept, while this code is loaded: its checkout may be another when a cell ends
Report = Callable[[int, dict[str, float]], None]
LOOK = 1.0  # seconds from one look at whether the cell is still this process's to the next: each asks a file server
ENDINGS = ((Totals, "done.json"), (Failure, "failed.json"), (Totals, "stopped.json"))


@dataclass(frozen=True)
class How:
    """How a cell is run; nothing of it changes a result.

    checkpoint_seconds: the least between two checkpoints. keep_student: whether the final student is kept. isolate:
    whether its black box answers from a process of its own.
    """

    checkpoint_seconds: float = checkpoint.LEAST
    keep_student: bool = False
    isolate: bool = False


AS_USUAL = How()


class CellFailed(Exception):
    """The cell ended without a result; the reason is its message, and in failed.json."""


class Stopped(Exception):
    """Raised by `report` to end a cell before its time: it has no result, and a new attempt starts anew."""


class Interrupted(BaseException):
    """Raised by `report` to end a cell for now: it leaves a checkpoint, and a new attempt goes on from there.

    No Exception, so that nobody between takes it for a failure.
    """


def run_cell(
    cell: Cell,
    root: Path,
    data_folder: Path,
    device: torch.device,
    report: Report = lambda *_: None,
    *,
    say: Callable[[str], None] = lambda _: None,
    how: How = AS_USUAL,
    outside: Outside = (),
) -> None:
    """Run a cell to its end, from its checkpoint if it has one, and leave its files under `root`.

    report: told the queries spent and the method's figures after each round. say: told what a person should know.
    outside: what a process must load to know the cell's task.
    Raises CellFailed where there is no result, results.claims.Busy where another process is at it (Robbed where that
    took it over from this one, which leaves all as it is), and Stopped or Interrupted where `report` did.
    """
    folder, versions = root / "cells" / cell.name(), versions_of(cell.method)

    def is_done() -> bool:
        return (folder / "done.json").exists() and state_of(folder, versions).name == "done"

    if is_done():  # a look costs less than half of the requests to a file server that taking the folder does
        return
    with lock(folder) as claim:
        if is_done():
            return
        for kind, ending in ENDINGS:
            _discard(folder / ending, kind)
        (folder / "student.pt").unlink(missing_ok=True)
        write_json(folder / "cell.json", plain(CellRecord(cell.identity(), versions)))
        running, apart = None, tuple(outside) if how.isolate else None
        try:
            running = _Running(cell, versions, folder, root, data_folder, device, say, apart)
            running.play(report, how.checkpoint_seconds, claim.check)
            running.counted()
            running.finish("done.json", keep_student=how.keep_student)
        except Stopped:
            assert running
            running.finish("stopped.json")
            raise
        except Interrupted:
            assert running
            running.save()
            raise
        except Robbed:
            raise  # and write nothing: the cell is another's
        except (Exception, SystemExit) as error:  # a method may call sys.exit
            expected = isinstance(error, UsageError | ValueError | CellFailed | WentRound)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            spent = running.parts.oracle.spent if running else 0
            write_json(folder / "failed.json", plain(Failure(reason, traceback.format_exc(), spent)))
            raise CellFailed(reason) from error
        finally:
            if running:
                running.parts.door.close()


def _discard(file: Path, kind: type) -> None:
    """Take away what an earlier attempt left; UsageError for what a newer version left, which stays."""
    try:
        read(file, kind)
    except NewerSchema as error:
        raise UsageError(str(error)) from error
    except RecordError:
        pass  # not there, or nothing that anyone could use
    file.unlink(missing_ok=True)


class _Running:
    """A cell at work: its parts, its curve, and the time it took. versions: of the code that is at work, which a file
    that is edited meanwhile is not."""

    def __init__(
        self,
        cell: Cell,
        versions: Versions,
        folder: Path,
        root: Path,
        data_folder: Path,
        device: torch.device,
        say: Callable[[str], None],
        apart: Outside | None,
    ) -> None:
        self._cell, self._folder, self._device, self._started = cell, folder, device, time.monotonic()
        self._versions = versions
        key = {**versions, "device": device.type, "format": checkpoint.FORMAT}
        self._checkpoint = checkpoint.Checkpoint(folder, key)
        # What is loaded is let go when this returns: it may be as large as all the rest.
        saved, other = self._checkpoint.load(device)
        if other:
            say(f"{cell.name()} starts over: {other}")
        if not saved:
            (folder / "curve.json").unlink(missing_ok=True)  # of an attempt that this one does not go on from
        self._seconds_before: float = saved["seconds"] if saved else 0.0
        self.parts: Parts = assemble(cell, root, data_folder, device, saved, apart)
        due = marks(self.parts.method.PROTOCOL, cell.budget.queries)
        earlier = saved["curve"] if saved else None
        parts = self.parts
        self._curve = Curve(folder / "curve.json", due, parts.student, parts.run, parts.exam, parts.asked, earlier)
        self._steps = Steps(parts.student, self._curve.progress.steps)

    def play(self, report: Report, checkpoint_seconds: float, check: Callable[[], None]) -> None:
        """Round after round until the method or its budget ends, or `check` says that the cell is another's."""
        parts, curve, pace = self.parts, self._curve, checkpoint.Pace(checkpoint_seconds)
        looked = self._started
        rounds = parts.method.distill(parts.oracle, parts.student, parts.config, parts.run)
        with self._steps.counted(), suppress(BudgetExhausted):  # the end of every method, and of no round
            for figures in rounds:
                if time.monotonic() - looked >= LOOK:
                    check()
                    looked = time.monotonic()
                parts.run.check_resumed()
                spent = self.counted()
                curve.end_round(spent, parts.oracle.distinct, self._steps.done, figures)
                report(spent, figures)
                if pace.is_due():
                    pace.saved(self.save())
        parts.run.check_resumed()
        if not curve.progress.round:
            raise CellFailed(f"{self._cell.budget.queries} queries do not cover one round of {self._cell.method}")
        curve.finish()

    def counted(self) -> int:
        """Queries spent; WentRound where a black box apart has answered another number of images."""
        spent = self.parts.oracle.spent
        if isinstance(self.parts.door, OwnProcess):
            self.parts.door.check(spent)
        return spent

    def save(self) -> float:
        """Write a checkpoint; returns the seconds it took."""
        begun = time.monotonic()
        self.parts.asked.save(self._folder / "samples.png")
        self._checkpoint.save(
            self.parts.run,
            student=self.parts.student.state_dict(),
            oracle=self.parts.oracle.state_dict(),
            asked=self.parts.asked.state_dict(),
            curve=self._curve.state_dict(),
            seconds=self._seconds(),
        )
        return time.monotonic() - begun

    def finish(self, ending: str, *, keep_student: bool = False) -> None:
        """Leave the totals under that name, the last file of a cell."""
        if keep_student:
            checkpoint.save(self._folder / "student.pt", self._curve.measured.state_dict())
        ledger = self._folder / "journal"
        counts = journal.count(ledger) if ledger.exists() else None
        totals = Totals(
            spent=self.parts.oracle.spent,
            distinct=self.parts.oracle.distinct,
            rounds=self._curve.progress.round,
            steps=self._curve.progress.steps,
            seconds=self._seconds(),
            versions=self._versions,
            machine=machine(self._device),
            attempts=counts.attempts if counts else None,
            charged=counts.charged if counts else None,
        )
        self.parts.asked.save(self._folder / "samples.png")
        write_json(self._folder / ending, plain(totals))
        self._checkpoint.remove()

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started
