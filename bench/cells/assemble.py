"""Where task, teacher, oracle, student and method of a cell meet, and what seeds them."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench.boxes import teachers
from bench.boxes.box import black_box
from bench.cells.asked import Asked
from bench.cells.cell import Cell
from bench.cells.exam import Exam, exam_of, sealed
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.students import student_of
from bench.tasks.table import task_of
from budgets import Oracle
from methods import METHODS
from methods.run import Run
from results.store import digest

RESULTS = 2  # of the runner: seeds, starts, who meets what, and when a point is measured


@dataclass(frozen=True)
class Parts:
    """All that a running cell is made of. run: what the method is given besides the oracle and its student."""

    method: ModuleType
    config: BaseModel
    exam: Exam
    asked: Asked
    oracle: Oracle
    student: nn.Module
    run: Run


def assemble(cell: Cell, root: Path, data_folder: Path, device: torch.device, saved: dict[str, Any] | None) -> Parts:
    """The parts of a cell as they were when `saved` was saved, or fresh; UsageError for what is not there any more."""
    task = task_of(cell.task, cell.teacher_seed)
    source, dataset = sources.source_of(task.dataset), sealed(sources.load(task.dataset, data_folder), cell)
    teacher = teachers.load(task, root, device)
    record = teachers.record_of(task, root)  # whose hash `load` has just compared with the weights
    if record is None or record.hash != cell.teacher:
        raise UsageError(f"the teacher of {cell.task} is no longer {cell.teacher}; plan again")
    method = METHODS[cell.method]
    config = method.Config.model_validate_json(cell.config)
    exam = exam_of(cell, dataset, teacher, root, device)
    asked = Asked(black_box(teacher))
    oracle = Oracle(asked, cell.budget, shape=source.shape, classes=source.classes)
    # One seed for the weights, so that all methods start from the same student, another for the method.
    torch.manual_seed(cell.seed)
    student = student_of(task).to(device)
    torch.manual_seed(int(digest(f"method {cell.seed}")[:15], 16))
    images = _images(method, config, dataset, data_folder, source.shape)
    images = None if images is None else images.to(device)
    run = Run(device, _default_generator(device), data=images, saved=saved["run"] if saved else None)
    if saved:
        oracle.load_state_dict(saved["oracle"])
        asked.load_state_dict(saved["asked"])
        student.load_state_dict(saved["student"])
    return Parts(method, config, exam, asked, oracle, student, run)


def _images(
    method: ModuleType, config: Any, dataset: sources.Dataset, data_folder: Path, shape: tuple[int, int, int]
) -> Tensor | None:
    """What the method needs besides the oracle, float images in [0, 1]; None for one that is data-free."""
    if method.DATA == "train":
        return dataset.train.images.float().div(255)
    if method.DATA == "other":
        return sources.other_images(config.images, data_folder, shape).float().div(255)
    return None


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator that unnamed random calls on the device draw from, so that all randomness has one source."""
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[device.index or 0]
