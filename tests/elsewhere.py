"""A process as if on a machine of its own, for tests of folders that many machines share.

python elsewhere.py FOLDER CELLS MACHINE FLOCK [--host NAME] [--slow]    works on stub cells and notes it in FOLDER
"""

import argparse
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import claims
from results.claims import Busy, lock
from results.store import write_json

BEAT, STALE = 0.2, 5.0


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


# What a flock may be worth on a file system: it is refused, it means something on its machine alone, or everywhere.
FLOCKS: dict[str, Callable[..., Any]] = {"none": _refuse, "local": lambda *_: None, "everywhere": fcntl.flock}


def pretend(machine: str, flock: str, stale: float = STALE) -> None:
    """Be on that machine from now on, with signs of life as a test has time for."""
    claims._kernel = lambda: machine  # type: ignore[assignment]
    claims.BEAT, claims.STALE = BEAT, stale
    fcntl.flock = FLOCKS[flock]


def note(folder: Path, *words: object) -> None:
    """Append a line to a file that all share, whole."""
    with (folder / "notes.txt").open("a") as notes:
        notes.write(" ".join(map(str, words)) + "\n")


def work(folder: Path, cells: int, slow: bool) -> None:
    """Cells that nobody is at, until all are done. slow: be at the first long enough to be killed there."""
    while left := [cell for cell in map(str, range(cells)) if not (folder / cell / "done.json").exists()]:
        for cell in left:
            try:
                with lock(folder / cell) as claim:
                    if not (folder / cell / "done.json").exists():
                        note(folder, "begun", cell, socket.gethostname(), os.getpid())
                        for _ in range(1000 if slow else 4):
                            time.sleep(0.02)
                            claim.check()
                        write_json(folder / cell / "done.json", {})
                        note(folder, "done", cell)
            except Busy:
                continue
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("cells", type=int)
    parser.add_argument("machine")
    parser.add_argument("flock", choices=FLOCKS)
    parser.add_argument("--host", help="a name, in a namespace of its own")
    parser.add_argument("--slow", action="store_true")
    given = parser.parse_args()
    if given.host:
        socket.sethostname(given.host)
    pretend(given.machine, given.flock)
    work(given.folder, given.cells, given.slow)


if __name__ == "__main__":
    main()
