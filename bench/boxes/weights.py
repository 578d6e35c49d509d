"""Weights from elsewhere, made a teacher of ours."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.boxes import teachers
from bench.boxes.box import Teacher
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.table import Task
from results.records import TeacherRecord


def moments(mean: str | None, std: str | None) -> tuple[Tensor, Tensor] | None:
    """`--mean` and `--std` as two vectors, or None if neither is given."""
    if mean is None and std is None:
        return None
    try:
        first, second = (torch.tensor([float(part) for part in (text or "").split(",")]) for text in (mean, std))
    except ValueError as error:
        raise UsageError(f"mean {mean}, std {std}: wanted both, numbers such as 0.5 or 0.5,0.4,0.4") from error
    if not (first.isfinite().all() and second.isfinite().all() and (second > 0).all()):
        raise UsageError(f"mean {mean}, std {std}: wanted finite numbers, those of --std above 0")
    return first, second


def install(
    chosen: Mapping[str, Task],
    file: Path,
    root: Path,
    data_folder: Path,
    normalisation: tuple[Tensor, Tensor] | None = None,
) -> TeacherRecord:
    """Make weights from elsewhere the one chosen teacher, measured like a trained one, the file's SHA-256 on record.

    normalisation: what the network's images are lessened and then divided by, each one number a channel; else what is
    in the file, if it is of a teacher of ours, else the moments of the training split. Raises UsageError for what does
    not fit.
    """
    if len(chosen) != 1:
        raise UsageError(f"weights {file}: wanted one teacher to put them to, --task names {len(chosen)}")
    [task] = chosen.values()
    folder = teachers.folder_of(task, root)
    if (folder / teachers.FILE).exists():
        raise UsageError(f"there is a teacher in {folder} already; delete the folder to put another there")
    teacher, state = teachers.untrained(task), _state(file)
    dataset = sources.load(task.dataset, data_folder)
    mean, std = state.pop("mean", None), state.pop("std", None)
    if normalisation is not None:
        mean, std = (_per_channel(values, teacher.mean) for values in normalisation)
    elif mean is None or std is None:
        mean, std = teachers.moments(dataset.train.images)
    weights = {f"network.{key}": value for key, value in state.items()}
    _fill(teacher, {**weights, "mean": mean, "std": std}, file, task)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return teachers.keep(teacher, task, root, dataset, {"weights": {"file": file.name, "sha256": sha256}})


def _state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without the prefixes that wrappers leave."""
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"weights {file} cannot be read ({type(error).__name__}): wanted a state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights {file}: wanted a state dict, names and tensors and nothing else")
    return {str(key).removeprefix("module.").removeprefix("network."): value for key, value in state.items()}


def _fill(teacher: Teacher, state: dict[str, Tensor], file: Path, task: Task) -> None:
    """Put the weights in; UsageError with the first names that do not fit."""
    wanted = teacher.state_dict()
    faults = {
        "lacks": sorted(wanted.keys() - state.keys()),
        "has unknown": sorted(state.keys() - wanted.keys()),
        "has another shape for": sorted(
            key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape
        ),
    }
    for fault, keys in faults.items():
        if keys:
            names = ", ".join(key.removeprefix("network.") for key in keys[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise UsageError(
                f"weights {file} do not fit {task.teacher} on {task.dataset}: the file {fault} {names}{more}"
            )
    teacher.load_state_dict(state)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    if len(values) != len(like):
        raise UsageError(f"--mean and --std: wanted {len(like)} numbers each, given {len(values)}")
    return values.reshape(like.shape)
