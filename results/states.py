"""What a run asks for and what of it is there: its record, and the states of its cells for the code that is here."""

from collections.abc import Mapping
from pathlib import Path

from results.index import Cells
from results.records import Entry, Point, RunRecord, Versions, read
from results.store import CellState


class States:
    """One look at a run: the record of what was planned, and the cells under `root`, which is where the run lies if it
    is not given.

    versions: kind -> the result versions of the code that is asked about; of a kind that is not there, those of the
    code that planned the run. What was learnt of the cells is remembered at the end of `with`.
    """

    def __init__(self, run: Path, versions: Mapping[str, Versions] | None = None, root: Path | None = None) -> None:
        self.record = read(run / "run.json", RunRecord)
        self.versions = {**self.record.versions, **(versions or {})}
        self.cells = Cells(root or run.parent)

    def __enter__(self) -> "States":
        return self

    def __exit__(self, *_: object) -> None:
        self.cells.__exit__()

    def of(self, entry: Entry) -> CellState:
        """The state of the entry's own cell."""
        return self._of(entry.cell, entry)

    def answering(self, entry: Entry) -> str | None:
        """The cell whose points are the entry's: its own, or the widest of the narrower ones that is done."""
        if self.of(entry).name == "done":
            return entry.cell
        narrower = (entry.narrower[budget] for budget in sorted(entry.narrower, reverse=True))
        return next((cell for cell in narrower if self._of(cell, entry).name == "done"), None)

    def points(self, cell: str) -> list[Point]:
        """The curve of a cell that is done."""
        return self.cells.points(cell)

    def _of(self, cell: str | None, entry: Entry) -> CellState:
        return self.cells.state(cell, self.versions.get(entry.kind), entry.reason)
