"""Every public layout, as small archives made here: what is read from them, and how a broken one is told."""

import bz2
import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.errors import UsageError
from bench.tasks.data import readers, sources


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, train: int | None, test: int, **changed: Any) -> None:
    """Let the source of that name expect so few images."""
    monkeypatch.setitem(
        sources.SOURCES, name, replace(sources.SOURCES[name], validation=1, sizes=(train, test), **changed)
    )


def public_train(name: str, folder: Path) -> list[tuple[bytes, int]]:
    """The images and labels of the whole public training part, in an order of their own."""
    dataset = sources.load(name, folder)
    splits = (dataset.train, dataset.validation)
    return sorted((i.numpy().tobytes(), int(k)) for s in splits for i, k in zip(s.images, s.labels, strict=True))


def as_rows(images: Tensor, labels: list[int]) -> list[tuple[bytes, int]]:
    return sorted((image.numpy().tobytes(), label) for image, label in zip(images, labels, strict=True))


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(UsageError) as error:
        sources.load(name, folder)
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    return str(error.value)


# SVHN


@pytest.fixture
def svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MATLAB files: X is 32 x 32 x 3 x N, y is N x 1, and the digit 0 has label 10."""
    from scipy.io import savemat

    for part, n in (("train", 20), ("test", 10)):
        labels = (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels(32, 32, 3, n), "y": labels})
    sums = {f"{part}_32x32.mat": md5(tmp_path / f"{part}_32x32.mat") for part in ("train", "test")}
    from torchvision.datasets import SVHN

    told = {part: ["", f"{part}_32x32.mat", sums[f"{part}_32x32.mat"]] for part in ("train", "test")}
    monkeypatch.setattr(SVHN, "split_list", told)
    shrink(monkeypatch, "svhn", 20, 10)
    return tmp_path


def test_svhn_is_read_channels_first_with_zero_for_zero(svhn: Path) -> None:
    dataset = sources.load("svhn", svhn)
    assert dataset.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    expected = torch.from_numpy(pixels(32, 32, 3, 10).transpose(3, 2, 0, 1).copy())
    assert torch.equal(dataset.test.images, expected)


def test_a_wrong_checksum_names_the_file_and_both_sums(svhn: Path) -> None:
    file = svhn / "test_32x32.mat"
    wanted = md5(file)
    file.write_bytes(file.read_bytes()[:-7])
    told = refusal("svhn", svhn)
    for part in ("test_32x32.mat is not the public file", md5(file), wanted, "--download"):
        assert part in told


# USPS


def usps_lines(n: int, classes: int = 10) -> bytes:
    """Lines of a label from 1 to 10 and 256 pixels from -1 to 1, counted from 1."""
    rows = []
    for i in range(n):
        values = (pixels(256, seed=i) / 255 * 2 - 1).round(4)
        rows.append(f"{i % classes + 1} " + " ".join(f"{j}:{value}" for j, value in enumerate(values, start=1)))
    return "\n".join(rows).encode() + b"\n"


@pytest.fixture
def usps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "usps.bz2").write_bytes(bz2.compress(usps_lines(20)))
    (tmp_path / "usps.t.bz2").write_bytes(bz2.compress(usps_lines(10)))
    shrink(monkeypatch, "usps", 20, 10, checksums=dict)
    return tmp_path


def test_usps_is_read_from_its_text_in_bz2(usps: Path) -> None:
    test = sources.load("usps", usps).test
    assert test.images.shape == (10, 1, 16, 16)
    assert test.labels.tolist() == list(range(10))
    found = test.images[3].flatten().int() - torch.from_numpy(pixels(256, seed=3)).int()
    assert found.abs().max() <= 1  # the text has four decimals


def test_a_class_without_images_is_told(usps: Path) -> None:
    (usps / "usps.bz2").write_bytes(bz2.compress(usps_lines(20, classes=9)))
    assert "no training image of class 9" in refusal("usps", usps)


def test_an_archive_that_breaks_off_is_told(usps: Path) -> None:
    file = usps / "usps.t.bz2"
    file.write_bytes(file.read_bytes()[:-50])
    assert "EOFError" in refusal("usps", usps)


def test_an_image_too_few_is_told_with_both_numbers(usps: Path) -> None:
    (usps / "usps.bz2").write_bytes(bz2.compress(usps_lines(19)))
    assert "19 training images, wanted 20" in refusal("usps", usps)


# EMNIST


def test_emnist_letters_stand_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        images, labels = pixels(94, 28, 28), (np.arange(94) % 47).astype(np.uint8)
        for values, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (folder / f"emnist-balanced-{part}-{kind}-ubyte").write_bytes(header + values.tobytes())
    shrink(monkeypatch, "emnist", 94, 94)
    test = sources.load("emnist", tmp_path).test
    assert test.labels[-1] == 46
    assert torch.equal(test.images[5, 0], torch.from_numpy(pixels(94, 28, 28)[5]).T)


# CIFAR-100


def test_cifar100_has_the_hundred_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part in ("train", "test"):
        content = {"data": pixels(100, 3072), "fine_labels": list(range(100)), "coarse_labels": [0] * 100}
        (folder / part).write_bytes(pickle.dumps(content, protocol=2))
        monkeypatch.setattr(CIFAR100, f"{part}_list", [[part, md5(folder / part)]])
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["x"] * 100}, protocol=2))
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5(folder / "meta")}
    monkeypatch.setattr(CIFAR100, "meta", meta)
    shrink(monkeypatch, "cifar100", 100, 100)
    images = torch.from_numpy(pixels(100, 3072).reshape(100, 3, 32, 32))
    assert public_train("cifar100", tmp_path) == as_rows(images, list(range(100)))


# Tiny-ImageNet and the twelve classes of ImageNet


def save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, "PNG")  # lossless, so that pixels can be compared; the suffix says JPEG


WNIDS = ["n02", "n01", "n03"]  # in the file's order, which is not the classes'


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for number, wnid in enumerate(WNIDS):
        for i in range(2):
            save(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", pixels(64, 64, 3, seed=10 * number + i))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes\n")
        save(root / "val" / "images" / f"val_{number}.JPEG", pixels(64, 64, seed=number))  # grey, as some are
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    shrink(monkeypatch, "tinyimagenet", 6, 3, classes=3)
    return tmp_path


def test_tiny_imagenet_numbers_its_classes_by_their_ids_and_tests_on_the_validation_images(tiny: Path) -> None:
    test = sources.load("tinyimagenet", tiny).test
    assert test.labels.tolist() == [1, 0, 2]
    grey = torch.from_numpy(pixels(64, 64, seed=2))
    assert torch.equal(test.images[2], grey.expand(3, 64, 64))
    images = [pixels(64, 64, 3, seed=10 * number + i) for number in range(3) for i in range(2)]
    expected = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    assert public_train("tinyimagenet", tiny) == as_rows(expected.contiguous(), [1, 1, 0, 0, 2, 2])


def without_a_class(root: Path) -> None:
    for file in (root / "train" / "n03" / "images").iterdir():
        file.unlink()
    (root / "train" / "n03" / "images").rmdir()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class lacks": (without_a_class, "train/n03/images"),
    "an image lacks": (lambda root: (root / "train/n02/images/n02_1.JPEG").unlink(), "5 training images, wanted 6"),
    "an image is cut short": (lambda root: cut(root / "train/n01/images/n01_0.JPEG"), "n01_0.JPEG is no image"),
    "an image is text": (lambda root: (root / "val/images/val_1.JPEG").write_text("no"), "val_1.JPEG is no image"),
    "the annotations lack": (lambda root: (root / "val/val_annotations.txt").unlink(), "val_annotations.txt"),
    "an unknown class": (lambda root: (root / "wnids.txt").write_text("n01\nn02\n"), "has class n03, which wnids.txt"),
}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_with_a_tiny_imagenet_is_told_in_one_line(tiny: Path, fault: str) -> None:
    spoil, told = BROKEN[fault]
    spoil(tiny / "tiny-imagenet-200")
    assert told in refusal("tinyimagenet", tiny)


def test_decoding_tells_how_far_it_is(tiny: Path) -> None:
    told: list[tuple[int, int]] = []
    sources.load("tinyimagenet", tiny, lambda *progress: told.append(progress))
    assert told == [(9, 9)]


@pytest.fixture
def imagenet12(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number, wnid in enumerate(readers.IMAGENET12):
        for part in ("train", "val"):
            image = np.full((128, 192, 3), 20 * number, dtype=np.uint8)
            image[:, :32] = image[:, 160:] = 255  # what the middle square leaves out
            save(tmp_path / "imagenet12" / part / wnid / f"{wnid}_1.JPEG", image)
    shrink(monkeypatch, "imagenet12", None, 12)
    return tmp_path


def test_the_twelve_classes_are_scaled_to_64_pixels_and_cut_to_the_middle(imagenet12: Path) -> None:
    test = sources.load("imagenet12", imagenet12).test
    assert test.images.shape == (12, 3, 64, 64)
    assert [image.unique().tolist() for image in test.images[:, :, :, 2:-2]] == [[20 * number] for number in range(12)]


def test_a_subset_that_lacks_one_of_the_twelve_classes_is_told_which(imagenet12: Path) -> None:
    folder = imagenet12 / "imagenet12" / "val" / "n03888257"
    (folder / "n03888257_1.JPEG").unlink()
    folder.rmdir()
    assert f"no folder {folder}" in refusal("imagenet12", imagenet12)


def test_what_cannot_be_downloaded_says_where_its_making_is_described(tmp_path: Path) -> None:
    told = refusal("imagenet12", tmp_path)
    assert "no imagenet12/train" in told
    assert "docs/data.md" in told
    assert "--download" not in told


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((256, 256), dtype=np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: without antialiasing they would come out black or white
    save(tmp_path / "stripes.png", stripes)
    (images, _), _ = readers.decode([(tmp_path / "stripes.png", 0)], [], 64, "L", lambda *_: None)
    assert images.float().std() < 5
