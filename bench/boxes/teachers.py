"""Teachers: trained once by a fixed recipe, known by the hash of their content, each kept whole in one file.

ROOT/teachers/NAME/teacher.pt    a torch file: the state dict, and in its archive the record, which a plan reads alone
                   lock          held by the process that trains it
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from bench.boxes.box import accuracy
from bench.boxes.recipes import Recipe, identity, name_of, recipe_of
from bench.errors import UsageError
from bench.provenance import machine
from bench.tasks.data import sources
from bench.tasks.networks import Normalised, build
from bench.tasks.table import Task
from methods.augment import augment
from methods.pool import batch_sizes
from results.claims import wait_for
from results.records import Machine, TeacherRecord
from results.store import digest, write_bytes

SCHEMA = 2  # of a teacher's file; in the first, weights and record lay apart
MEMBER = "archive/teacher.json"  # `archive/` is the folder that torch makes in its files


@dataclass(frozen=True)
class Description:
    """What a teacher's file says besides its weights.

    origin: its `recipe`, or the file whose `weights` it has. machine: what trained it, or examined it, if it is from
    elsewhere.
    """

    record: TeacherRecord
    origin: dict[str, Any]
    task: dict[str, Any]
    machine: Machine
    schema: int = SCHEMA


_DESCRIPTION = TypeAdapter(Description)


def folder_of(task: Task, root: Path) -> Path:
    """Where the teacher of a task lies: one folder for each data set, network and recipe, shared by tasks."""
    recipe = json.dumps(identity(recipe_of(task)), sort_keys=True)
    return root / "teachers" / f"{name_of(task)}-{digest(recipe)[:8]}"


def file_of(task: Task, root: Path) -> Path:
    """The file of the task's teacher, whether it is there or not."""
    return folder_of(task, root) / "teacher.pt"


def record_of(task: Task, root: Path) -> TeacherRecord | None:
    """The record of the task's teacher, or None if it is not trained yet; UsageError for a file that is not whole."""
    description = description_of(task, root)
    return description.record if description else None


def description_of(task: Task, root: Path) -> Description | None:
    """What the teacher's file says, read without its weights; None and UsageError as `record_of` has them."""
    path = file_of(task, root)
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(MEMBER))
        schema = content["schema"]
    except Exception as error:  # zipfile and json raise all kinds for broken files
        raise _refusal(path, "it is not whole, or of an earlier version") from error
    if schema != SCHEMA:
        raise _refusal(path, f"it has schema {schema!r}, this version reads {SCHEMA}")
    try:
        return _DESCRIPTION.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _refusal(path, f"its {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def load(task: Task, root: Path, device: torch.device) -> Normalised:
    """The trained teacher, frozen, in eval mode; raises UsageError if its weights are not those on record."""
    teacher, path, record = untrained(task), file_of(task, root), record_of(task, root)
    if record is None:
        raise UsageError(f"there is no teacher {path}; bench teachers trains it")
    try:
        teacher.load_state_dict(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    except Exception as error:
        raise _refusal(path, f"its weights do not fit ({type(error).__name__})") from error
    if content_hash(teacher) != record.hash:
        raise _refusal(path, "its weights are not those on record")
    return teacher.eval().requires_grad_(False).to(device)


def _refusal(path: Path, reason: str) -> UsageError:
    return UsageError(f"teacher {path} cannot be used: {reason}; delete the folder to train it again")


def train(
    task: Task, root: Path, data_folder: Path, device: torch.device, report: Callable[[float], None]
) -> TeacherRecord:
    """Train the task's teacher on the training split alone and keep it; `report` is told the share done.

    The weights after the last epoch are kept: neither held-out split chooses anything. Of several processes that are
    to train it, one does; the others wait for it and return its record.
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
        if recipe.normalise:
            teacher.mean, teacher.std = moments(dataset.train.images)
        _fit(teacher.to(device), dataset.train.to(device), recipe, report)
    return keep(teacher, task, root, dataset, {"recipe": asdict(recipe)})


def untrained(task: Task) -> Normalised:
    """The task's teacher with fresh weights, which normalises nothing yet."""
    source = sources.source_of(task.dataset)
    network = build(task.teacher, source.shape, source.classes)
    return Normalised(network, torch.zeros(source.shape[0], 1, 1), torch.ones(source.shape[0], 1, 1))


def examine(teacher: Normalised, dataset: sources.Dataset) -> TeacherRecord:
    """The record that a teacher in eval mode deserves, by the held-out splits."""
    device = teacher.mean.device
    return TeacherRecord(
        hash=content_hash(teacher),
        validation_accuracy=accuracy(teacher, dataset.validation.to(device)),
        test_accuracy=accuracy(teacher, dataset.test.to(device)),
    )


def keep(
    teacher: Normalised, task: Task, root: Path, dataset: sources.Dataset, origin: dict[str, Any]
) -> TeacherRecord:
    """Write a teacher with its record, by a process that holds its folder; origin: how it came about."""
    record = examine(teacher.eval().requires_grad_(False), dataset)
    description = Description(record, origin, asdict(task), machine(teacher.mean.device))
    torch.save(teacher.cpu().state_dict(), buffer := io.BytesIO())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(MEMBER, json.dumps(asdict(description), indent=1))
    write_bytes(file_of(task, root), buffer.getvalue())
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


def _fit(teacher: Normalised, train: sources.Split, recipe: Recipe, report: Callable[[float], None]) -> None:
    rng = torch.Generator(train.images.device).manual_seed(recipe.seed)
    optimizer = torch.optim.SGD(
        teacher.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    sizes = batch_sizes(len(train), recipe.batch_size)
    steps = recipe.epochs * len(sizes)
    teacher.train()
    step = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(train), generator=rng, device=rng.device)
        for index in order.split(sizes):
            share = _triangle((step + 1) / steps, peak=0.2) if recipe.schedule == "triangle" else 1.0
            optimizer.param_groups[0]["lr"] = recipe.lr * share
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
