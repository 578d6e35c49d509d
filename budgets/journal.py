"""Paid answers, on disk before a method sees them, and the ledger of every request that went out.

One record a line, appended and never changed; L is the length of the JSON in bytes, C the CRC-32 of the characters of
L, and H begins what `b2sum` says of the JSON, all in hexadecimal:

    LLLLLLLL CCCCCCCC HHHHHHHHHHHHHHHH {json}

    {"kind": "open", "schema": 1, "about": {...}}            the first: what it is a journal of
    {"kind": "sent", "at": .., "n": .., "id": ..}            n images, from image `at` of the cell on, go out now
    {"kind": "refused", "at", "n", "id", "why": ..}          no answer, and none charged
    {"kind": "lost", ...} {"kind": "unusable", ...}          no answer came, or one that is none: charged
    {"kind": "answer", "at", "n", "id", "images": ..,        base64 of 8 bytes an image, and of little-endian numbers
     "dtype": "float32" | "int64", "shape": [n, ..], "answers": ..}

An append that died leaves a torn tail: the beginning of a record, or nothing, and after it at most zero bytes. A writer
cuts it, a reader ends before it. All else that is no record is refused, every single flipped bit of a whole record
among it. What nobody can tell: a file that lost its end, or has zeros there, looks like such an append (so may one bit
flipped in a torn tail, which holds no answer anyway); and no record knows how many there were before it.
"""

import base64
import errno
import fcntl
import json
import math
import os
import re
import threading
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

SCHEMA = 1
NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # of a file system without locks
FINGERPRINT = 8  # bytes an image
Failed = Literal["refused", "lost", "unusable"]
_REQUEST = {"kind": str, "at": int, "n": int, "id": str}
_FIELDS: dict[str, dict[str, type]] = {
    "open": {"kind": str, "schema": int, "about": dict},
    "sent": _REQUEST,
    "refused": {**_REQUEST, "why": str},
    "lost": {**_REQUEST, "why": str},
    "unusable": {**_REQUEST, "why": str},
    "answer": {**_REQUEST, "images": str, "dtype": str, "shape": list, "answers": str},
}
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}
_HEAD = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) [0-9a-f]{16} ")
_BLANK = b"00000000 00000000 0000000000000000 "  # as wide as a head
_WIDTH = len(_BLANK)
_CHECKED = 17  # of which so many are the length and its checksum


class JournalError(ValueError):
    """A journal that cannot be gone on with: one line that says where it is, what is wrong and what to do."""


class Journal:
    """The journal of one cell, held by this process alone until it is closed.

    path: a file in a folder that exists; begun, where it is missing, empty, or died with its first record.
    about: what it is a journal of, any JSON. Raises JournalError where another process holds it, where it is about
    something else, and where it is spoilt; OSError where it cannot be read or written. Threads may share it.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        about = json.loads(json.dumps(about, allow_nan=False))  # as it will be read: tuples are lists there
        self._path = path
        self._turn = threading.Lock()
        self._ats, self._offsets = array("q"), array("q")  # of answers, in the order of `at`: 16 bytes a request
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._hold()
            self._load(about)
        except BaseException:
            self._let_go()
            raise

    def find(self, at: int, fingerprints: bytes) -> Tensor | None:
        """The answer kept for the request that began at image `at`, if it was about these very images.

        fingerprints: 8 bytes an image. The first such answer, as it was given to `keep`, on the CPU; JournalError where
        the file was spoilt since it was opened.
        """
        images = _base64(fingerprints)
        with self._turn:
            self._must_be_open()
            for offset in self._offsets[bisect_left(self._ats, at) : bisect_right(self._ats, at)]:
                entry = self._read(offset)
                if (entry.get("at"), entry.get("images")) == (at, images):
                    return _tensor(entry)
        return None

    def sent(self, at: int, n: int, id: str) -> None:
        """Note that a request goes out now; known even if this process is killed the moment after."""
        self._append({"kind": "sent", "at": at, "n": n, "id": id}, durable=False)

    def failed(self, how: Failed, at: int, n: int, id: str, why: str) -> None:
        """Note that a request got no answer: `refused`, which nobody charges, `lost`, which may be charged, or
        `unusable`, where what came was no answer."""
        self._append({"kind": how, "at": at, "n": n, "id": id, "why": why}, durable=False)

    def keep(self, at: int, fingerprints: bytes, id: str, answers: Tensor) -> None:
        """Put an answer on disk, for good once this returns.

        fingerprints: 8 bytes an image. answers: float32 or int64, the images first. Raises ValueError for others, and
        OSError where the disk does not take it; then it is not kept, and the journal as good as before.
        """
        n, rest = divmod(len(fingerprints), FINGERPRINT)
        if rest or answers.shape[:1] != (n,):
            shape = tuple(answers.shape)
            raise ValueError(f"{len(fingerprints)} bytes for answers of {shape}: wanted {FINGERPRINT} an image")
        entry = {"kind": "answer", "at": at, "n": n, "id": id, "images": _base64(fingerprints)}
        offset = self._append(entry | _numbers(answers), durable=True)
        with self._turn:
            self._index(at, offset)

    def close(self) -> None:
        """Let go of the file; a second time does nothing."""
        with self._turn:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"{self._path}: held by another process; wait for its end, or end it") from error
        except OSError as error:
            if error.errno not in NO_FLOCK:  # without them, whoever opens it must see that nobody else does
                raise

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _load(self, about: dict[str, Any]) -> None:
        """Index what is there, cut a torn tail, and begin what holds nothing."""
        end = 0
        with os.fdopen(self._fd, "rb", buffering=1 << 20, closefd=False) as file:
            for offset, end, entry in _records(file, self._path):  # noqa: B007 (the last end is that of the file)
                if entry["kind"] == "open":
                    _compare(self._path, entry["about"], about)
                elif entry["kind"] == "answer":
                    self._index(entry["at"], offset)
        if os.fstat(self._fd).st_size > end:
            os.ftruncate(self._fd, end)
        if end == 0:
            self._append({"kind": "open", "schema": SCHEMA, "about": about}, durable=False)
        # Also where nothing was changed: whoever wrote it may have been killed before it was on disk.
        os.fsync(self._fd)
        _sync_folder(self._path.parent)

    def _index(self, at: int, offset: int) -> None:
        place = bisect_right(self._ats, at)  # at the end, but for requests that are repeated
        self._ats.insert(place, at)
        self._offsets.insert(place, offset)

    def _read(self, offset: int) -> dict[str, Any]:
        head = os.pread(self._fd, _WIDTH, offset)
        line = head + os.pread(self._fd, _bytes_after(head), offset + _WIDTH)
        if not _is_whole(line):
            raise _spoilt(self._path, offset, _fault(line))
        return _parsed(line, offset, self._path)

    def _append(self, entry: dict[str, Any], *, durable: bool) -> int:
        """Write a record behind all others, whole or not at all; returns its offset."""
        line = _line(_content(entry))
        with self._turn:
            self._must_be_open()
            offset = os.lseek(self._fd, 0, os.SEEK_END)
            try:
                _write(self._fd, line)
            except BaseException:
                self._cut(offset)
                raise
            try:
                if durable:
                    os.fsync(self._fd)
            except OSError:  # and no more: after Ctrl-C the record, which is whole and paid, stays
                self._cut(offset)
                raise
        return offset

    def _cut(self, end: int) -> None:
        """Undo an append that failed; where that fails too, write nothing behind it: the next opening cuts it."""
        try:
            os.ftruncate(self._fd, end)
        except OSError:
            self._let_go()

    def _must_be_open(self) -> None:
        if self._fd < 0:
            raise JournalError(f"{self._path}: closed, by its owner or by an append that failed; open it again")


@dataclass(frozen=True)
class Counts:
    """What a journal says of a cell, all images except `attempts`.

    answered: got an answer that was kept. distinct: different ones among those. attempts: requests sent. lost, refused,
    unusable: got no answer, as `Journal.failed` has it. in_doubt: sent, and nothing is known of what became of them.
    """

    answered: int
    distinct: int
    attempts: int
    lost: int
    refused: int
    unusable: int
    in_doubt: int

    @property
    def charged(self) -> int:
        """Images that may stand on the bill."""
        return self.answered + self.lost + self.unusable + self.in_doubt


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal, the first included, also while somebody writes it; changes nothing and takes no lock.

    Raises JournalError where it comes to something that is no record, and OSError where there is no file.
    """
    with path.open("rb") as file:
        for _, _, entry in _records(file, path):
            yield entry


def count(path: Path) -> Counts:
    """All counts of a journal, from the file alone; raises as `entries` does.

    An answer or a failure ends the doubt about one request of its place, size and id, so that of two that were sent
    under one id one stays in doubt.
    """
    images: Counter[str] = Counter()
    distinct: set[int] = set()
    pending: Counter[tuple[int, int, str]] = Counter()
    attempts = 0
    for entry in entries(path):
        if entry["kind"] == "open":
            continue
        images[entry["kind"]] += entry["n"]
        attempts += entry["kind"] == "sent"
        _follow(pending, entry)
        if entry["kind"] == "answer":
            distinct.update(np.frombuffer(base64.b64decode(entry["images"]), dtype=np.int64).tolist())
    in_doubt = sum(n * times for (_, n, _), times in pending.items())
    failures = images["lost"], images["refused"], images["unusable"]
    return Counts(images["answer"], len(distinct), attempts, *failures, in_doubt)


def _follow(pending: Counter[tuple[int, int, str]], entry: dict[str, Any]) -> None:
    """Count a request that went out among those pending, or one less where it came to an end."""
    request = entry["at"], entry["n"], entry["id"]
    if entry["kind"] == "sent":
        pending[request] += 1
    elif pending[request] > 1:
        pending[request] -= 1
    else:
        pending.pop(request, None)


def _records(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Each record with its offset and that of its end, up to a torn tail; JournalError for what is neither."""
    offset = 0
    while head := file.read(_WIDTH):
        line = head + file.read(_bytes_after(head))
        if not _is_whole(line):
            if _is_torn(line) and (not line.endswith(b"\0") or _only_zeros(file)):
                return
            raise _spoilt(path, offset, _fault(line))
        yield offset, offset + len(line), _parsed(line, offset, path)
        offset += len(line)


def _line(content: bytes) -> bytes:
    """A whole record of that JSON."""
    length = b"%08x" % len(content)
    return b"%s %s %s %s\n" % (length, _crc(length), blake2b(content).hexdigest()[:16].encode(), content)


def _is_whole(line: bytes) -> bool:
    return line == _line(line[_WIDTH:-1])


def _is_torn(part: bytes) -> bool:
    """Whether the bytes, zeros at their end apart, are less than a record and could have become one."""
    part = part.rstrip(b"\0")
    head = (part + _BLANK[len(part) :])[:_WIDTH]
    if len(part) < _CHECKED:
        return _HEAD.fullmatch(head) is not None
    after = _bytes_after(head)
    # A record has one newline, at its end: behind one that comes early, bytes are missing in the middle.
    return after > 0 and len(part) < _WIDTH + after and b"\n" not in part


def _only_zeros(file: IO[bytes]) -> bool:
    """Whether nothing else follows in the file."""
    return not any(part.strip(b"\0") for part in iter(lambda: file.read(1 << 20), b""))


def _bytes_after(head: bytes) -> int:
    """How many bytes of the record follow its head, the newline among them; 0 after what is no head."""
    match = _HEAD.fullmatch(head)
    return int(match[1], 16) + 1 if match and match[2] == _crc(match[1]) else 0


def _crc(length: bytes) -> bytes:
    return b"%08x" % zlib.crc32(length)


def _fault(line: bytes) -> str:
    if not _bytes_after(line[:_WIDTH]):
        return "no head of a record"
    return "a record unlike its checksum" if line.endswith(b"\n") else "a record that does not end where it says"


def _spoilt(path: Path, offset: int, what: str) -> JournalError:
    return JournalError(
        f"{path}: byte {offset}: {what}; put back a copy of the file, or cut it there (truncate -s {offset}), "
        "and what followed is lost and paid again"
    )


def _parsed(line: bytes, offset: int, path: Path) -> dict[str, Any]:
    """What a whole record says; JournalError for what this code never wrote there."""
    try:
        entry = json.loads(line[_WIDTH:-1])
    except (ValueError, RecursionError):
        entry = None
    if not _is_entry(entry) or (entry["kind"] == "open") != (offset == 0):
        raise _spoilt(path, offset, "another record than belongs there")
    if entry["kind"] == "open" and entry["schema"] != SCHEMA:
        raise JournalError(f"{path}: schema {entry['schema']}, this code reads {SCHEMA}; use the code that wrote it")
    found: dict[str, Any] = entry
    return found


def _content(entry: dict[str, Any]) -> bytes:
    """A record as JSON in ASCII, so that any text fits and no byte of it is a newline or zero; ValueError for what
    could not be read back."""
    if not _is_entry(entry):
        raise ValueError(f"a record {str(entry)[:80]}: wanted a known kind, at of 0 or more, n and shape of 1 or more")
    return json.dumps(entry).encode("ascii")


def _is_entry(entry: Any) -> bool:
    """Whether it has the fields of its kind, and they fit each other."""
    if not isinstance(entry, dict):
        return False
    if {name: type(value) for name, value in entry.items()} != _FIELDS.get(str(entry.get("kind"))):
        return False
    if entry["kind"] == "open":
        return True
    if not (0 <= entry["at"] < 2**63 and entry["n"] >= 1):
        return False
    return entry["kind"] != "answer" or _is_answer(entry)


def _is_answer(entry: dict[str, Any]) -> bool:
    dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
    if not dtype or shape[:1] != [entry["n"]] or not all(type(side) is int and side > 0 for side in shape):
        return False
    sizes = [FINGERPRINT * entry["n"], dtype.itemsize * math.prod(shape)]
    return [_size(entry["images"]), _size(entry["answers"])] == sizes


def _numbers(answers: Tensor) -> dict[str, Any]:
    """The fields of a record that hold a tensor."""
    name = str(answers.dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"answers of {name}: wanted {' or '.join(_DTYPES)}")
    numbers = answers.detach().cpu().numpy().astype(_DTYPES[name])
    return {"dtype": name, "shape": list(answers.shape), "answers": _base64(numbers.tobytes())}


def _tensor(entry: dict[str, Any]) -> Tensor:
    dtype = _DTYPES[entry["dtype"]]
    numbers = np.frombuffer(base64.b64decode(entry["answers"]), dtype)
    return torch.from_numpy(numbers.astype(dtype.newbyteorder("=")).reshape(entry["shape"]))


def _size(text: str) -> int:
    """How many bytes the base64 holds."""
    return len(text) // 4 * 3 - text[-2:].count("=")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _compare(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """JournalError where a journal is about something else."""
    keys = sorted(key for key in there.keys() | here.keys() if _canonical(there, key) != _canonical(here, key))
    if keys:
        differing = ", ".join(repr(key) for key in keys)
        raise JournalError(f"{path}: of something else, by {differing}; go back to that, or move the file away")


def _canonical(about: dict[str, Any], key: str) -> str | None:
    """A value so that True is not 1, or nothing where there is none."""
    return json.dumps(about[key], sort_keys=True) if key in about else None


def _write(fd: int, line: bytes) -> None:
    """Write it all, at once unless the disk fills up on the way: then writing the rest says so."""
    written = os.write(fd, line)
    while written < len(line):
        written += os.write(fd, line[written:])


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, without which a file may be there and not be found."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
