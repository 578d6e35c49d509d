"""Jobs where the results folder is not seen: what they need is brought along, and what they leave comes back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.executors.jobs import Job
from results import claims
from results.store import write_bytes

Files = dict[str, bytes]  # path below the results folder -> content
NOT_CARRIED = ("lock", claims.PREFIX, ".")  # what names of files begin with that stay where they are


def packed(places: Iterable[Path], root: Path, pack: Callable[[Path], Any]) -> dict[str, Any]:
    """Files and folders of the results folder: path below it -> what `pack` makes of the file."""
    return {str(file.relative_to(root)): pack(file) for place in places for file in _files(place)}


def unpack(files: Mapping[str, bytes], root: Path) -> None:
    """Write files, each whole, in the order in which they are given."""
    for name, content in files.items():
        write_bytes(root / name, content)


def moved(job: Job, root: Path, elsewhere: Path) -> Job:
    """The job as it is done with another results folder."""
    arguments: list[Any] = [elsewhere if argument == root else argument for argument in job.arguments]
    return replace(job, arguments=tuple(arguments))


def left(folder: Path, root: Path) -> Files:
    """The files that a job left in its folder, in the order in which it wrote them: the mark of its end comes last."""
    files = sorted(_files(folder), key=lambda file: file.stat().st_mtime_ns)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def take_back(files: Files, folder: Path, root: Path) -> None:
    """Make the folder what the job left of it. Whoever calls this holds the folder; Robbed if that is so no more."""
    unpack(files, root)
    claims.guard(folder)
    for file in list(_files(folder)):
        if str(file.relative_to(root)) not in files:
            file.unlink()


def _files(place: Path) -> Iterator[Path]:
    """A file, or those in a folder that are whole."""
    for file in [place] if place.is_file() else place.rglob("*") if place.is_dir() else []:
        if file.is_file() and not file.name.startswith(NOT_CARRIED):
            yield file
