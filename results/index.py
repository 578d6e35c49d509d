"""What the finished cells under a root say, remembered, so that a reader need not open them all.

ROOT/index/cells.tsv    a line a cell: a checksum of the rest, its name, the stamp of its files, the counts of its
                        totals, what else is in those and the same in many cells, its points

The folders are the truth. This is a cache, written by whoever reads them: a line counts only while `done.json` and
`curve.json` have the times and sizes in its stamp. What is torn, strange or of another version is passed over, and the
file may be deleted at any time. Where it cannot be written, or another reader is writing, all works without.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple
from zlib import crc32

from pydantic_core import from_json

from results.claims import Busy, lock
from results.records import SCHEMA, Machine, Point, RecordError, Totals, Versions, plain, read
from results.store import CellState, done, state_of, write_with

START = crc32(b"1 %d" % SCHEMA)  # of every checksum: lines of another format or schema are wrong from the start
SETTLED = 2.0  # seconds after which a file that is written again has another time, whatever the file system's clock
OUTDATED = 0.5  # the share of lines that count no more from which on the file is written anew
FILE = "cells.tsv"
COUNTS = ("spent", "distinct", "rounds", "seconds", "steps", "attempts", "charged")


class _Line(NamedTuple):
    """What the index says of a cell. place, size: of its points in the file, in bytes."""

    stamp: bytes
    counts: bytes
    shared: bytes
    place: int
    size: int


class Cells:
    """The cells under a root: one look at them all, which opens each at most once, and none that the index knows.

    What it learnt is remembered at the end of `with`.
    """

    BUFFER = 4_000_000  # bytes of new lines that are held before they are written

    def __init__(self, root: Path) -> None:
        self._folder, self._index = root / "cells", root / "index"
        names = os.listdir(self._folder) if self._folder.is_dir() else []  # noqa: PTH208
        self._lines: dict[str, _Line | None] = dict.fromkeys(names)
        self._file = _opened(self._index / FILE)
        self._count = _read_lines(self._file, self._lines)
        self._totals: dict[str, Totals | None] = {}  # of the cells looked at: None without a whole result
        self._points: tuple[str, list[Point]] = ("", [])  # of the cell that was opened last
        self._stamps: dict[str, bytes] = {}
        self._outdated: set[str] = set()  # cells whose line counts no more
        self._learnt: list[bytes] = []
        self._waiting = self._added = 0  # bytes of them, and lines that were added to the file
        self._shared: dict[bytes, tuple[Versions, Machine | None, int]] = {}

    def __enter__(self) -> "Cells":
        return self

    def __exit__(self, *_: object) -> None:
        self._remember(tidy=True)
        if self._file:
            self._file.close()

    def __iter__(self) -> Iterator[str]:
        """The names of those that there are."""
        return iter(self._lines)

    def folder(self, name: str) -> Path:
        """Where the cell of that name lies."""
        return self._folder / name

    def state(self, name: str | None, versions: Versions | None, obstacle: str | None = None) -> CellState:
        """The state of the cell of that name, as store.state_of gives it; None for one that has no name yet."""
        if name is None or name not in self._lines:
            return CellState("cannot run", reason=obstacle) if obstacle else CellState("to do")
        if name not in self._totals:
            self._totals[name] = self._finished(name)
        totals = self._totals[name]
        return (totals and done(totals, versions)) or state_of(self.folder(name), versions, obstacle, totals)

    def stamp(self, name: str) -> bytes | None:
        """What changes with the files of a cell whose state has been asked for; None for one without a whole result."""
        return self._stamps.get(name) if self._totals.get(name) else None

    def points(self, name: str) -> list[Point]:
        """The curve of a cell whose state has been asked for; RecordError where it has none."""
        opened, points = self._points
        if opened == name:
            return points
        line = self._lines[name]
        if self._file and line and name not in self._outdated:
            self._file.seek(line.place)
            with suppress(ValueError):  # someone has cut the file meanwhile
                known: list[Point] = json.loads(self._file.read(line.size))
                return known
        return read(self.folder(name) / "curve.json", list[Point])

    def _finished(self, name: str) -> Totals | None:
        """The totals of a cell whose result is whole, by the index if its files are as they were then."""
        folder, now, line = f"{self._folder}/{name}", time.time(), self._lines[name]
        try:
            end, curve = os.stat(f"{folder}/done.json"), os.stat(f"{folder}/curve.json")  # noqa: PTH116 - of thousands
        except OSError:
            self._outdated.add(name)
            return None
        stamp = b"%d %d %d %d" % (end.st_mtime_ns, end.st_size, curve.st_mtime_ns, curve.st_size)
        if line and line.stamp == stamp:
            self._stamps[name] = line.stamp
            return self._parsed(line)
        self._stamps[name] = stamp
        self._outdated.add(name)
        try:
            totals = read(self.folder(name) / "done.json", Totals)
            points = read(self.folder(name) / "curve.json", list[Point])
        except RecordError:
            return None  # which state_of tells
        self._points = name, points
        if max(end.st_mtime, curve.st_mtime) < now - SETTLED:
            self._learn(_written(name, stamp, totals, points))
        return totals

    def _parsed(self, line: _Line) -> Totals:
        if line.shared not in self._shared:
            versions, machine, schema = json.loads(line.shared)
            self._shared[line.shared] = versions, Machine(**machine) if machine else None, schema
        versions, machine, schema = self._shared[line.shared]
        spent, distinct, rounds, seconds, steps, attempts, charged = from_json(line.counts)
        return Totals(spent, distinct, rounds, seconds, versions, machine, steps, attempts, charged, schema)

    def _learn(self, line: bytes) -> None:
        self._learnt.append(line)
        self._waiting += len(line)
        if self._waiting > self.BUFFER:
            self._remember()

    def _remember(self, *, tidy: bool = False) -> None:
        """Add what was learnt to the file. tidy: write that anew where most of it counts no more."""
        self._added += len(self._learnt)
        counting = sum(line is not None and name not in self._outdated for name, line in self._lines.items())
        tidy = tidy and self._count - counting > OUTDATED * (self._count + self._added)
        if self._learnt or tidy:
            with suppress(OSError, Busy), lock(self._index):  # a folder without locks is an OSError too
                _append(self._index / FILE, self._learnt)
                if tidy:
                    _tidy(self._index / FILE, self._lines)
        self._learnt, self._waiting = [], 0


def _opened(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _read_lines(file: IO[bytes] | None, found: dict[str, _Line | None]) -> int:
    """Put the last good line of each name that is a key there already; returns how many lines there are of any kind."""
    same: dict[bytes, bytes] = {}  # what many cells share, so that it is held once
    count = place = 0
    for count, line in enumerate(file or (), 1):  # noqa: B007
        place += len(line)
        fields = line.split(b"\t", 5)
        if len(fields) == 6 and fields[0] == _checksum(line[9:]):
            _, encoded, stamp, counts, shared, points = fields
            if (name := os.fsdecode(encoded)) in found:
                shared = same.setdefault(shared, shared)
                found[name] = _Line(stamp, counts, shared, place - len(points), len(points))
    return count


def _written(name: str, stamp: bytes, totals: Totals, points: list[Point]) -> bytes:
    """The line; empty for a name that no line can hold."""
    machine = plain(totals.machine) if totals.machine else None
    counts, shared = [getattr(totals, count) for count in COUNTS], (totals.versions, machine, totals.schema)
    fields = (os.fsencode(name), stamp, *(json.dumps(part).encode() for part in (counts, shared, points)))
    line = b"\t".join(fields) + b"\n"
    return b"%s\t%s" % (_checksum(line), line) if line.count(b"\t") == 4 and line.count(b"\n") == 1 else b""


def _checksum(rest: bytes) -> bytes:
    return b"%08x" % crc32(rest, START)


def _append(path: Path, lines: Iterable[bytes]) -> None:
    with path.open("ab+") as file:
        if file.tell():  # a line that another reader did not finish ends here
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        file.write(b"".join(lines))


def _tidy(path: Path, there: Iterable[str]) -> None:
    """Write the file anew, with the last good line of each cell that is there."""
    with path.open("rb") as old:
        lines: dict[str, _Line | None] = dict.fromkeys(there)
        _read_lines(old, lines)

        def copy(new: IO[bytes]) -> None:
            for name, line in lines.items():
                if line is None:
                    continue
                old.seek(line.place)
                rest = b"\t".join((os.fsencode(name), line.stamp, line.counts, line.shared, old.read(line.size)))
                new.write(b"%s\t%s" % (_checksum(rest), rest))

        write_with(path, copy)
