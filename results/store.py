"""Files of a run, each complete or absent: written aside, then renamed.

ROOT/cells/CELL/cell.json        what the cell is, and the code version that ran it
                curve.json       its points so far
                checkpoint.pt    a running cell, gone when it is done
                samples.png      some of the images that the teacher was last sent, side by side
                student.pt       the final student, if it was asked for
                done.json        its totals: the mark of a finished cell, written last
                failed.json      the reason, where it failed; a new attempt removes it
                stopped.json     its totals so far, where a search for settings gave it up
ROOT/RUN/run.json                the grid as planned: which cells, or why not
         index.html  assets/  tables/  figures/    what `bench report` makes of them
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Busy(Exception):
    """Another process works on this cell."""


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none of it, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; raises Busy if another holds it. A dead process holds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(folder.name) from error
        yield
