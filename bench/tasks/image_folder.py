"""Tasks made of any folder of images: `folder:PATH[@TEACHER[,STUDENT]]`.

PATH/train/CLASS/... and PATH/test/CLASS/..., where the second may be called `val` too. What comes of
it is named by the folder and a hash of its content, so that its cells are the same on every machine.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError, unknown
from bench.tasks.data import cache, readers
from bench.tasks.data.sources import SOURCES, Source
from bench.tasks.networks import NETWORKS
from bench.tasks.table import TASKS, Task
from results.store import digest

PREFIX = "folder:"
LIGHT = {"mlp", "lenet5", "lenet-bn"}  # networks that a CPU trains in minutes


@dataclass(frozen=True)
class Folder:
    """root: absolute. teacher, student: names in NETWORKS."""

    root: Path
    teacher: str
    student: str


def parse(text: str) -> Folder:
    """The folder and networks that `folder:PATH[@TEACHER[,STUDENT]]` names; ResNet-18 by default."""
    path, _, networks = text.removeprefix(PREFIX).partition("@")
    teacher, _, student = networks.partition(",")
    teacher = teacher or "resnet18"
    student = student or teacher
    for network in (teacher, student):
        if network not in NETWORKS:
            raise unknown("network", network, NETWORKS)
    return Folder(Path(path).resolve(), teacher, student)


def split(tasks: Iterable[str]) -> tuple[list[Folder], list[str]]:
    """What is given as `--task`, parted into folders of images and names."""
    given = list(tasks)
    folders = [parse(text) for text in given if text.startswith(PREFIX)]
    return folders, [text for text in given if not text.startswith(PREFIX)]


def register(folder: Folder) -> str:
    """Put the folder into SOURCES and TASKS; returns the task's name. UsageError for what is none."""
    root, test = folder.root, _test_part(folder.root)
    key = cache.fingerprint(root, ("train", test))
    found = cache.kept(f"survey-{digest(str(root))[:12]}", key, lambda: _survey(root, test))
    base = re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")
    name = f"folder-{base}-{found['digest'][:8]}"
    SOURCES[name] = _source(root, test, found)
    networks = (folder.teacher, folder.student)
    task = name if networks == ("resnet18", "resnet18") else "-".join((name, *dict.fromkeys(networks)))
    TASKS[task] = Task(name, *networks, gpu=not LIGHT.issuperset(networks))
    return task


def _test_part(root: Path) -> str:
    if not root.is_dir():
        raise UsageError(f"image folder {root}: there is no such folder")
    parts = [part for part in ("test", "val") if (root / part).is_dir()]
    if not (root / "train").is_dir() or not parts:
        raise UsageError(f"image folder {root}: wanted train/CLASS/... and test/CLASS/... (or val/CLASS/...)")
    return parts[0]


def _survey(root: Path, test: str) -> dict[str, Any]:
    """classes: their names. side, mode: how to decode. train: how many images. digest: a hash of names and content."""
    classes, others = (_subfolders(root / part) for part in ("train", test))
    if len(classes) < 2:
        raise UsageError(f"image folder {root}: {len(classes)} class in train, wanted 2 or more")
    for name in sorted({*classes} ^ {*others}):
        lacks, has = ("train", test) if name in others else (test, "train")
        raise UsageError(f"image folder {root}: class {name} is in {has} but not in {lacks}")
    try:
        parts = [(part, readers.class_folders(root / part, classes)) for part in ("train", test)]
        headers = [_header(file) for _, listed in parts for file, _ in listed]
    except (OSError, ValueError) as error:
        raise UsageError(f"image folder {root}: {error}") from error
    if not headers:
        raise UsageError(f"image folder {root}: it holds no images")
    return {
        "classes": classes,
        "side": 64 if min(side for side, _ in headers) >= 64 else 32,
        "mode": "RGB" if any(colour for _, colour in headers) else "L",
        "train": len(parts[0][1]),
        "digest": _digest(root, parts),
    }


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _header(file: Path) -> tuple[int, bool]:
    """The shorter side of an image, and whether it has colours."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return min(image.size), len(set(image.getbands()) - {"A"}) > 1 or image.mode == "P"
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file.relative_to(file.parents[2])} is no image that can be read") from error


def _digest(root: Path, parts: list[tuple[str, readers.Listed]]) -> str:
    hasher = hashlib.sha256()
    for part, listed in parts:
        for file, _ in listed:
            content = file.read_bytes()
            name = file.relative_to(root / part).as_posix()
            hasher.update(f"{'train' if part == 'train' else 'test'}/{name} {len(content)}\n".encode())
            hasher.update(content)
    return hasher.hexdigest()


def _source(root: Path, test: str, found: dict[str, Any]) -> Source:
    side, mode, classes = found["side"], found["mode"], found["classes"]

    def read(folder: Path, tell: readers.Tell) -> tuple[readers.Part, readers.Part]:
        train, held_out = (readers.class_folders(folder / part, classes) for part in ("train", test))
        return readers.decode(train, held_out, side, mode, tell)

    apart = min(5_000, max(1, found["train"] // 10))
    shape = (3 if mode == "RGB" else 1, side, side)
    return Source(shape, len(classes), read, files=("train", test), validation=apart, root=root)
