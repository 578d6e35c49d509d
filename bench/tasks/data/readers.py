"""How each public layout is read: functions of (folder, tell) that return the training and the test part.

What a reader raises is told to the user as one line, so messages say which file and what was wanted.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Tell = Callable[[int, int], None]  # images done, of how many
Part = tuple[Tensor, Tensor]  # images uint8 N x C x H x W, labels int64 of N
Reader = Callable[[Path, Tell], tuple[Part, Part]]
Listed = list[tuple[Path, int]]  # image files with their labels

# IDEAL cuts 12 classes out of ImageNet but publishes neither their list nor the images (its code loads a file of the
# authors'). This list is ours: the ten of Imagenette, which DIP-KD uses and anybody can download, and two more.
IMAGENET12 = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02123045": "tabby",
    "n02690373": "airliner",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def digits(folder: Path, tell: Tell) -> tuple[Part, Part]:  # noqa: ARG001 - the shape of all readers
    """The 8x8 digits inside scikit-learn, 17 grey levels: 1,797 images, of which we take 500 for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:500], order[500:]
    return (images[train], labels[train]), (images[test], labels[test])


def torchvision_set(name: str, parts: tuple[dict[str, Any], dict[str, Any]]) -> Reader:
    """A reader for a data set class of torchvision; parts: what its constructor takes for training and test."""

    def read(folder: Path, tell: Tell) -> tuple[Part, Part]:  # noqa: ARG001 - seconds at most
        from torchvision import datasets

        kind = getattr(datasets, name)
        # Of MNIST and its kin old versions left decoded files, which go before those that are checked here.
        checked = type(name, (kind,), {"_check_legacy_exist": lambda _: False})
        train, test = (_part(checked(folder, **part)) for part in parts)
        return train, test

    return read


def resized(read: Reader, side: int) -> Reader:
    """The reader with its images made side x side, bilinearly."""

    def larger(folder: Path, tell: Tell) -> tuple[Part, Part]:
        train, test = ((_of_side(images, side), labels) for images, labels in read(folder, tell))
        return train, test

    return larger


def _of_side(images: Tensor, side: int) -> Tensor:
    """uint8 N x C x H x W, a few thousand at a time: as floats all of them would take gigabytes."""
    parts = (F.interpolate(part.float(), (side, side), mode="bilinear") for part in images.split(5_000))
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def emnist(folder: Path, tell: Tell) -> tuple[Part, Part]:
    """EMNIST's `balanced` split: 47 classes, as many images of each. The public files hold the images transposed."""
    parts = ({"split": "balanced", "train": True}, {"split": "balanced", "train": False})
    train, test = torchvision_set("EMNIST", parts)(folder, tell)
    return (train[0].mT.contiguous(), train[1]), (test[0].mT.contiguous(), test[1])


def tiny_imagenet(folder: Path, tell: Tell) -> tuple[Part, Part]:
    """Tiny-ImageNet; the public test images have no labels, so its validation images are our test part.

    Classes are numbered in the order of their ids, as torchvision's ImageFolder does.
    """
    root = folder / "tiny-imagenet-200"
    labels = {wnid: label for label, wnid in enumerate(sorted((root / "wnids.txt").read_text().split()))}
    train = [(file, label) for wnid, label in labels.items() for file in _files(root / "train" / wnid / "images")]
    lines = (line.split("\t") for line in (root / "val" / "val_annotations.txt").read_text().splitlines())
    named = {root / "val" / "images" / file: wnid for file, wnid, *_ in lines}
    if unknown := set(named.values()) - labels.keys():
        raise ValueError(f"val_annotations.txt has class {min(unknown)}, which wnids.txt lacks")
    test = [(file, labels[wnid]) for file, wnid in named.items()]
    return decode(train, test, 64, "RGB", tell)


def imagenet12(folder: Path, tell: Tell) -> tuple[Part, Part]:
    """Twelve classes of ILSVRC-2012 (IMAGENET12), the shorter side scaled to 64 px, the middle square of it."""
    root = folder / "imagenet12"
    train, test = (class_folders(root / part, IMAGENET12) for part in ("train", "val"))
    return decode(train, test, 64, "RGB", tell)


def class_folders(root: Path, classes: Any) -> Listed:
    """The files in root/CLASS for each of the classes, labelled by their order."""
    return [(file, label) for label, name in enumerate(classes) for file in _files(root / name)]


def decode(train: Listed, test: Listed, side: int, mode: str, tell: Tell) -> tuple[Part, Part]:
    """Decode image files: scaled so that they cover a square, antialiased, and cut to its middle.

    mode: `RGB` or `L`, as Pillow has it.
    """
    listed = [*train, *test]
    pixels = torch.from_numpy(_pixels([file for file, _ in listed], side, mode, tell)).permute(0, 3, 1, 2)
    labels = torch.tensor([label for _, label in listed])
    n = len(train)
    return (pixels[:n].contiguous(), labels[:n]), (pixels[n:].contiguous(), labels[n:])


def _pixels(files: list[Path], side: int, mode: str, tell: Tell) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """uint8 N x side x side x C."""
    from PIL import Image, ImageOps

    pixels = np.empty((len(files), side, side, 3 if mode == "RGB" else 1), dtype=np.uint8)

    def read(index: int) -> None:
        try:
            with Image.open(files[index]) as image:
                square = ImageOps.fit(image.convert(mode), (side, side), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow raises all kinds for broken files
            raise ValueError(f"{files[index]} is no image, or a broken one") from error
        pixels[index] = np.asarray(square).reshape(side, side, -1)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(read, range(len(files))), start=1):
            if done % 500 == 0 or done == len(files):
                tell(done, len(files))
    return pixels


def _files(folder: Path) -> list[Path]:
    """The files of a folder in the order of their names, hidden ones left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    return sorted(file for file in folder.iterdir() if not file.name.startswith("."))


def _part(public: Any) -> Part:
    """From a data set of torchvision, whose pixels are N x H x W, N x H x W x C or SVHN's N x C x H x W."""
    pixels = torch.as_tensor(public.data)
    labels = torch.as_tensor(public.targets if hasattr(public, "targets") else public.labels).long()
    if pixels.ndim == 3:
        return pixels[:, None], labels
    return (pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)).contiguous(), labels
