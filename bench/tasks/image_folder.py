"""Tasks made of any folder of images: `folder:PATH[@TEACHER[,STUDENT]]`, or `images:PATH[@STUDENT]`.

PATH/train/CLASS/... and PATH/test/CLASS/..., where the second may be called `val` too. The images of the second kind
have no labels and lie anywhere below PATH: students are compared on them with a black box from elsewhere, and nothing
else is known. What comes of a folder is named by it and a hash of its content, so that its cells are the same on every
machine.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import UsageError, unknown
from bench.tasks.data import cache, readers
from bench.tasks.data.sources import SOURCES, Source
from bench.tasks.networks import NETWORKS
from bench.tasks.table import TASKS, Task
from results.store import digest

PREFIX = "folder:"
UNLABELLED = "images:"
UNKNOWN = -1  # the label of an image that has none
FEWEST = 3  # training images: one is kept apart, and batch norm may not train on one alone
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
LIGHT = {"mlp", "lenet5", "lenet-bn"}  # networks that a CPU trains in minutes


@dataclass(frozen=True)
class Folder:
    """root: absolute. teacher, student: names in NETWORKS. shape, classes: of the black box that answers, where the
    images have no labels; None and 0 where they have."""

    root: Path
    teacher: str
    student: str
    shape: tuple[int, int, int] | None = None
    classes: int = 0
    unlabelled: bool = False


def parse(text: str) -> Folder:
    """The folder and networks that `folder:PATH[@TEACHER[,STUDENT]]` names; ResNet-18 by default.

    An @ that a / comes after is part of the path.
    """
    prefix = UNLABELLED if text.startswith(UNLABELLED) else PREFIX
    given = text.removeprefix(prefix)
    path, at, networks = given.rpartition("@")
    if not at or "/" in networks:
        path, networks = given, ""
    if not path:
        networks = "@STUDENT" if prefix == UNLABELLED else "@TEACHER[,STUDENT]"
        raise UsageError(f"task {text!r}: wanted {prefix}PATH[{networks}]")
    teacher, _, student = networks.partition(",")
    teacher = teacher or "resnet18"
    student = student or teacher
    for network in (teacher, student):
        if network not in NETWORKS:
            raise unknown("network", network, NETWORKS)
    root = Path(os.path.realpath(path))  # Path.resolve stops at links that loop
    return Folder(root, teacher, student, unlabelled=prefix == UNLABELLED)


def split(tasks: Iterable[str]) -> tuple[list[Folder], list[str]]:
    """What is given as `--task`, parted into folders of images and globs; after a comma, too, a prefix begins one."""
    given = [part for text in tasks for part in re.split(f",(?={PREFIX}|{UNLABELLED})", text)]
    folders = [parse(text) for text in given if text.startswith((PREFIX, UNLABELLED))]
    return folders, [text for text in given if not text.startswith((PREFIX, UNLABELLED))]


def register(folder: Folder, *, anew: bool = True) -> str:
    """Put the folder into SOURCES and TASKS; returns the task's name. UsageError for what is none.

    anew: look through its files again, though this process has done so before.
    """
    if folder.unlabelled:
        return _register_unlabelled(folder, anew)
    root = folder.root
    try:
        test = _test_part(root)
        key = cache.remembered(root, ("train", test), anew=anew)
        found = cache.kept(f"survey-{digest(ascii(root))[:12]}", key, lambda: _survey(root, test))
    except (OSError, ValueError) as error:
        raise UsageError(f"image folder {root}: {error}") from error
    name = f"folder-{_readable(root)}-{found['digest'][:8]}"
    SOURCES[name] = _source(root, test, found)
    networks = (folder.teacher, folder.student)
    task = name if networks == ("resnet18", "resnet18") else "-".join((name, *dict.fromkeys(networks)))
    TASKS[task] = Task(name, *networks, gpu=not LIGHT.issuperset(networks))
    return task


def _register_unlabelled(folder: Folder, anew: bool) -> str:
    if folder.shape is None:
        raise UsageError(
            f"images {folder.root} have no labels: wanted a black box to answer them, --teacher or --blackbox with a "
            "YAML that gives shape and classes"
        )
    files = _unlabelled(folder.root)
    content = _content(folder.root, tuple(files), cache.remembered(folder.root, (".",), anew=anew))
    (channels, side, _), mode = folder.shape, "RGB" if folder.shape[0] == 3 else "L"

    def read(where: Path, tell: readers.Tell) -> tuple[readers.Part, readers.Part]:  # noqa: ARG001 - it has the files
        none, images = readers.decode([], [(file, UNKNOWN) for file in files], side, mode, tell)
        return none, images

    name = f"images-{_readable(folder.root)}-{content[:8]}-{channels}x{side}"
    SOURCES[name] = Source(folder.shape, folder.classes, read, (".",), validation=0, root=folder.root, labelled=False)
    task = name if folder.student == "resnet18" else f"{name}-{folder.student}"
    TASKS[task] = Task(name, "none", folder.student, gpu=folder.student not in LIGHT)
    return task


def _unlabelled(root: Path) -> list[Path]:
    """All image files below a folder, in the order of their names; UsageError where there is none."""
    if not root.is_dir():
        raise UsageError(f"images {root}: there is no such folder")
    files = sorted(
        file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise UsageError(f"images {root}: wanted files with {', '.join(sorted(SUFFIXES))}")
    return files


@lru_cache(maxsize=8)
def _content(root: Path, files: tuple[Path, ...], key: str) -> str:  # noqa: ARG001 - with which the files change
    """A hash of the names and the content of the files."""
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(os.fsencode(file.relative_to(root).as_posix()) + hashlib.sha256(file.read_bytes()).digest())
    return hashed.hexdigest()


def _readable(root: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")


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
