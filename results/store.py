"""Files of a run, each complete or absent: written aside, then renamed; and the one word on the state of a cell.

ROOT/cells/CELL/cell.json        what the cell is, and the versions of the code that ran it
                curve.json       its points so far
                checkpoint.pt    a running cell, gone when it is done
                rows-*.pt        parts of its pool, of 64 MB each, that checkpoint.pt names
                samples.png      some of the images that the teacher was last sent, side by side
                student.pt       the final student, if it was asked for
                done.json        its totals: the mark of a finished cell, written last
                failed.json      the reason, where it failed; a new attempt removes it
                stopped.json     its totals so far, where a search for settings gave it up
                lock, claim.N    whose cell it is now (results/claims.py)
ROOT/index/cells.tsv             what finished cells say, remembered: results/index.py
ROOT/RUN/run.json                the grid as planned: which cells, or why not
         index.html  assets/  tables/  figures/    what `bench report` makes of them

results/records.py has the types of the JSON files.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from results import claims
from results.records import Failure, Point, RecordError, State, Totals, Versions, read


@dataclass(frozen=True, slots=True)
class CellState:
    """What the disk says of a cell. totals: where it is done, stale or stopped. reason: why, where it is not done."""

    name: State
    totals: Totals | None = None
    reason: str | None = None


def state_of(
    folder: Path, versions: Versions | None, obstacle: str | None = None, known: Totals | None = None
) -> CellState:
    """The state of the cell in the folder, for the code of those versions. The only reader of these marks.

    versions: None takes a result for what it is, whatever code gave it. obstacle: why it cannot run here, if it cannot.
    known: what `done.json` says, where its reader found the curve whole too (results.index).
    """
    try:
        if known or (folder / "done.json").exists():
            totals = known or read(folder / "done.json", Totals)
            if state := done(totals, versions):
                if not known:
                    read(folder / "curve.json", list[Point])  # without which it has no result
                return state
            if not claims.is_held(folder):
                return CellState("stale", totals, _differing(totals.versions, versions or {}))
        if (folder / "lock").exists() and claims.is_held(folder):
            return CellState("running")
        if (folder / "failed.json").exists():
            return CellState("failed", reason=read(folder / "failed.json", Failure).reason)
        if (folder / "stopped.json").exists():
            return CellState("stopped", read(folder / "stopped.json", Totals), "given up by a search for settings")
    except RecordError as error:
        return CellState("failed", reason=str(error))
    except OSError as error:  # such as a folder that is another user's
        return CellState("failed", reason=f"{error.filename} cannot be read: {error.strerror}")
    if obstacle:
        return CellState("cannot run", reason=obstacle)
    return CellState("started" if (folder / "checkpoint.pt").exists() else "to do")


def done(totals: Totals, versions: Versions | None) -> CellState | None:
    """The state of a cell with those totals and a whole curve, if it is `done` for the code of those versions."""
    return CellState("done", totals) if versions is None or totals.versions == versions else None


def _differing(old: Versions, new: Versions) -> str:
    """What another code gave a result, in words."""
    parts = [f"{part} {old.get(part, 'unknown')}, now {new[part]}" for part in new if old.get(part) != new[part]]
    return "made by other code: " + "; ".join(parts or ["parts that are no more"])


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none of it, making its folder."""
    write_with(path, lambda file: file.write(content))


def write_with(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that appears whole under its name or not at all.

    results.claims.Robbed where it lies in a folder that this process held and another one has taken over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with aside.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        claims.guard(path)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())
