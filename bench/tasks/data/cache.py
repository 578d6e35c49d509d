"""What was decoded once, kept as tensor files in a folder of the user's, so that it loads without being read in."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.errors import UsageError


def kept(name: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Tensors and plain values of that name and key: from the cache if they are there, else made and kept.

    Tensors are mapped from the file, so that processes share their memory and nothing is read before it is used.
    An older key of the same name is thrown away.
    """
    path = _path(name, key)
    if not path.exists():
        _write(path, make())
        for old in path.parent.glob(f"{name}.*.pt"):
            if old != path:
                old.unlink(missing_ok=True)
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    except Exception as error:
        raise UsageError(f"{path} in the cache cannot be read ({type(error).__name__}); delete it") from error
    return content


def has(name: str, key: str) -> bool:
    """Whether it is kept under that key."""
    return _path(name, key).exists()


def fingerprint(folder: Path, files: Iterable[str], *also: object) -> str:
    """A hash of the names, sizes and times of the files, those in folders among them, and of anything else given."""
    hasher = hashlib.sha256(repr(also).encode())
    for line in sorted(line for name in files for line in _stamps(folder / name, name)):
        hasher.update(line.encode())
    return hasher.hexdigest()[:16]


def _stamps(path: str | Path, name: str) -> Iterator[str]:
    if not os.path.isdir(path):  # noqa: PTH112 - a hundred thousand Path objects would take a second
        status = os.stat(path)  # noqa: PTH116
        yield f"{name} {status.st_size} {status.st_mtime_ns}\n"
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stamps(entry.path, f"{name}/{entry.name}")
            else:
                status = entry.stat()
                yield f"{name}/{entry.name} {status.st_size} {status.st_mtime_ns}\n"


def _path(name: str, key: str) -> Path:
    folder = os.environ.get("BENCH_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "blackbox-bench") / f"{name}.{key}.pt"


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write it whole or not at all; it may be larger than what one would copy into memory first."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, aside)
        aside.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where a disk is full
        reason = " ".join(str(error).split())
        raise UsageError(f"cache {path.parent} cannot be written: {reason}; choose another with BENCH_CACHE") from error
    finally:
        aside.unlink(missing_ok=True)
