"""Tasks made of any folder of images: `folder:PATH[@TEACHER[,STUDENT]]`.

PATH/train/CLASS/... and PATH/test/CLASS/..., where the second may be called `val` too. What comes of
it is named by the folder and a hash of its content, so that its cells are the same on every machine.
"""

import hashlib
import os
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
FEWEST = 3  # training images: one is kept apart, and batch norm may not train on one alone
LIGHT = {"mlp", "lenet5", "lenet-bn"}  # networks that a CPU trains in minutes


@dataclass(frozen=True)
class Folder:
    """root: absolute. teacher, student: names in NETWORKS."""

    root: Path
    teacher: str
    student: str


def parse(text: str) -> Folder:
    """The folder and networks that `folder:PATH[@TEACHER[,STUDENT]]` names; ResNet-18 by default.

    An @ that a / comes after is part of the path.
    """
    given = text.removeprefix(PREFIX)
    path, at, networks = given.rpartition("@")
    if not at or "/" in networks:
        path, networks = given, ""
    if not path:
        raise UsageError(f"task {text!r}: wanted {PREFIX}PATH[@TEACHER[,STUDENT]]")
    teacher, _, student = networks.partition(",")
    teacher = teacher or "resnet18"
    student = student or teacher
    for network in (teacher, student):
        if network not in NETWORKS:
            raise unknown("network", network, NETWORKS)
    return Folder(Path(os.path.realpath(path)), teacher, student)  # Path.resolve stops at links that loop


def split(tasks: Iterable[str]) -> tuple[list[Folder], list[str]]:
    """What is given as `--task`, parted into folders of images and globs; after a comma, too, `folder:` begins one."""
    given = [part for text in tasks for part in re.split(f",(?={PREFIX})", text)]
    folders = [parse(text) for text in given if text.startswith(PREFIX)]
    return folders, [text for text in given if not text.startswith(PREFIX)]


def register(folder: Folder) -> str:
    """Put the folder into SOURCES and TASKS; returns the task's name. UsageError for what is none."""
    root = folder.root
    try:
        test = _test_part(root)
        key = cache.fingerprint(root, ("train", test))
        found = cache.kept(f"survey-{digest(ascii(root))[:12]}", key, lambda: _survey(root, test))
    except (OSError, ValueError) as error:
        raise UsageError(f"image folder {root}: {error}") from error
    base = re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")
    name = f"folder-{base}-{found['digest'][:8]}"
    SOURCES[name] = _source(root, test, found)
    networks = (folder.teacher, folder.student)
    task = name if networks == ("resnet18", "resnet18") else "-".join((name, *dict.fromkeys(networks)))
    TASKS[task] = Task(name, *networks, gpu=not LIGHT.issuperset(networks))
    return task


def _test_part(root: Path) -> str:
    if not root.is_dir():
        raise ValueError("there is no such folder")
    parts = [part for part in ("test", "val") if (root / part).is_dir()]
    if not (root / "train").is_dir() or not parts:
        raise ValueError("wanted train/CLASS/... and test/CLASS/... (or val/CLASS/...)")
    return parts[0]


def _survey(root: Path, test: str) -> dict[str, Any]:
    """classes: their names. side, mode: how to decode. train: how many images. digest: a hash of names and content.

    ValueError or OSError for what is no image folder.
    """
    classes, others = (_subfolders(root / part) for part in ("train", test))
    if len(classes) < 2:
        raise ValueError(f"{len(classes)} class in train, wanted 2 or more")
    for name in sorted({*classes} ^ {*others}):
        lacks, has = ("train", test) if name in others else (test, "train")
        raise ValueError(f"class {name} is in {has} but not in {lacks}")
    parts = [(part, readers.class_folders(root / part, classes)) for part in ("train", test)]
    for part, listed in parts:
        if empty := {*range(len(classes))} - {label for _, label in listed}:
            raise ValueError(f"no image in {part}/{classes[min(empty)]}")
    if len(parts[0][1]) < FEWEST:
        raise ValueError(f"{len(parts[0][1])} images in train, wanted {FEWEST} or more")
    headers = [_header(file) for _, listed in parts for file, _ in listed]
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

    name = file.relative_to(file.parents[2])
    try:
        if not file.is_file():
            raise ValueError("a pipe would be waited for")
        with Image.open(file) as image:
            side, bands, mode = min(image.size), {*image.getbands()}, image.mode
    except Exception as error:  # Pillow raises all kinds for broken files
        raise ValueError(f"{name} is no image that can be read") from error
    if mode[0] in "IF":
        raise ValueError(f"{name} has more than 8 bits a channel, wanted 8")
    return side, len(bands - {"A"}) > 1 or mode == "P"


def _digest(root: Path, parts: list[tuple[str, readers.Listed]]) -> str:
    hasher = hashlib.sha256()
    for part, listed in parts:
        for file, _ in listed:
            content = file.read_bytes()
            name = file.relative_to(root / part).as_posix()
            hasher.update(os.fsencode(f"{'train' if part == 'train' else 'test'}/{name} {len(content)}\n"))
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
