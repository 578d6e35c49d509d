"""Teachers: trained once by a fixed recipe, kept in one file, known by the hash of their content."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.boxes.box import Teacher, accuracy
from bench.boxes.recipes import Recipe, name_of, recipe_of
from bench.errors import UsageError
from bench.provenance import machine
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import Task
from methods.augment import augment
from methods.pool import batches_in, batches_of
from results.records import TeacherRecord
from results.store import digest, wait_for, write_with

FILE = "teacher.pt"
SCHEMA = 2
NEWER = "a newer bench wrote it"


@dataclass(frozen=True)
class Kept:
    """teacher.pt, the one file of a teacher. origin: how it came about, its recipe or the file its weights are from."""

    record: TeacherRecord
    weights: dict[str, Tensor]
    origin: dict[str, Any]


def folder_of(task: Task, root: Path) -> Path:
    """Where the teacher of a task lies: one folder for each data set, network and recipe, shared by tasks."""
    recipe = json.dumps(asdict(recipe_of(task)), sort_keys=True)
    return root / "teachers" / f"{name_of(task)}-{digest(recipe)[:8]}"


def record_of(task: Task, root: Path) -> TeacherRecord | None:
    """The record of the task's teacher, or None if it is not trained yet; its weights are not read."""
    kept = kept_of(task, root)
    return kept.record if kept else None


def kept_of(task: Task, root: Path) -> Kept | None:
    """What is kept of the task's teacher, or None; weights are mapped from the file and read where they are used.

    Raises UsageError for a file that is not whole, not a teacher, or a newer version's.
    """
    file = folder_of(task, root) / FILE
    if not file.exists():
        return None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if content["schema"] > SCHEMA:
            raise UsageError(f"teacher {file} has schema {content['schema']}, this version reads {SCHEMA}: {NEWER}")
        return Kept(TeacherRecord(**content["record"]), content["weights"], content["origin"])
    except UsageError:
        raise
    except Exception as error:  # torch lets whatever a broken file causes pass
        told = f"teacher {file} cannot be read ({type(error).__name__})"
        raise UsageError(f"{told}; delete the folder to train it again") from error


def load(task: Task, root: Path, device: torch.device) -> Teacher:
    """The trained teacher, frozen, in eval mode; raises UsageError if its weights are not those on record."""
    kept, folder = kept_of(task, root), folder_of(task, root)
    if kept is None:
        raise UsageError(f"there is no teacher in {folder}; bench teachers trains it")
    teacher = untrained(task)
    try:
        teacher.load_state_dict(kept.weights)
    except Exception as error:
        raise UsageError(f"teacher in {folder} does not fit {task.teacher}; delete the folder") from error
    if content_hash(teacher) != kept.record.hash:
        raise UsageError(f"teacher in {folder} is not the one on record; delete the folder to train it again")
    return teacher.eval().requires_grad_(False).to(device)


def train(
    task: Task, root: Path, data_folder: Path, device: torch.device, report: Callable[[float], None]
) -> TeacherRecord:
    """Train the task's teacher on the training split alone and keep it; `report` is told the share done.

    The weights after the last epoch are kept: neither held-out split chooses anything. Of several processes one trains,
    and the others wait for what it keeps: the first teacher is the teacher.
    """
    with wait_for(folder_of(task, root)):
        return record_of(task, root) or _train(task, root, data_folder, device, report)


def _train(
    task: Task, root: Path, data_folder: Path, device: torch.device, report: Callable[[float], None]
) -> TeacherRecord:
    recipe = recipe_of(task)
    dataset = sources.load(task.dataset, data_folder)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        teacher = untrained(task)
        teacher.mean, teacher.std = moments(dataset.train.images)
        _fit(teacher.to(device), dataset.train.to(device), recipe, report)
    return keep(teacher, task, root, dataset, {"recipe": asdict(recipe), "machine": asdict(machine(device))})


def untrained(task: Task) -> Teacher:
    """The task's teacher with fresh weights, which normalises nothing yet."""
    source = sources.source_of(task.dataset)
    network = networks.build(task.teacher, source.shape, source.classes)
    return Teacher(network, torch.zeros(source.shape[0], 1, 1), torch.ones(source.shape[0], 1, 1))


def examine(teacher: Teacher, dataset: sources.Dataset) -> TeacherRecord:
    """The record that a teacher in eval mode deserves, by the held-out splits."""
    device = teacher.mean.device
    return TeacherRecord(
        hash=content_hash(teacher),
        validation_accuracy=accuracy(teacher, dataset.validation.to(device)),
        test_accuracy=accuracy(teacher, dataset.test.to(device)),
    )


def keep(teacher: Teacher, task: Task, root: Path, dataset: sources.Dataset, origin: dict[str, Any]) -> TeacherRecord:
    """Write a teacher with its record; origin: how it came about."""
    record = examine(teacher.eval().requires_grad_(False), dataset)
    weights = {name: value.cpu().contiguous() for name, value in teacher.state_dict().items()}
    content = {
        "schema": SCHEMA,
        "record": asdict(record),
        "weights": weights,
        "origin": {**origin, "task": asdict(task)},
    }
    write_with(folder_of(task, root) / FILE, lambda file: torch.save(content, file))
    return record


def content_hash(module: nn.Module) -> str:
    """A hash of the names, shapes and values of all weights and buffers; the same on every machine and device."""
    hasher = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        hasher.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        hasher.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()[:16]


def moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images, on the [0, 1] scale, each C x 1 x 1."""
    pairs = []
    for channel in images.split(1, dim=1):  # one at a time: all of Tiny-ImageNet as floats is 5 GB
        values = channel.flatten()[None].float().div_(255)
        pairs.append((values.mean(dim=1), values.std(dim=1)))
    mean, std = (torch.stack(values)[:, :, None] for values in zip(*pairs, strict=True))
    return mean, std


def _fit(teacher: Teacher, train: sources.Split, recipe: Recipe, report: Callable[[float], None]) -> None:
    rng = torch.Generator(train.images.device).manual_seed(recipe.seed)
    optimizer = torch.optim.SGD(
        teacher.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = recipe.epochs * batches_in(len(train), recipe.batch_size)
    teacher.train()
    step = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(train), generator=rng, device=rng.device)
        for index in batches_of(order, recipe.batch_size):
            optimizer.param_groups[0]["lr"] = recipe.lr * _triangle((step + 1) / steps, peak=0.2)
            views = augment(train.images[index].float().div(255), recipe.augment, recipe.crop_padding, rng)
            with torch.autocast(train.images.device.type, torch.bfloat16, enabled=train.images.is_cuda):
                loss = F.cross_entropy(teacher(views), train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        report((epoch + 1) / recipe.epochs)


def _triangle(share: float, peak: float) -> float:
    """0 at 0 and 1, 1 at `peak`, straight lines between."""
    return share / peak if share < peak else (1 - share) / (1 - peak)
