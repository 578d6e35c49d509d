"""The curve of a running cell: at which budgets a point is due, and which student stands for each."""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bench.cells.asked import Asked
from bench.cells.exam import Exam
from methods.run import Run
from results.records import Point
from results.store import write_json

_STEPS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)
MARKS = tuple(step * 10**power for power in range(8) for step in _STEPS)


def marks(protocol: str, budget: int) -> list[int]:
    """The budgets at which a point is due: a student trained for one budget answers for no other."""
    mid_run = MARKS if protocol == "anytime" else ()
    return [mark for mark in mid_run if mark < budget] + [budget]


@dataclass(frozen=True)
class Progress:
    """A moment between two rounds. spent, distinct: the meter's counts. steps: how often the student's weights were
    updated. figures: what the method yielded."""

    round: int = 0
    steps: int = 0
    spent: int = 0
    distinct: int = 0
    figures: dict[str, float] | None = None


class Curve:
    """The points of a cell, kept in `file` as they come.

    A point at budget B is the student of the last round whose queries are at most B. Only the next round shows which
    that was, so a copy of the student, and of each network that the method shows apart, is kept after each round.

    marks: the budgets at which points are due, the cell's own last. saved: `state_dict` of an earlier attempt.
    """

    def __init__(
        self,
        file: Path,
        marks: list[int],
        student: nn.Module,
        run: Run,
        exam: Exam,
        asked: Asked,
        saved: dict[str, Any] | None,
    ) -> None:
        self._file, self._marks, self._student, self._run = file, marks, student, run
        self._exam, self._asked = exam, asked
        self.measured = copy.deepcopy(student).eval()
        self.progress = Progress(**saved["progress"]) if saved else Progress()
        self.points: list[Point] = saved["points"] if saved else []

    def end_round(self, spent: int, distinct: int, steps: int, figures: dict[str, float]) -> None:
        """Take in a round: points that the student before it stands for are due now."""
        self._measure(up_to=spent - 1)
        self._run.round += 1
        for network, kept in ((self._student, self.measured), *self._run.shown.values()):
            kept.load_state_dict(network.state_dict())
        self.progress = Progress(self._run.round, steps, spent, distinct, figures)

    def finish(self) -> None:
        """Add the points that the last round's student stands for."""
        self._measure(up_to=self._marks[-1])

    def state_dict(self) -> dict[str, Any]:
        """What a later attempt needs besides the student, which is that of the last round."""
        return {"progress": asdict(self.progress), "points": self.points}

    def _measure(self, up_to: int) -> None:
        """Add the points at all marks up to that many queries which the last round's student stands for."""
        after = max((point["budget"] for point in self.points), default=0)
        due = [mark for mark in self._marks if after < mark <= up_to and mark >= self.progress.spent]
        if not due or not self.progress.round:
            return
        result = self._exam.measure(self.measured)
        for name, (_, kept) in self._run.shown.items():
            result |= {f"{key}_{name}": value for key, value in self._exam.measure(kept).items()}
        result |= self._asked.measure(self.measured)
        at = asdict(self.progress)
        self.points += [{"budget": mark, **at, **result} for mark in due]  # type: ignore[typeddict-item]
        write_json(self._file, self.points)
