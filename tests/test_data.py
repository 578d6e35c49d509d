"""Data sets: splits that do not overlap, the public file layouts, and one line for what cannot be read."""

import hashlib
import os
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.data.sources import Dataset, Split

KEPT_APART = 3


def rows(*splits: Split) -> Counter[tuple[bytes, int]]:
    """The images of the splits with their labels, as things that can be counted."""
    return Counter(
        (image.numpy().tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def assert_one_line(message: str, *named: str) -> None:
    assert "\n" not in message
    for name in named:
        assert name in message


def random_split(n: int, *shape: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), rng.permutation(np.arange(n, dtype=np.uint8) % 10)


def test_the_digits_come_with_scikit_learn_and_need_no_folder() -> None:
    digits = sources.load("digits", Path("no-such-folder"))
    assert sources.missing("digits", Path("no-such-folder")) is None
    for split in (digits.train, digits.validation, digits.test):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 1, 8, 8)
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))
        assert (split.images.min(), split.images.max()) == (0, 255)


def test_the_splits_of_the_digits_share_no_image_and_together_are_all_1797() -> None:
    from sklearn.datasets import load_digits

    digits = sources.load("digits", Path())
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8)
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [1167, 130, 500]
    assert rows(*splits) == rows(Split(pixels, torch.from_numpy(bunch.target)))
    assert rows(*splits).most_common(1)[0][1] == 1  # no two are the same, so disjoint rows are disjoint images


def test_a_data_set_is_split_the_same_way_each_time_whatever_the_seed() -> None:
    torch.manual_seed(1)
    first = sources.load("digits", Path())
    torch.manual_seed(2)
    second = sources.load("digits", Path())
    for one, other in ((first.train, second.train), (first.validation, second.validation), (first.test, second.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


# MNIST and Fashion-MNIST


def write_idx(path: Path, values: np.ndarray) -> None:
    """The IDX format: two zero bytes, 8 for unsigned bytes, the number of axes, their sizes big-endian, the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.tobytes())


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with 20 training and 10 test images in both MNIST and Fashion-MNIST."""
    for name, known_as in (("MNIST", "mnist"), ("FashionMNIST", "fmnist")):
        for part, n, seed in (("train", 20, 0), ("t10k", 10, 1)):
            images, labels = random_split(n, 28, 28, seed=seed)
            write_idx(tmp_path / name / "raw" / f"{part}-images-idx3-ubyte", images)
            write_idx(tmp_path / name / "raw" / f"{part}-labels-idx1-ubyte", labels)
        monkeypatch.setitem(sources.SOURCES, known_as, small(known_as, 20, 10, checksums=dict))
    return tmp_path


def small(name: str, train: int, test: int, **changed: Any) -> sources.Source:
    """The source of that name as it would be for so few images."""
    return replace(sources.SOURCES[name], validation=KEPT_APART, sizes=(train, test), **changed)


def assert_is(dataset: Dataset, train: Split, test: Split) -> None:
    assert len(dataset.validation) == KEPT_APART
    assert rows(dataset.train, dataset.validation) == rows(train)
    assert torch.equal(dataset.test.images, test.images)
    assert torch.equal(dataset.test.labels, test.labels)


@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_grey_images_are_read_from_the_public_idx_files(small_mnist: Path, name: str) -> None:
    train, test = (
        Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())
        for images, labels in (random_split(20, 28, 28, seed=0), random_split(10, 28, 28, seed=1))
    )
    dataset = sources.load(name, small_mnist)
    assert dataset.train.images.shape == (17, 1, 28, 28)
    assert_is(dataset, train, test)


@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_files_that_old_versions_decoded_do_not_go_before_those_that_are_checked(small_mnist: Path, name: str) -> None:
    before = sources.load(name, small_mnist).test.images
    for known_as in ("MNIST", "FashionMNIST"):
        processed = small_mnist / known_as / "processed"
        processed.mkdir()
        for part, n in (("training", 20), ("test", 10)):
            torch.save((torch.zeros(n, 28, 28, dtype=torch.uint8), torch.zeros(n).long()), processed / f"{part}.pt")
    (train, _), (test, _) = sources.SOURCES[name].read(small_mnist, lambda _: None)
    assert train.any()
    assert torch.equal(test, before)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
@pytest.mark.parametrize("kept", [0, 3, 10, -1])
def test_a_file_cut_short_is_a_usage_error_of_one_line(small_mnist: Path, file: str, kept: int) -> None:
    path = small_mnist / "MNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError) as error:
        sources.load("mnist", small_mnist)
    assert_one_line(str(error.value), "mnist", str(small_mnist))


@pytest.mark.parametrize(
    "content",
    [b"<html>404 Not Found</html>", b"\x1f\x8b\x08\x08 still compressed", b"\0" * 64],
    ids=["a web page", "gzip", "zeros"],
)
def test_a_file_that_is_something_else_is_a_usage_error_of_one_line(small_mnist: Path, content: bytes) -> None:
    (small_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UsageError) as error:
        sources.load("mnist", small_mnist)
    assert_one_line(str(error.value), "mnist", str(small_mnist))


def test_fewer_labels_than_images_are_a_usage_error(small_mnist: Path) -> None:
    write_idx(small_mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.zeros(19, dtype=np.uint8))
    with pytest.raises(UsageError):
        sources.load("mnist", small_mnist)


@pytest.mark.parametrize("file", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_file_that_lacks_among_others_is_a_usage_error_of_one_line(small_mnist: Path, file: str) -> None:
    (small_mnist / "MNIST" / "raw" / file).unlink()
    with pytest.raises(UsageError) as error:
        sources.load("mnist", small_mnist)
    assert_one_line(str(error.value), "mnist", str(small_mnist))


@pytest.mark.skipif("BENCH_DATA" not in os.environ, reason="BENCH_DATA names no folder with the real MNIST")
def test_the_real_mnist_is_the_one_everybody_has() -> None:
    mnist = sources.load("mnist", Path(os.environ["BENCH_DATA"]))
    assert [len(split) for split in (mnist.train, mnist.validation, mnist.test)] == [55_000, 5_000, 10_000]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mnist.train.images.float().mean().item() / 255 == pytest.approx(0.1307, abs=0.001)


# CIFAR-10


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with 5 batches of 10 training images and 10 test images, whose checksums torchvision is told."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: dict[str, object]) -> str:
        pickled = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(pickled)
        return hashlib.md5(pickled).hexdigest()

    def batch(name: str, n: int, seed: int) -> list[str]:
        images, labels = random_split(n, 3 * 32 * 32, seed=seed)
        return [name, write(name, {"batch_label": name, "data": images, "labels": labels.tolist()})]

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}", 10, i) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", 10, 6)])
    checksum = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": checksum})
    monkeypatch.setitem(sources.SOURCES, "cifar10", small("cifar10", 50, 10))
    return tmp_path


def test_colour_images_are_read_from_the_public_pickles_channels_first(small_cifar10: Path) -> None:
    def split(n: int, *seeds: int) -> Split:
        parts = [random_split(n, 3 * 32 * 32, seed=seed) for seed in seeds]
        images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
        return Split(torch.from_numpy(images), torch.from_numpy(np.concatenate([labels for _, labels in parts])).long())

    dataset = sources.load("cifar10", small_cifar10)
    assert dataset.train.images.shape == (47, 3, 32, 32)
    assert dataset.train.images.is_contiguous()
    assert_is(dataset, split(10, 1, 2, 3, 4, 5), split(10, 6))


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_pickle_cut_short_is_a_usage_error_of_one_line(small_cifar10: Path, file: str) -> None:
    path = small_cifar10 / "cifar-10-batches-py" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError) as error:
        sources.load("cifar10", small_cifar10)
    assert_one_line(str(error.value), "cifar10", str(small_cifar10))


# What is not there


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fmnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
    ],
)
def test_a_data_set_that_is_not_there_is_one_line_naming_folder_file_and_option(
    tmp_path: Path, name: str, file: str
) -> None:
    with pytest.raises(UsageError) as error:
        sources.load(name, tmp_path)
    assert_one_line(str(error.value), name, str(tmp_path), file, "--data", "--download")
    assert sources.missing(name, tmp_path) == str(error.value)


@pytest.mark.parametrize(("typo", "meant"), [("mnst", "mnist"), ("cifar-10", "cifar10"), ("digit", "digits")])
def test_an_unknown_data_set_is_answered_with_the_nearest_known_one(typo: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"unknown data set '{typo}'; did you mean {meant}"):
        sources.load(typo, Path())


def test_a_name_like_no_other_is_answered_with_all_that_are_known() -> None:
    with pytest.raises(UsageError) as error:
        sources.load("photos", Path())
    assert_one_line(str(error.value), *sources.SOURCES)
