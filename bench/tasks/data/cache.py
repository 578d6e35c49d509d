"""What was decoded once, kept as tensor files in a folder of the user's, so that it loads without being read in."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.errors import UsageError
from results.store import write_with


def kept(name: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Tensors and plain values of that name and key: from the cache if they are there, else made and kept.

    Tensors are mapped from the file, so that processes share their memory and nothing is read before it is used.
    A file that cannot be read is made anew, and an older key of the same name is thrown away: whatever is here can be
    made again, so nobody need be asked and nothing be set aside.
    """
    path = _path(name, key)
    if (found := _read(path)) is not None:
        return found
    made = make()
    _write(path, made)
    for old in path.parent.glob(f"{name}.*.pt"):
        if old != path:
            old.unlink(missing_ok=True)
    return _read(path) or made  # another process may have put another key in its place


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    except Exception:  # torch raises all kinds for broken files
        return None
    return content


def has(name: str, key: str) -> bool:
    """Whether it is kept under that key."""
    return _path(name, key).exists()


def fingerprint(folder: Path, files: Iterable[str], *also: object) -> str:
    """A hash of the names, sizes and times of the files, those in folders among them, and of anything else given.

    UsageError for what cannot be looked at.
    """
    hasher = hashlib.sha256(repr(also).encode())
    try:
        for line in sorted(line for name in files for line in _stamps(str(folder / name), name)):
            hasher.update(os.fsencode(line))
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
    return hasher.hexdigest()[:16]


def remembered(folder: Path, files: Sequence[str], *also: object, anew: bool = False) -> str:
    """`fingerprint`, once in a process: again only where a file or folder that is named here has another time or size.

    What changes deeper in a folder meanwhile the next process sees: a hundred thousand files are looked at once, and not
    for each cell that a process runs. anew: look again all the same.
    """
    known = (folder, tuple(files), repr(also), tuple(map(_state, (folder / name for name in files))))
    if anew or known not in _REMEMBERED:
        _REMEMBERED[known] = fingerprint(folder, files, *also)
    return _REMEMBERED[known]


_REMEMBERED: dict[object, str] = {}


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _stamps(path: str, name: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """above: the folders that this one lies in, without links, so that a link back to one of them is not followed."""
    if not os.path.isdir(path):  # noqa: PTH112 - a hundred thousand Path objects would take a second
        status = os.stat(path)  # noqa: PTH116
        yield f"{name} {status.st_size} {status.st_mtime_ns}\n"
        return
    real = os.path.realpath(path)
    if real in above:
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stamps(entry.path, f"{name}/{entry.name}", (*above, real))
            else:
                status = entry.stat()
                yield f"{name}/{entry.name} {status.st_size} {status.st_mtime_ns}\n"


def _path(name: str, key: str) -> Path:
    folder = os.environ.get("BENCH_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "blackbox-bench") / f"{name}.{key}.pt"


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write it whole or not at all; it may be larger than what one would copy into memory first."""
    try:
        write_with(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where a disk is full
        reason = " ".join(str(error).split())
        raise UsageError(f"cache {path.parent} cannot be written: {reason}; choose another with BENCH_CACHE") from error
