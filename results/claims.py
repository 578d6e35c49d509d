"""Who works in a folder: one process at a time, of all on all machines that share it.

FOLDER/lock      flocked by the holder, where the file system has that: a process that dies lets go at once
       claim.N   of the Nth holder, who touches it every BEAT seconds; only the one of the highest N counts

Between machines a flock may mean nothing (Lustre with localflock, NFS with local_lock) or be refused, so claims decide:

1. A claim is free when it says that it was released; when its holder is dead, which the flock tells on one machine;
   or when nobody touched it for STALE seconds in which this process watched. No clocks of two machines are compared.
2. A folder is taken by making claim.N+1, which of all who try one can. A holder's claim stays, released or not, until
   there is a holder of a higher one. So whoever has made N+1 and then sees none above it knows that nobody has held the
   folder since claim N, however long ago it found that free; and who sees one gives up and removes its own.
3. Who has made it removes all claims below, and only then takes itself for the holder. So a process that slept and
   finds its claim is not robbed, and one that is robbed finds none.

What is not safe: a process that sleeps for more than STALE just between `check` and what it does next, such as a
rename, still does that one thing. And whoever deletes a folder with the claims in it must know that nobody is at it.
"""

import errno
import fcntl
import functools
import json
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BEAT = 15.0  # seconds between two signs of life
STALE = 120.0  # seconds without one: two of NFS's caches of attributes, which last 60 s
PATIENCE = 0.2  # seconds in which a flock may be held by someone who only looks
LONGEST_WAIT = 1.0  # seconds until a process that waits looks again
NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
GONE = {errno.ENOENT, errno.ESTALE}  # the second is how NFS may have it
PREFIX, RELEASED = "claim.", "released\n"


class Busy(Exception):
    """Another process works in this folder."""


class Robbed(Busy):
    """This process slept for so long that another one has taken its folder over: it must write nothing more there."""


@dataclass(frozen=True)
class Claim:
    """A folder that this process holds. text: of the file, a line that no other claim has."""

    folder: Path
    number: int
    text: str

    @property
    def file(self) -> Path:
        return self.folder / f"{PREFIX}{self.number}"

    def check(self) -> None:
        """Robbed if the folder is another's by now; to be asked before whatever only a holder may do."""
        try:
            kept = self.file.read_text(errors="replace")  # opened by its name, which asks the file server
        except OSError as error:
            if error.errno not in GONE:
                raise
            kept = ""
        if kept != self.text:
            raise Robbed(f"{self.folder.name} was taken over by another process, since this one slept too long")

    def release(self) -> None:
        """Let others take the folder at once; a claim that is gone stays so."""
        with suppress(OSError, Robbed):
            self.check()
            with self.file.open("r+") as file:
                file.seek(0, os.SEEK_END)
                file.write(RELEASED)


@contextmanager
def lock(folder: Path) -> Iterator[Claim]:
    """Hold the folder for this process; raises Busy if another holds it.

    A dead process of this machine holds nothing; one of another machine, or where there is no flock, until this process
    has met its claim untouched for STALE seconds: by further calls, of which none counts for more than half of that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        claim = _take(folder.absolute(), _machine(file) if _flock_patiently(file) else None)
        _heart.claims.add(claim)
        try:
            _heart.start()
            yield claim
        finally:
            _heart.claims.discard(claim)
            claim.release()


@contextmanager
def wait_for(folder: Path) -> Iterator[Claim]:
    """Hold the folder, once whoever holds it lets it go."""
    begun = time.monotonic()
    while True:
        with ExitStack() as held:
            try:
                claim = held.enter_context(lock(folder))
            except Busy:
                time.sleep(min(LONGEST_WAIT, 0.05 + (time.monotonic() - begun) / 10))
                continue
            yield claim
            return


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder, this one apart from others or not.

    Of another machine's, one look can only compare when its claim was touched with a touch of its own or, where it may
    not write, with this machine's clock. So it may be wrong where clocks differ, which harms nothing: `lock` decides.
    """
    try:
        with (folder / "lock").open() as file:
            flocked = _flock(file, fcntl.LOCK_SH)
            found = _highest(folder) if flocked is not False else None
            if flocked is False or found is None or found.released:
                return flocked is False
            return not (flocked and found.machine == _machine(file)) and _age(folder, found) < STALE
    except FileNotFoundError:
        return False


def guard(path: Path) -> None:
    """Robbed where the path lies in a folder of which this process has been robbed; all is well with any other."""
    place = path.absolute()
    for claim in list(_heart.claims):
        if place.is_relative_to(claim.folder):
            claim.check()


@dataclass(frozen=True)
class _Found:
    """A claim as it is on disk. touched: its mtime in ns, None where it was gone when it was opened. machine: of its
    holder, None where that has no flock on the folder or is unknown."""

    number: int
    touched: int | None
    released: bool = False
    machine: str | None = None


def _take(folder: Path, machine: str | None) -> Claim:
    """The next claim on the folder; Busy where it is not to be had. machine: ours, if we have the flock."""
    found = _highest(folder)
    dead = found and machine and found.machine == machine
    if found and not found.released and not dead and _watch.seconds(folder, found) < STALE:
        raise Busy(folder.name)
    about = {"token": secrets.token_hex(8), "host": socket.gethostname(), "machine": machine}
    claim = Claim(folder, found.number + 1 if found else 1, json.dumps(about) + "\n")
    _make(claim)
    numbers = _numbers(folder)
    if max(numbers) > claim.number:  # ours is of a number that was used up long ago
        claim.file.unlink(missing_ok=True)
        raise Busy(folder.name)
    for number in numbers - {claim.number}:
        (folder / f"{PREFIX}{number}").unlink(missing_ok=True)
    _watch.forget(folder)
    return claim


def _make(claim: Claim) -> None:
    """Write the claim; Busy where there is one of that number."""
    try:
        file = claim.file.open("x")
    except FileExistsError as error:
        _look_afresh(claim.folder)
        raise Busy(claim.folder.name) from error
    try:
        with file:
            file.write(claim.text)
    except BaseException:  # of a full disk
        claim.file.unlink()
        raise


def _numbers(folder: Path) -> set[int]:
    names = (path.name.removeprefix(PREFIX) for path in folder.iterdir() if path.name.startswith(PREFIX))
    return {int(name) for name in names if name.isdecimal()}


def _highest(folder: Path) -> _Found | None:
    """The claim that counts. One that cannot be read, for it is about to be written or was cut off, is someone's."""
    number = max(_numbers(folder), default=None)
    if number is None:
        return None
    try:
        with (folder / f"{PREFIX}{number}").open(errors="replace") as file:
            # Of a file that was just opened, NFS asks the server when it was touched.
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        if error.errno not in GONE:
            raise
        _look_afresh(folder)
        return _Found(number, None)
    line, _, rest = text.partition("\n")
    about: Any = None
    with suppress(ValueError):
        about = json.loads(line)
    return _Found(number, touched, bool(rest), about.get("machine") if isinstance(about, dict) else None)


def _look_afresh(folder: Path) -> None:
    """Make NFS forget what it remembers of the folder, for up to a minute: it is not as it was listed."""
    with suppress(OSError):
        os.utime(folder)


def _age(folder: Path, found: _Found) -> float:
    """Seconds since a claim was touched, by the file server's clock where that can be had; 0 where it has just gone."""
    if found.touched is None:
        return 0.0
    now = time.time()
    with suppress(OSError):
        os.utime(folder / "lock")
        now = (folder / "lock").stat().st_mtime
    return now - found.touched / 1e9


class _Watch:
    """For how long this process has met a claim untouched, by its own clock."""

    def __init__(self) -> None:
        self._met: dict[Path, tuple[_Found, float, float]] = {}  # the claim, when it was last met, seconds untouched

    def seconds(self, folder: Path, found: _Found) -> float:
        """Meet the claim; a gap between two looks, in which the file server may have slept, counts for half at most."""
        now = time.monotonic()
        before, last, seconds = self._met.get(folder, (None, now, 0.0))
        seconds = seconds + min(now - last, STALE / 2) if before == found else 0.0
        self._met[folder] = (found, now, seconds)
        return seconds

    def forget(self, folder: Path) -> None:
        self._met.pop(folder, None)


class _Heart:
    """The thread that touches what this process holds."""

    def __init__(self) -> None:
        self.claims: set[Claim] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beat from now on, if it does not yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """What a process holds, one that is forked from it does not."""
        self.claims, self._thread = set(), None

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            for claim in list(self.claims):
                with suppress(OSError):  # it is gone, which `check` tells whoever asks
                    os.utime(claim.file)


_watch, _heart = _Watch(), _Heart()
os.register_at_fork(after_in_child=_heart.stop)


def _flock(file: IO[str], kind: int) -> bool | None:
    """Whether the file could be flocked; None where the file system has no flock."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return None
    return True


def _flock_patiently(file: IO[str]) -> bool:
    """Whether there is a flock, which is ours now; Busy where it is another's."""
    until = time.monotonic() + PATIENCE
    while (flocked := _flock(file, fcntl.LOCK_EX)) is False:
        if time.monotonic() > until:
            raise Busy(Path(file.name).parent.name)
        time.sleep(0.02)
    return bool(flocked)


def _machine(file: IO[str]) -> str:
    """What processes have in common whose flocks on this file are seen by each other: the kernel that was booted, and
    the mount, since containers of one kernel may mount a folder each for itself."""
    return f"{_kernel()} {os.fstat(file.fileno()).st_dev}"


@functools.cache
def _kernel() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode():x}"
