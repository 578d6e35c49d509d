"""Counting again: what the journal of a cell says, beside what its meter said."""

from dataclasses import dataclass
from pathlib import Path

from budgets import journal
from budgets.journal import Counts, JournalError
from results.store import state_of


@dataclass(frozen=True)
class Audit:
    """A cell with a journal. spent, distinct: as its meter said; None before its end. counts: from the journal alone.

    repeated: images that were asked again after a restart, because the method then asked something else. fault: what
    does not agree, or nothing.
    """

    cell: str
    spent: int | None
    distinct: int | None
    counts: Counts
    repeated: int
    fault: str


def audit(folder: Path) -> Audit | None:
    """Count the queries of the cell in the folder again; None for one without a journal."""
    ledger = folder / "journal"
    if not ledger.exists():
        return None
    try:
        counts, asked = journal.count(ledger), _asked(ledger)
    except JournalError as error:
        return Audit(folder.name, None, None, Counts(0, 0, 0, 0, 0, 0, 0), 0, str(error))
    totals = state_of(folder, None).totals
    if totals is None:
        return Audit(folder.name, None, None, counts, counts.answered - asked, "")
    fault = f"the meter counted {totals.spent:,}, the journal has {asked:,} images" if totals.spent != asked else ""
    if not fault and counts.answered == asked and totals.distinct != counts.distinct:
        fault = f"the meter saw {totals.distinct:,} distinct images, the journal has {counts.distinct:,}"
    return Audit(folder.name, totals.spent, totals.distinct, counts, counts.answered - asked, fault)


def _asked(ledger: Path) -> int:
    """Places that the journal has an answer for; after a restart a place may be asked again, in other company."""
    answers = (entry for entry in journal.entries(ledger) if entry["kind"] == "answer")
    asked = end = 0
    for at, n in sorted((int(entry["at"]), int(entry["n"])) for entry in answers):
        asked += max(at + n - max(at, end), 0)
        end = max(end, at + n)
    return asked
