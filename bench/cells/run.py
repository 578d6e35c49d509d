"""run_cell: where task, teacher, oracle, student and method meet, and a curve comes out."""

import copy
import io
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.boxes import box, teachers
from bench.cells import checkpoint
from bench.cells.cell import Cell, code_version
from bench.cells.exam import exam_of, sealed
from bench.errors import UsageError
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import task_of
from budgets import BudgetExhausted, Oracle
from methods import METHODS
from methods.run import Run
from results.store import digest, lock, read_json, write_bytes, write_json

Report = Callable[[int, dict[str, float]], None]
_STEPS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)
MARKS = tuple(step * 10**power for power in range(8) for step in _STEPS)


class CellFailed(Exception):
    """The cell ended without a result; the reason is its message, and in failed.json."""


class Stopped(Exception):
    """Raised by `report` to end a cell before its time: it has no result, and a new attempt starts anew."""


@dataclass(frozen=True)
class Progress:
    """A moment between two rounds. spent, distinct: the meter's counts. figures: what the method yielded."""

    round: int = 0
    spent: int = 0
    distinct: int = 0
    figures: dict[str, float] | None = None


def run_cell(
    cell: Cell,
    root: Path,
    data_folder: Path,
    device: torch.device,
    report: Report = lambda *_: None,
    *,
    checkpoint_seconds: float = 20.0,
    keep_student: bool = False,
) -> None:
    """Run a cell to its end, from its checkpoint if it has one, and leave its files under `root`.

    Raises CellFailed where there is no result, results.store.Busy where another process is at it, and
    Stopped where `report` did.
    """
    folder = root / "cells" / cell.name()
    with lock(folder):
        if is_done(folder, cell.method):
            return
        for ending in ("done.json", "failed.json", "stopped.json"):
            (folder / ending).unlink(missing_ok=True)
        write_json(folder / "cell.json", {**cell.identity(), "code": code_version(cell.method)})
        running = None
        try:
            running = _Running(cell, folder, root, data_folder, device, report)
            running.to_the_end(checkpoint_seconds, keep_student)
        except Stopped:
            assert running
            running.finish("stopped.json")
            raise
        except Exception as error:
            expected = isinstance(error, UsageError | ValueError | CellFailed)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            spent = running.oracle.spent if running else 0
            write_json(folder / "failed.json", {"reason": reason, "spent": spent, "traceback": traceback.format_exc()})
            raise CellFailed(reason) from error


def is_done(folder: Path, method: str) -> bool:
    """Whether the cell in the folder was finished by this version of the code."""
    done = folder / "done.json"
    return done.exists() and read_json(done)["code"] == code_version(method)


class Samples:
    """The teacher, remembering some of the images it was last sent, for the report to show."""

    COUNT = 16

    def __init__(self, teacher: Callable[[Tensor], Tensor]) -> None:
        self._teacher = teacher
        self._latest: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        some = images.detach()[:: max(1, len(images) // self.COUNT)][: self.COUNT].clone()
        self._latest = [*self._latest, *some][-self.COUNT :]
        return self._teacher(images)

    def save(self, path: Path) -> None:
        """Write the images side by side as a PNG; nothing, if the teacher was not asked since the start."""
        if not self._latest:
            return
        strip = torch.cat(self._latest, dim=2).mul(255).round().to(torch.uint8).cpu()
        picture = Image.fromarray(strip[0].numpy() if len(strip) == 1 else strip.permute(1, 2, 0).numpy())
        picture.save(buffer := io.BytesIO(), "PNG")
        write_bytes(path, buffer.getvalue())


class _Running:
    """The state of a running cell, all of which a checkpoint carries over.

    A point at budget B is the student of the last round whose queries are at most B. Only the next
    round shows which that was, so `measured` keeps a copy of the student as it was after each round.
    """

    def __init__(
        self, cell: Cell, folder: Path, root: Path, data_folder: Path, device: torch.device, report: Report
    ) -> None:
        task = task_of(cell.task)
        source, dataset = sources.source_of(task.dataset), sealed(sources.load(task.dataset, data_folder), cell)
        teacher = teachers.load(task, root, device)
        record = teachers.record_of(task, root)  # whose hash `load` has just compared with the weights
        if record is None or record.hash != cell.teacher:
            raise UsageError(f"the teacher of {cell.task} is no longer {cell.teacher}; plan again")
        self.cell, self.folder, self.report, self.started = cell, folder, report, time.monotonic()
        self.method = METHODS[cell.method]
        self.config = self.method.Config.model_validate_json(cell.config)
        self.exam = exam_of(cell, dataset, teacher, root, device)
        self.samples = Samples(box.black_box(teacher))
        self.oracle = Oracle(self.samples, cell.budget, shape=source.shape, classes=source.classes)
        self.saved = checkpoint.load(folder / "checkpoint.pt", code_version(cell.method), device) or {}
        # One seed for the weights, so that all methods start from the same student, another for the method.
        torch.manual_seed(cell.seed)
        self.student = networks.build(task.student, source.shape, source.classes).to(device)
        torch.manual_seed(int(digest(f"method {cell.seed}")[:15], 16))
        images = self._images(dataset, data_folder, source.shape)
        images = None if images is None else images.to(device)
        self.method_run = Run(device, _default_generator(device), data=images, saved=self.saved.get("run"))
        if self.saved:
            self.oracle.load_state_dict(self.saved["oracle"])
            self.student.load_state_dict(self.saved["student"])
        self.measured = copy.deepcopy(self.student).eval()
        self.progress = Progress(**self.saved.get("progress", {}))
        self.points: list[dict[str, Any]] = self.saved.get("points", [])
        self.seconds_before: float = self.saved.get("seconds", 0.0)

    def _images(self, dataset: sources.Dataset, data_folder: Path, shape: tuple[int, int, int]) -> Tensor | None:
        """What the method needs besides the oracle, float images in [0, 1]; None for one that is data-free."""
        if self.method.DATA == "train":
            return dataset.train.images.float().div(255)
        if self.method.DATA == "other":
            return sources.other_images(self.config.images, data_folder, shape).float().div(255)
        return None

    def to_the_end(self, checkpoint_seconds: float, keep_student: bool) -> None:
        """Round after round until the method or its budget ends, then the done mark."""
        last_checkpoint = time.monotonic()
        try:
            for figures in self.method.distill(self.oracle, self.student, self.config, self.method_run):
                self._end_round(figures)
                if time.monotonic() - last_checkpoint >= checkpoint_seconds:
                    self._save()
                    last_checkpoint = time.monotonic()
        except BudgetExhausted:
            pass  # the end of every method; what it did since its last round is no round
        if not self.progress.round:
            raise CellFailed(f"{self.cell.budget.queries} queries do not cover one round of {self.cell.method}")
        self._measure(up_to=self.cell.budget.queries)
        if keep_student:
            checkpoint.save(self.folder / "student.pt", self.measured.state_dict())
        self.finish("done.json")

    def _end_round(self, figures: dict[str, float]) -> None:
        self._measure(up_to=self.oracle.spent - 1)
        self.method_run.round += 1
        for network, kept in ((self.student, self.measured), *self.method_run.shown.values()):
            kept.load_state_dict(network.state_dict())
        self.progress = Progress(self.method_run.round, self.oracle.spent, self.oracle.distinct, figures)
        self.report(self.oracle.spent, figures)

    def _measure(self, up_to: int) -> None:
        """Add the points at all marks up to that many queries which the last round's student stands for."""
        after = max((point["budget"] for point in self.points), default=0)
        marks = [mark for mark in self._marks() if after < mark <= up_to and mark >= self.progress.spent]
        if not marks or not self.progress.round:
            return
        result = self.exam.measure(self.measured)
        for name, (_, kept) in self.method_run.shown.items():
            result |= {f"{key}_{name}": value for key, value in self.exam.measure(kept).items()}
        self.points += [{"budget": mark, **asdict(self.progress), **result} for mark in marks]
        write_json(self.folder / "curve.json", self.points)

    def _marks(self) -> list[int]:
        """The budgets at which a point is due: a student trained for one budget answers for no other."""
        budget = self.cell.budget.queries
        mid_run = MARKS if self.method.PROTOCOL == "anytime" else ()
        return [mark for mark in mid_run if mark < budget] + [budget]

    def _save(self) -> None:
        self.samples.save(self.folder / "samples.png")
        checkpoint.save(
            self.folder / "checkpoint.pt",
            {
                "code": code_version(self.cell.method),
                "student": self.student.state_dict(),
                "oracle": self.oracle.state_dict(),
                "run": self.method_run.state_dict(),
                "progress": asdict(self.progress),
                "points": self.points,
                "seconds": self._seconds(),
            },
        )

    def finish(self, ending: str) -> None:
        """Leave the totals under that name, the last file of a cell."""
        totals = {
            "spent": self.oracle.spent,
            "distinct": self.oracle.distinct,
            "rounds": self.progress.round,
            "seconds": self._seconds(),
            "code": code_version(self.cell.method),
            "device": device_name(self.method_run.device),
        }
        self.samples.save(self.folder / "samples.png")
        write_json(self.folder / ending, totals)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator that unnamed random calls on the device draw from, so that all randomness has one source."""
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[device.index or 0]
