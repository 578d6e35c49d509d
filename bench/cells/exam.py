"""What a student is examined on: the test split at last, and nothing of it while settings are being searched."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.boxes.box import predict
from bench.boxes.door import Door, open_door, record_of
from bench.cells.cell import Cell
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.table import Task, task_of
from budgets import Budget, Inputs, Oracle
from budgets.answers import NOTHING
from methods.noise import multiscale
from methods.pool import to_8_bits
from results.store import digest, write_with

RESULTS = 1  # of the exam: what a student is measured on, and how
SEED = 20_000  # of the held-out images: no seed of a cell comes near it
SCALES = 6  # of their noise, as many as the control `noise` mixes


class Exam:
    """Images and what is right about each: the true label for `accuracy`, the teacher's answer for `agreement`.

    images: uint8 N x C x H x W. right: name of the figure -> int64 of N, NOTHING where nobody knows.
    """

    def __init__(self, images: Tensor, right: dict[str, Tensor]) -> None:
        self.images, self.right = images, right

    def measure(self, student: nn.Module) -> dict[str, float]:
        """Each figure of a student in eval mode: what it has right of the images of which that is known."""
        answers = predict(student, self.images)
        return {name: (answers == right)[right != NOTHING].double().mean().item() for name, right in self.right.items()}


class SealedSplit(sources.Split):
    """The test split as a trial meets it: there is nothing in it, and to look is an error."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Tensor:
        raise PermissionError(f"a trial may not see the test split, not even its {name}")


def sealed(dataset: sources.Dataset, cell: Cell) -> sources.Dataset:
    """The data set as the cell may see it: without the test split, unless that is what it is examined on."""
    return dataset if cell.exam == "test" else replace(dataset, test=SealedSplit())


def exam_of(cell: Cell, dataset: sources.Dataset, door: Door, root: Path, device: torch.device) -> Exam:
    """The exam that the cell names. On a split, the teacher's own answers pass no meter."""
    if cell.exam in {"test", "validation"}:
        split = (dataset.test if cell.exam == "test" else dataset.validation).to(device)
        answers = door.right(cell.exam, split.images)
        right = {"accuracy": split.labels} if sources.source_of(task_of(cell.task).dataset).labelled else {}
        return Exam(split.images, right | ({} if answers is None else {"agreement": answers}))
    return _held_out(cell.exam, root, device)


def hold_out(task: Task, root: Path, queries: int, inputs: Inputs) -> str:
    """Ask the teacher about images that no method will meet, keep the answers, and return the name of this exam.

    The images are what somebody without data has, multi-scale noise. They go through a meter of their
    own: all `queries` are charged to the study that asks for them. What is there is not asked again.
    """
    record, source = record_of(task, root), sources.source_of(task.dataset)
    assert record, "it is trained or examined before"
    asked = " ".join([record.hash, str(queries), inputs, *([task.defence] if task.defence else [])])
    name = f"agreement-{digest(asked)[:12]}"
    if held_out_file(name, root).exists():
        return name
    door = open_door(task, root / "held-out" / name, root, torch.device("cpu"))
    oracle = Oracle(door, Budget(queries, "labels", inputs), shape=source.shape, classes=source.classes)
    images = to_8_bits(multiscale(queries, source.shape, SCALES, torch.Generator().manual_seed(SEED)))
    answers = torch.cat([oracle(batch) for batch in images.split(500)])
    door.close()
    kept = {"images": images.mul(255).round().to(torch.uint8), "answers": answers}
    write_with(held_out_file(name, root), lambda file: torch.save(kept, file))
    return name


def _held_out(name: str, root: Path, device: torch.device) -> Exam:
    """The exam of answers that `hold_out` kept under that name."""
    file = held_out_file(name, root)
    try:
        kept = torch.load(file, map_location=device, weights_only=True)
        return Exam(kept["images"], {"agreement": kept["answers"]})
    except FileNotFoundError as error:
        raise UsageError(f"the held-out answers {name} are not in {root}; bench tune asks for them") from error
    except Exception as error:
        raise UsageError(f"{file} cannot be read ({type(error).__name__}); delete it to ask again") from error


def held_out_file(name: str, root: Path) -> Path:
    """Where the answers of an exam that `hold_out` made lie; no such file is there for one on a split."""
    return root / "held-out" / f"{name}.pt"
