"""Data sets as 8-bit tensors in three splits: train for teachers, validation kept apart, test for the curves alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UsageError, unknown


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
    """Where a data set comes from.

    read: (folder, download) -> the public training and test splits.
    proof: a file below the data folder that is there when the data set is; None if it comes with a package.
    validation: how many training images are kept apart.
    """

    shape: tuple[int, int, int]
    classes: int
    read: Callable[[Path, bool], tuple[Split, Split]]
    proof: str | None
    validation: int


def load(name: str, folder: Path, *, download: bool = False) -> Dataset:
    """Read a data set from `folder`, in torchvision's layout; raises UsageError where it is missing or broken."""
    source = source_of(name)
    if not download and (reason := missing(name, folder)):
        raise UsageError(reason)
    try:
        public_train, test = source.read(folder, download)
    except Exception as error:  # torchvision lets whatever a broken file causes pass, bare assertions among them
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UsageError(f"data set {name} in {folder} cannot be read: {' '.join(reason.split())}") from error
    order = torch.randperm(len(public_train), generator=torch.Generator().manual_seed(0))
    kept, apart = order[source.validation :], order[: source.validation]
    return Dataset(
        train=Split(public_train.images[kept], public_train.labels[kept]),
        validation=Split(public_train.images[apart], public_train.labels[apart]),
        test=test,
    )


def missing(name: str, folder: Path) -> str | None:
    """Why the data set cannot be read from `folder`, or None; a look for one file, nothing is read."""
    proof = source_of(name).proof
    if proof is None or (folder / proof).exists():
        return None
    return f"data set {name} is not in {folder} (no {proof}); give its folder with --data, or --download"


def source_of(name: str) -> Source:
    """The source of that name; raises UsageError for an unknown one."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


def other_images(name: str, folder: Path, shape: tuple[int, int, int]) -> Tensor:
    """The images of a data set, uint8 N x C x H x W, resized and made grey, or three equal channels, as another's are.

    `photos` are squares cut out of the two photographs inside scikit-learn, without labels.
    """
    images = (_photos() if name == "photos" else load(name, folder).train.images).float()
    if images.shape[1] != shape[0]:
        images = images.mean(dim=1, keepdim=True).expand(-1, shape[0], -1, -1)
    if tuple(images.shape[2:]) != shape[1:]:
        images = F.interpolate(images, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return images.round().clamp(0, 255).to(torch.uint8)


def missing_other(name: str, folder: Path) -> str | None:
    """Why the images cannot be had, or None."""
    return None if name == "photos" else missing(name, folder)


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


def _digits(folder: Path, download: bool) -> tuple[Split, Split]:  # noqa: ARG001 - the shape of all readers
    """The 8x8 digits inside scikit-learn, 17 grey levels: 1,797 images, of which we take 500 for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:500], order[500:]
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def _torchvision(name: str) -> Callable[[Path, bool], tuple[Split, Split]]:
    """A reader for a data set class of torchvision whose images lie in `data` and labels in `targets`."""

    def read(folder: Path, download: bool) -> tuple[Split, Split]:
        from torchvision import datasets

        train, test = (getattr(datasets, name)(folder, train=train, download=download) for train in (True, False))
        return _split(train.data, train.targets), _split(test.data, test.targets)

    return read


def _split(images: object, labels: object) -> Split:
    """From N x H x W or N x H x W x C, array or tensor, to a Split."""
    pixels = torch.as_tensor(images)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    if len(pixels) != len(classes := torch.as_tensor(labels).long()):
        raise ValueError(f"{len(pixels)} images and {len(classes)} labels")
    return Split(pixels, classes)


SOURCES = {
    "digits": Source((1, 8, 8), 10, _digits, None, validation=130),
    "mnist": Source((1, 28, 28), 10, _torchvision("MNIST"), "MNIST/raw/train-images-idx3-ubyte", validation=5_000),
    "fmnist": Source(
        (1, 28, 28), 10, _torchvision("FashionMNIST"), "FashionMNIST/raw/train-images-idx3-ubyte", validation=5_000
    ),
    "cifar10": Source((3, 32, 32), 10, _torchvision("CIFAR10"), "cifar-10-batches-py/data_batch_1", validation=5_000),
}
