"""Small real parts that tests share: a teacher, a student, an oracle, a run of a method."""

import io
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.boxes import teachers
from bench.cells.cell import Cell, canonical_config
from bench.cli import app
from bench.tasks.table import task_of
from budgets import Answers, Budget, Oracle
from methods import METHODS
from methods.images import Images, as_pixels
from methods.run import Run

SHAPE = (1, 8, 8)
CLASSES = 4
CPU = torch.device("cpu")


def linear_network(seed: int = 0, classes: int = CLASSES, shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """A linear classifier with weights of a fixed seed, at a scale where all classes are met."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Linear(shape[0] * shape[1] * shape[2], classes)
        nn.init.normal_(layer.weight, 0, 0.5)
        nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), layer)


def small_student(seed: int = 1) -> nn.Module:
    """A convolution, batch norm and a linear layer: enough to have weights, buffers and modes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(SHAPE[0], 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        )


def sample_of(mean: float, spread: float, n: int) -> list[float]:
    """n values of exactly that mean and standard deviation."""
    if n == 1 or spread == 0:
        return [mean] * n
    steps = [2 * i - n + 1 for i in range(n)]
    scale = spread / (sum(step**2 for step in steps) / (n - 1)) ** 0.5
    return [mean + scale * step for step in steps]


@dataclass
class RecordingTeacher:
    """A teacher in process that remembers the size of each batch it was sent."""

    network: nn.Module = field(default_factory=linear_network)
    calls: list[int] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        with torch.no_grad():
            return self.network(images).softmax(dim=1)


def make_oracle(
    teacher: Callable[[Tensor], Tensor],
    queries: int,
    answers: str = "labels",
    inputs: str = "float",
    shape: tuple[int, int, int] = SHAPE,
    classes: int = CLASSES,
) -> Oracle:
    return Oracle(teacher, Budget(queries, answers, inputs), shape=shape, classes=classes)  # type: ignore[arg-type]


def make_run(seed: int = 0, data: Tensor | None = None) -> Run:
    """A fresh run on the CPU, seeded as the runner seeds it. data: float images, which a run has in 8 bits."""
    return Run(CPU, torch.manual_seed(seed), data=None if data is None else Images(as_pixels(data), CPU))


def rewrite_teacher(file: Path, state: dict[str, Tensor] | None = None, **said: object) -> None:
    """Put another state dict, or other words about it, into a teacher's file; `schema=None` leaves the words out."""
    with zipfile.ZipFile(file) as archive:
        description = {**json.loads(archive.read(teachers.MEMBER)), **said}
    torch.save(torch.load(file, weights_only=True) if state is None else state, buffer := io.BytesIO())
    if description["schema"] is not None:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(teachers.MEMBER, json.dumps(description))
    file.write_bytes(buffer.getvalue())


# Settings with which a cell on the digits takes a second.
QUICK: dict[str, dict[str, object]] = {
    "ideal": {
        "batch_size": 20,
        "generator_steps": 2,
        "generator_width": 4,
        "latent": 8,
        "augment": "crop",
        "crop_padding": 1,
    },
    "dfme": {"batch_size": 5, "generator_width": 4, "latent": 8},
    "disguide": {"batch_size": 10, "generator_width": 4, "latent": 8},
    "dip_kd": {"batch_size": 25, "passes": 2, "contrast_passes": 1, "negatives": 32, "hidden": 16},
    "noise": {"recipe": {"passes": 4, "min_steps": 4, "batch_size": 32}},
    "real": {"recipe": {"passes": 4, "min_steps": 4, "batch_size": 32}},
}


def digits_cell(root: Path, method: str, queries: int, seed: int = 0, **settings: object) -> Cell:
    """A quick cell on digits-lenet, whose teacher is trained under `root`."""
    record = teachers.record_of(task_of("digits-lenet"), root)
    assert record is not None
    answers: Answers = METHODS[method].ANSWERS[0]
    config = canonical_config(method, {**QUICK[method], **settings})
    return Cell("digits-lenet", method, config, Budget(queries, answers), seed, record.hash)


def bench(*arguments: str) -> int:
    """Run the command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench", *arguments])
        try:
            app.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0
