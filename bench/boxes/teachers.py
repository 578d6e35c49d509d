"""Teachers: trained once by a fixed recipe, normalising inside themselves, known by the hash of their content."""

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.boxes.recipes import Recipe, name_of, recipe_of
from bench.errors import UsageError
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import Task
from methods.augment import augment
from results.records import TeacherRecord
from results.store import digest, read_json, write_bytes, write_json


class Teacher(nn.Module):
    """A network behind its normalisation: float images N x C x H x W in [0, 1] -> logits N x K."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def folder_of(task: Task, root: Path) -> Path:
    """Where the teacher of a task lies: one folder for each data set, network and recipe, shared by tasks."""
    recipe = json.dumps(asdict(recipe_of(task)), sort_keys=True)
    return root / "teachers" / f"{name_of(task)}-{digest(recipe)[:8]}"


def record_of(task: Task, root: Path) -> TeacherRecord | None:
    """The record of the task's teacher, or None if it is not trained yet."""
    path = folder_of(task, root) / "teacher.json"
    return TeacherRecord(**read_json(path)["record"]) if path.exists() else None


def load(task: Task, root: Path, device: torch.device) -> Teacher:
    """The trained teacher, frozen, in eval mode; raises UsageError if its weights are not those on record."""
    teacher, folder = untrained(task), folder_of(task, root)
    try:
        record = record_of(task, root)
        teacher.load_state_dict(torch.load(folder / "teacher.pt", map_location="cpu", weights_only=True))
    except Exception as error:
        raise UsageError(f"teacher in {folder} cannot be read ({type(error).__name__}); delete the folder") from error
    if record is None or content_hash(teacher) != record.hash:
        raise UsageError(f"teacher in {folder} is not the one on record; delete the folder to train it again")
    return teacher.eval().requires_grad_(False).to(device)


def train(
    task: Task, root: Path, data_folder: Path, device: torch.device, report: Callable[[float], None]
) -> TeacherRecord:
    """Train the task's teacher on the training split alone and keep it; `report` is told the share done.

    The weights after the last epoch are kept: neither held-out split chooses anything.
    """
    recipe = recipe_of(task)
    dataset = sources.load(task.dataset, data_folder)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        teacher = untrained(task)
        teacher.mean, teacher.std = moments(dataset.train.images)
        _fit(teacher.to(device), dataset.train.to(device), recipe, report)
    return keep(teacher, task, root, dataset, {"recipe": asdict(recipe)})


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
    buffer = io.BytesIO()
    torch.save(teacher.cpu().state_dict(), buffer)
    folder = folder_of(task, root)
    write_bytes(folder / "teacher.pt", buffer.getvalue())
    write_json(folder / "teacher.json", {"record": asdict(record), **origin, "task": asdict(task)})
    return record


def black_box(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    """The teacher as an oracle sees it: images in, probabilities N x K out, no gradient."""

    def ask(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = teacher(images)
            return logits.softmax(dim=1)

    return ask


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Top-1 classes, int64 of N, of uint8 images N x C x H x W, by a network in eval mode."""
    return torch.cat([network(batch.float().div(255)).argmax(dim=1) for batch in images.split(batch_size)])


def accuracy(network: nn.Module, split: sources.Split) -> float:
    """Share of the split on which the network has the true label."""
    return (predict(network, split.images) == split.labels).double().mean().item()


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
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    teacher.train()
    step = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(train), generator=rng, device=rng.device)
        for index in order.split(recipe.batch_size):
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
