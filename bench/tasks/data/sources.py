"""Data sets as 8-bit tensors in three splits: train for teachers, validation kept apart, test for the curves alone."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.tasks.data import downloads
from bench.tasks.data import cache
from bench.tasks.data import readers
from bench.errors import UsageError, unknown
from bench.tasks.data.readers import Reader, Tell

RESULTS = 1  # of the data: how they are decoded and split
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """images: uint8 N x C x H x W. labels: int64 of N."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """The splits do not overlap; the test split is the public one where there is one."""

    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and how it is known to be whole.

    files: files and folders below the data folder that hold it; none if it comes with a package.
    validation: how many training images are kept apart.
    sizes: how many training and test images the public set has, None where that is not fixed.
    checksums: a function that returns the MD5 sum of each file that has a public one.
    download: a function that puts the files into a data folder, if they can be had.
    root: the folder of a data set that lies elsewhere than in the data folder.
    labelled: whether the images have labels; those without are test images alone.
    """

    shape: tuple[int, int, int]
    classes: int
    read: Reader
    files: tuple[str, ...] = ()
    validation: int = 5_000
    sizes: tuple[int | None, int | None] = (None, None)
    checksums: Callable[[], dict[str, str]] = dict
    download: Callable[[Path], object] | None = None
    root: Path | None = None
    labelled: bool = True


def load(name: str, folder: Path, tell: Tell = lambda *_: None) -> Dataset:
    """The data set in `folder`: decoded and checked the first time, from the cache from then on.

    tell: called now and then with the images decoded and how many there are. Raises UsageError for
    what is missing or broken.
    """
    source = source_of(name)
    if reason := missing(name, folder):
        raise UsageError(reason)
    if not source.files:
        return _dataset(_decoded(name, folder, tell))
    key = _fingerprint(source, folder)
    if not cache.has(name, key):
        key = _fingerprint(source, folder, anew=True)  # for the files may have changed since this process looked
    return _dataset(cache.kept(name, key, lambda: _decoded(name, folder, tell)))


def missing(name: str, folder: Path) -> str | None:
    """Why the data set cannot be read from `folder`, or None; a look for its files, nothing is read."""
    source = source_of(name)
    lacking = next((file for file in source.files if not (_root(source, folder) / file).exists()), None)
    if lacking is None:
        return None
    way_out = "or --download" if source.download else "docs/data.md says how it is made"
    return f"data set {name} is not in {folder} (no {lacking}); give its folder with --data, {way_out}"


def is_decoded(name: str, folder: Path) -> bool:
    """Whether `load` has nothing to decode."""
    source = source_of(name)
    return not source.files or cache.has(name, _fingerprint(source, folder))


def download(name: str, folder: Path) -> None:
    """Put a missing data set into the folder; UsageError where it cannot be had."""
    source = source_of(name)
    if missing(name, folder) is None or source.download is None:
        return
    try:
        source.download(folder)
    except Exception as error:
        raise UsageError(f"data set {name} cannot be downloaded: {_one_line(error)}") from error


def source_of(name: str) -> Source:
    """The source of that name; raises UsageError for an unknown one."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


def other_images(name: str, folder: Path, shape: tuple[int, int, int]) -> Tensor:
    """The images of a data set, uint8 N x C x H x W, resized and made grey, or three equal channels, as another's are.

    `photos` are squares cut out of the two photographs inside scikit-learn, without labels.
    """
    given = _photos() if name == "photos" else load(name, folder).train.images
    return torch.cat([_like(batch.float(), shape) for batch in given.split(5_000)])


def _like(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if images.shape[1] != shape[0]:
        images = images.mean(dim=1, keepdim=True).expand(-1, shape[0], -1, -1)
    if tuple(images.shape[2:]) != shape[1:]:
        images = F.interpolate(images, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return images.round().clamp(0, 255).to(torch.uint8)


def _photos(side: int = 32) -> Tensor:
    """uint8 N x 3 x 32 x 32: overlapping squares of both photographs at full, half and quarter size, 15,670 in all."""
    from sklearn.datasets import load_sample_images

    squares = []
    for image in load_sample_images().images:
        photograph = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        for shrink, stride in ((1, 8), (2, 4), (4, 4)):
            cut = F.unfold(F.avg_pool2d(photograph, shrink), side, stride=stride)
            squares.append(cut[0].T.reshape(-1, 3, side, side))
    return torch.cat(squares).round().to(torch.uint8)


def _dataset(tensors: dict[str, Tensor]) -> Dataset:
    return Dataset(*(Split(tensors[f"{part}.images"], tensors[f"{part}.labels"]) for part in PARTS))


def _decoded(name: str, folder: Path, tell: Tell) -> dict[str, Tensor]:
    """The three splits as tensors by name, checked."""
    source = source_of(name)
    where = _root(source, folder)
    remedy = "put the public files there, or delete them and --download" if source.download else "see docs/data.md"
    try:
        _check_sums(where, source.checksums())
        public_train, test = (Split(*part) for part in source.read(where, tell))
        for part, split, size in zip(("training", "test"), (public_train, test), source.sizes, strict=True):
            _check(part, split, size, source)
    except Exception as error:  # torchvision lets whatever a broken file causes pass, bare assertions among them
        raise UsageError(f"data set {name} in {where} cannot be read: {_one_line(error)}; {remedy}") from error
    order = torch.randperm(len(public_train), generator=torch.Generator().manual_seed(0))
    kept, apart = order[source.validation :], order[: source.validation]
    train, validation = (Split(public_train.images[index], public_train.labels[index]) for index in (kept, apart))
    splits = zip(PARTS, (train, validation, test), strict=True)
    return {f"{part}.{field}": getattr(split, field) for part, split in splits for field in ("images", "labels")}


def _check_sums(folder: Path, sums: dict[str, str]) -> None:
    for name, wanted in sums.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != wanted:
            raise ValueError(f"{name} is not the public file: MD5 sum {found}, wanted {wanted}")


def _check(part: str, split: Split, size: int | None, source: Source) -> None:
    """ValueError unless the split has the images, shape and classes that its source promises."""
    found = tuple(split.images.shape[1:])
    if found != source.shape or split.images.dtype != torch.uint8:
        raise ValueError(f"{part} images are {found} of {split.images.dtype}, wanted {source.shape} of torch.uint8")
    if len(split.images) != len(split.labels):
        raise ValueError(f"{len(split.images)} {part} images and {len(split.labels)} labels")
    if size is not None and len(split) != size:
        raise ValueError(f"{len(split):,} {part} images, wanted {size:,}")
    if not source.labelled:
        return
    counts = split.labels.bincount(minlength=source.classes)
    if len(counts) > source.classes:
        raise ValueError(f"a {part} image has label {len(counts) - 1}, wanted {source.classes} classes")
    if empty := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"no {part} image of class {', '.join(map(str, empty[:5]))}")


def _fingerprint(source: Source, folder: Path, *, anew: bool = False) -> str:
    also = (_readers_version(), source.validation)
    return cache.remembered(_root(source, folder), source.files, *also, anew=anew)


@functools.cache
def _readers_version() -> str:
    return hashlib.sha256(Path(readers.__file__).read_bytes() + str(RESULTS).encode()).hexdigest()


def _root(source: Source, folder: Path) -> Path:
    return source.root or folder


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | UsageError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def _idx(folder: str, *prefixes: str) -> tuple[str, ...]:
    """The four files of MNIST and its like: images and labels for training and test."""
    return tuple(
        f"{folder}/raw/{prefix}-{kind}-ubyte" for prefix in prefixes for kind in ("images-idx3", "labels-idx1")
    )


def _torchvision_source(name: str, parts: tuple[dict[str, Any], dict[str, Any]], **rest: Any) -> Source:
    """A source that torchvision reads and downloads; parts: what its class takes for training and test."""
    return Source(read=readers.torchvision_set(name, parts), download=downloads.from_torchvision(name, *parts), **rest)


def _enlarged(source: Source, side: int) -> Source:
    """The same data set with images of side x side."""
    return replace(source, shape=(source.shape[0], side, side), read=readers.resized(source.read, side))


TRAIN_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
SPLIT_NAME: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})
EMNIST_PARTS = tuple({"split": "balanced", **part} for part in TRAIN_FLAG)

SOURCES = {
    "digits": Source((1, 8, 8), 10, readers.digits, validation=130, sizes=(1_297, 500)),
    "mnist": _torchvision_source(
        "MNIST",
        TRAIN_FLAG,
        shape=(1, 28, 28),
        classes=10,
        files=_idx("MNIST", "train", "t10k"),
        sizes=(60_000, 10_000),
        checksums=lambda: downloads.MNIST,
    ),
    "fmnist": _torchvision_source(
        "FashionMNIST",
        TRAIN_FLAG,
        shape=(1, 28, 28),
        classes=10,
        files=_idx("FashionMNIST", "train", "t10k"),
        sizes=(60_000, 10_000),
    ),
    "usps": _torchvision_source(
        "USPS",
        TRAIN_FLAG,
        shape=(1, 16, 16),
        classes=10,
        files=("usps.bz2", "usps.t.bz2"),
        validation=700,
        sizes=(7_291, 2_007),
        checksums=downloads.listed_sums("USPS"),
    ),
    "emnist": Source(
        (1, 28, 28),
        47,
        readers.emnist,
        files=_idx("EMNIST", "emnist-balanced-train", "emnist-balanced-test"),
        sizes=(112_800, 18_800),
        download=downloads.from_torchvision("EMNIST", *EMNIST_PARTS),
    ),
    "svhn": _torchvision_source(
        "SVHN",
        SPLIT_NAME,
        shape=(3, 32, 32),
        classes=10,
        files=("train_32x32.mat", "test_32x32.mat"),
        sizes=(73_257, 26_032),
        checksums=downloads.listed_sums("SVHN"),
    ),
    "cifar10": _torchvision_source(
        "CIFAR10",
        TRAIN_FLAG,
        shape=(3, 32, 32),
        classes=10,
        files=tuple(
            f"cifar-10-batches-py/{name}" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        ),
        sizes=(50_000, 10_000),
        checksums=downloads.cifar_sums("CIFAR10"),
    ),
    "cifar100": _torchvision_source(
        "CIFAR100",
        TRAIN_FLAG,
        shape=(3, 32, 32),
        classes=100,
        files=("cifar-100-python/train", "cifar-100-python/test"),
        sizes=(50_000, 10_000),
        checksums=downloads.cifar_sums("CIFAR100"),
    ),
    "tinyimagenet": Source(
        (3, 64, 64),
        200,
        readers.tiny_imagenet,
        files=tuple(f"tiny-imagenet-200/{name}" for name in ("wnids.txt", "train", "val")),
        sizes=(100_000, 10_000),
        download=downloads.tiny_imagenet,
    ),
    "imagenet12": Source(
        (3, 64, 64),
        12,
        readers.imagenet12,
        files=("imagenet12/train", "imagenet12/val"),
        validation=1_000,
        sizes=(None, 600),
    ),
}
SOURCES |= {f"{name}32": _enlarged(SOURCES[name], 32) for name in ("mnist", "fmnist")}  # as DIP-KD has them
