"""The public files: their MD5 sums and how to download them, from torchvision's own tables where it has one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

# The sums of MNIST's raw files; torchvision's table has those of the compressed ones, which it checks as it downloads.
MNIST = {
    "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def from_torchvision(name: str, *parts: dict[str, Any]) -> Callable[[Path], object]:
    """A function that downloads a data set class of torchvision, which knows the sums of the archives."""

    def get(folder: Path) -> None:
        from torchvision import datasets

        for part in parts:
            getattr(datasets, name)(folder, **part, download=True)

    return get


def cifar_sums(name: str) -> Callable[[], dict[str, str]]:
    """torchvision's own table of a CIFAR class."""

    def sums() -> dict[str, str]:
        from torchvision import datasets

        public = getattr(datasets, name)
        listed = [*public.train_list, *public.test_list, (public.meta["filename"], public.meta["md5"])]
        return {f"{public.base_folder}/{file}": md5 for file, md5 in listed}

    return sums


def listed_sums(name: str) -> Callable[[], dict[str, str]]:
    """torchvision's own table of SVHN or USPS."""

    def sums() -> dict[str, str]:
        from torchvision import datasets

        return {file: md5 for _, file, md5 in map(getattr(datasets, name).split_list.get, ("train", "test"))}

    return sums


def tiny_imagenet(folder: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    archive, md5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
    download_and_extract_archive(archive, str(folder), md5=md5)
