"""Weights from elsewhere: a state dict becomes a task's teacher, measured like a trained one."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.boxes import teachers
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.networks import Normalised
from bench.tasks.table import Task
from results.claims import Busy, lock
from results.records import TeacherRecord


def normalisation(mean: str | None, std: str | None) -> tuple[Tensor, Tensor] | None:
    """`--mean` and `--std` as two vectors, or None if neither is given."""
    if mean is None and std is None:
        return None
    given = f"--mean {mean}, --std {std}"
    try:
        first, second = (torch.tensor([float(part) for part in (text or "").split(",")]) for text in (mean, std))
    except ValueError as error:
        raise UsageError(f"{given}: wanted both, numbers such as 0.5 or 0.5,0.4,0.4") from error
    _check_normalisation(first, second, given)
    return first, second


def _check_normalisation(mean: Tensor, std: Tensor, given: str) -> None:
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise UsageError(f"{given}: wanted finite numbers, those of std above 0")


def install(
    chosen: Mapping[str, Task],
    file: Path,
    root: Path,
    data_folder: Path,
    given: tuple[Tensor, Tensor] | None = None,
) -> TeacherRecord:
    """Make weights from elsewhere the one chosen teacher, measured like a trained one, the file's SHA-256 on record.

    given: what the network's images are lessened and then divided by, each one number a channel; else what is in the
    file, if it is of a teacher of ours, else the moments of the training split. UsageError for what does not fit.
    """
    if len(chosen) != 1:
        raise UsageError(f"weights {file}: wanted one teacher to put them to, --task names {len(chosen)}")
    [task] = chosen.values()
    dataset = sources.load(task.dataset, data_folder)
    teacher = _filled(task, file, dataset, given)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    folder = teachers.folder_of(task, root)
    try:
        with lock(folder):
            if teachers.file_of(task, root).exists():
                raise UsageError(f"there is a teacher in {folder} already; delete the folder to put another there")
            return teachers.keep(teacher, task, root, dataset, {"weights": {"file": file.name, "sha256": sha256}})
    except Busy as error:
        raise UsageError(f"another process is training the teacher in {folder}") from error


def _filled(task: Task, file: Path, dataset: sources.Dataset, given: tuple[Tensor, Tensor] | None) -> Normalised:
    """The task's teacher with the weights in the file; UsageError for what is not right about them."""
    teacher, state = teachers.untrained(task), _state(file)
    own = (state.pop("mean"), state.pop("std")) if {"mean", "std"} <= state.keys() else None
    if given is not None:
        mean, std = (_per_channel(values, teacher.mean) for values in given)
    elif own is not None:
        mean, std = own
        _check_normalisation(mean, std, f"weights {file}, mean and std")
    else:
        mean, std = teachers.moments(dataset.train.images)
    state = {**{f"network.{key}": value for key, value in state.items()}, "mean": mean, "std": std}
    _check(state, teacher.state_dict(), f"weights {file} do not fit {task.teacher} on {task.dataset}")
    teacher.load_state_dict(state)
    return teacher


def _state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without the prefixes that wrappers leave."""
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises in a folder that may not be looked into
        raise UsageError(f"weights {file}: there is no such file")
    try:
        state: Any = torch.load(file, map_location="cpu", mmap=zipfile.is_zipfile(file), weights_only=True)
    except Exception as error:
        raise UsageError(f"weights {file} cannot be read ({type(error).__name__}): wanted a state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights {file}: wanted a state dict, names and tensors and nothing else")
    return {str(key).removeprefix("module.").removeprefix("network."): value for key, value in state.items()}


def _check(state: dict[str, Tensor], wanted: dict[str, Tensor], complaint: str) -> None:
    """UsageError with the first names that do not fit."""
    both = wanted.keys() & state.keys()
    faults = {
        "lacks": wanted.keys() - state.keys(),
        "has unknown": state.keys() - wanted.keys(),
        "has another shape for": {key for key in both if wanted[key].shape != state[key].shape},
        "has no plain finite numbers for": {key for key in both if not _is_plain(state[key])},
    }
    for fault, keys in faults.items():
        if keys:
            names = ", ".join(key.removeprefix("network.") for key in sorted(keys)[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise UsageError(f"{complaint}: the file {fault} {names}{more}")


def _is_plain(values: Tensor) -> bool:
    """Whether it holds real numbers, all there and all finite."""
    real = values.layout == torch.strided and not (values.is_meta or values.is_quantized or values.is_complex())
    return real and bool(values.isfinite().all())


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    if len(values) != len(like):
        raise UsageError(f"--mean and --std: wanted {len(like)} numbers each, given {len(values)}")
    return values.reshape(like.shape)
