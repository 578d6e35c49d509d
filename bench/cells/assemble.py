"""Where task, teacher, oracle, student and method of a cell meet, and what seeds them."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench.boxes.door import Door, open_door, record_of
from bench.boxes.process import OwnProcess
from bench.cells.asked import Asked
from bench.cells.cell import Cell
from bench.cells.exam import Exam, exam_of, sealed
from bench.contract.plugins import Outside
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.students import student_of
from bench.tasks.table import Task, task_of
from budgets import Oracle
from methods import METHODS
from methods.images import Images
from methods.run import Run
from results.store import digest

RESULTS = 2  # of the runner: seeds, starts, who meets what, and when a point is measured


@dataclass(frozen=True)
class Parts:
    """All that a running cell is made of. door: to the black box, to be closed at the end. run: what the method is
    given besides the oracle and its student."""

    door: Door
    method: ModuleType
    config: BaseModel
    exam: Exam
    asked: Asked
    oracle: Oracle
    student: nn.Module
    run: Run


def assemble(
    cell: Cell,
    root: Path,
    data_folder: Path,
    device: torch.device,
    saved: dict[str, Any] | None,
    apart: Outside | None = None,
) -> Parts:
    """The parts of a cell as they were when `saved` was saved, or fresh; UsageError for what is not there any more.

    apart: what extends the methods and tasks, if the black box is to have a process of its own.
    """
    task = task_of(cell.task, cell.teacher_seed)
    dataset = sealed(sources.load(task.dataset, data_folder), cell)
    record = record_of(task, root)  # whose hash is compared with the weights when they are loaded
    if record is None or record.hash != cell.teacher:
        raise UsageError(f"the teacher of {cell.task} is no longer {cell.teacher}; plan again")
    folder = root / "cells" / cell.name()
    if apart is None:
        door = open_door(task, folder, root, device)
    else:
        door = OwnProcess(task, cell.budget, folder, root, device, apart)
    try:
        return _assembled(cell, task, dataset, door, root, data_folder, device, saved)
    except BaseException:
        door.close()
        raise


def _assembled(
    cell: Cell,
    task: Task,
    dataset: sources.Dataset,
    door: Door,
    root: Path,
    data_folder: Path,
    device: torch.device,
    saved: dict[str, Any] | None,
) -> Parts:
    method, source = METHODS[cell.method], sources.source_of(task.dataset)
    config = method.Config.model_validate_json(cell.config)
    exam = exam_of(cell, dataset, door, root, device)
    asked = Asked(door, cell.budget.answers)
    oracle = Oracle(asked, cell.budget, shape=source.shape, classes=source.classes)
    # One seed for the weights, so that all methods start from the same student, another for the method.
    torch.manual_seed(cell.seed)
    student = student_of(task).to(device)
    torch.manual_seed(int(digest(f"method {cell.seed}")[:15], 16))
    images = _images(method, config, dataset, data_folder, source.shape)
    data = None if images is None else Images(images, device)
    run = Run(device, _default_generator(device), data=data, saved=saved["run"] if saved else None)
    if saved:
        oracle.load_state_dict(saved["oracle"])
        asked.load_state_dict(saved["asked"])
        student.load_state_dict(saved["student"])
    door.resume(oracle.spent)  # what is asked from here on is counted, in a process of its own too
    return Parts(door, method, config, exam, asked, oracle, student, run)


def _images(
    method: ModuleType, config: Any, dataset: sources.Dataset, data_folder: Path, shape: tuple[int, int, int]
) -> Tensor | None:
    """What the method needs besides the oracle, uint8 N x C x H x W; None for one that is data-free."""
    if method.DATA == "train":
        return dataset.train.images
    if method.DATA == "other":
        return sources.other_images(config.images, data_folder, shape)
    return None


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator that unnamed random calls on the device draw from, so that all randomness has one source."""
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[device.index or 0]
