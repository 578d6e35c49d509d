"""The cache of decoded data: used when nothing changed, made anew when something did, never half there."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from bench.errors import UsageError
from bench.tasks.data import cache, sources
from bench.tasks.data.readers import Part


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse() -> dict[str, Any]:
    raise AssertionError("it is in the cache and need not be made")


def test_what_is_kept_is_not_made_again(cache_folder: Path) -> None:
    made = {"images": torch.arange(6, dtype=torch.uint8).reshape(2, 3), "names": ["a", "b"]}
    assert not cache.has("set", "1")
    cache.kept("set", "1", lambda: made)
    assert cache.has("set", "1")
    again = cache.kept("set", "1", refuse)
    assert torch.equal(again["images"], made["images"])
    assert again["names"] == ["a", "b"]
    assert [path.name for path in cache_folder.iterdir()] == ["set.1.pt"]


def test_a_new_key_throws_the_old_one_of_that_name_away_and_no_other(cache_folder: Path) -> None:
    for name, key in (("set", "1"), ("set-b", "1"), ("set", "2")):
        cache.kept(name, key, lambda: {"x": torch.zeros(1)})
    assert sorted(path.name for path in cache_folder.iterdir()) == ["set-b.1.pt", "set.2.pt"]


def test_a_make_that_fails_leaves_nothing(cache_folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        cache.kept("set", "1", lambda: {"x": 1 / 0})
    assert not cache.has("set", "1")
    assert not list(cache_folder.glob("*"))


def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", "/proc/refused")
    with pytest.raises(UsageError, match=r"cache /proc/refused cannot be written: .*; choose another with BENCH_CACHE"):
        cache.kept("set", "1", lambda: {"x": torch.zeros(1)})


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_broken_file_in_the_cache_is_made_anew(cache_folder: Path, share: float) -> None:
    cache.kept("set", "1", lambda: {"x": torch.zeros(1000)})
    content = (cache_folder / "set.1.pt").read_bytes()
    (cache_folder / "set.1.pt").write_bytes(content[: int(share * len(content))])
    assert cache.kept("set", "1", lambda: {"x": torch.ones(1)})["x"].item() == 1
    assert cache.kept("set", "1", refuse)["x"].item() == 1
    assert [path.name for path in cache_folder.iterdir()] == ["set.1.pt"]


def test_what_another_process_throws_away_at_once_is_there_all_the_same(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "write_with", lambda *_: cache_folder.mkdir())
    assert cache.kept("set", "1", lambda: {"x": torch.ones(1)})["x"].item() == 1


def test_two_processes_of_the_same_number_can_write_the_same_file(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in two containers on one volume: the second begins and ends while the first is writing."""

    def save(content: dict[str, Any], file: IO[bytes]) -> None:
        monkeypatch.undo()
        monkeypatch.setenv("BENCH_CACHE", str(cache_folder))
        cache.kept("set", "1", lambda: {"x": torch.zeros(1)})
        torch.save(content, file)

    monkeypatch.setattr(torch, "save", save)
    assert cache.kept("set", "1", lambda: {"x": torch.ones(1)})["x"].item() == 1
    assert [path.name for path in cache_folder.iterdir()] == ["set.1.pt"]


def test_a_link_back_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "set" / "inner").mkdir(parents=True)
    for name in ("a", "b", "c"):  # each followed forty times over would never end
        (tmp_path / "set" / "inner" / name).symlink_to(tmp_path / "set")
    (tmp_path / "plain" / "set" / "inner").mkdir(parents=True)
    assert cache.fingerprint(tmp_path, ["set"]) == cache.fingerprint(tmp_path / "plain", ["set"])


@pytest.mark.parametrize("target", ["itself", "nothing"])
def test_what_cannot_be_looked_at_is_told_by_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "itself").symlink_to(target)
    with pytest.raises(UsageError, match=r"set/itself cannot be read: "):
        cache.fingerprint(tmp_path, ["set"])


def test_the_fingerprint_sees_names_sizes_and_times_of_all_files_in_folders(tmp_path: Path) -> None:
    (tmp_path / "set" / "inner").mkdir(parents=True)
    file = tmp_path / "set" / "inner" / "a.png"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    prints = [cache.fingerprint(tmp_path, ["set"]), cache.fingerprint(tmp_path, ["set"], "another reader")]
    os.utime(file, (2, 2))
    prints.append(cache.fingerprint(tmp_path, ["set"]))
    file.write_bytes(b"more")
    os.utime(file, (2, 2))
    prints.append(cache.fingerprint(tmp_path, ["set"]))
    file.rename(file.with_name("b.png"))
    prints.append(cache.fingerprint(tmp_path, ["set"]))
    assert len(set(prints)) == 5
    os.utime(tmp_path / "set" / "inner" / "b.png", (2, 2))
    assert cache.fingerprint(tmp_path, ["set"]) == prints[-1]


def test_a_process_looks_into_a_folder_once_and_again_when_the_folder_itself_changes(tmp_path: Path) -> None:
    file = tmp_path / "set" / "inner" / "a.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    first = cache.remembered(tmp_path, ["set"], 1)
    file.write_bytes(b"another")
    assert cache.remembered(tmp_path, ["set"], 1) == first
    assert cache.remembered(tmp_path, ["set"], 2) != first
    now = cache.fingerprint(tmp_path, ["set"], 1)
    assert cache.remembered(tmp_path, ["set"], 1, anew=True) == now != first
    os.utime(tmp_path / "set", (1, 1))
    file.unlink()
    assert cache.remembered(tmp_path, ["set"], 1) == cache.fingerprint(tmp_path, ["set"], 1) != now


def test_a_data_set_that_changed_while_it_was_thrown_away_is_kept_under_its_new_name(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data" / "set" / "inner" / "labels"
    file.parent.mkdir(parents=True)

    def read(folder: Path, tell: object) -> tuple[Part, Part]:  # noqa: ARG001 - the shape of all readers
        labels = torch.tensor([int(digit) for digit in (folder / "set" / "inner" / "labels").read_text()])
        return ((torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labels),) * 2

    monkeypatch.setitem(sources.SOURCES, "tree", sources.Source((1, 8, 8), 2, read, ("set",), 1))
    names = set()
    for labels in ("0101", "011"):
        file.write_text(labels)
        assert sources.load("tree", tmp_path / "data").test.labels.tolist() == [int(digit) for digit in labels]
        (kept,) = cache_folder.glob("tree.*")
        names.add(kept.name)
        kept.unlink()
    assert len(names) == 2


@pytest.fixture
def small_mnist(tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    for part, n in (("train", 20), ("t10k", 10)):
        for kind, values in (("images-idx3", torch.zeros(n, 28, 28)), ("labels-idx1", torch.arange(n) % 10)):
            file = tmp_path / "MNIST" / "raw" / f"{part}-{kind}-ubyte"
            file.parent.mkdir(parents=True, exist_ok=True)
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            file.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.to(torch.uint8).numpy().tobytes())
    small = replace(sources.SOURCES["mnist"], validation=3, sizes=(20, 10), checksums=dict)
    monkeypatch.setitem(sources.SOURCES, "mnist", small)
    return tmp_path


def test_a_data_set_is_decoded_once_and_again_when_a_file_changes(small_mnist: Path) -> None:
    assert not sources.is_decoded("mnist", small_mnist)
    sources.load("mnist", small_mnist)
    assert sources.is_decoded("mnist", small_mnist)
    labels = small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-10] + bytes(reversed(range(10))))
    assert not sources.is_decoded("mnist", small_mnist)
    assert sources.load("mnist", small_mnist).test.labels.tolist() == list(reversed(range(10)))


def test_a_cached_data_set_needs_no_torchvision(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sources.load("mnist", small_mnist)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # an import of it would fail
    again = sources.load("mnist", small_mnist)
    assert torch.equal(again.train.labels, first.train.labels)


def test_the_digits_need_no_cache(cache_folder: Path) -> None:
    assert sources.is_decoded("digits", Path("nowhere"))
    sources.load("digits", Path("nowhere"))
    assert not cache_folder.exists()


def test_an_image_changed_in_memory_stays_as_it_was_in_the_cache(small_mnist: Path) -> None:
    sources.load("mnist", small_mnist).test.images.fill_(7)
    assert not sources.load("mnist", small_mnist).test.images.any()
