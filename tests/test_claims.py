"""Claims: of all processes on all machines one holds a folder, whatever others do between any two of its steps."""

import fcntl
import io
import math
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from elsewhere import FLOCKS, pretend
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from results import claims
from results.claims import STALE, Busy, Claim, Robbed, is_held, lock
from results.store import read_json, state_of, write_json

ACTORS = 3
STEPPED = ((io, "open"), (os, "listdir"), (os, "scandir"), (os, "unlink"), (os, "utime"))
FORK = multiprocessing.get_context("fork")
HOUR = 3600.0
LOOKS = 5  # within which whoever tries again and again has a dead process's folder


class Killed(BaseException):
    """SIGKILL, as far as files can tell: nothing that the process does afterwards reaches them."""


class Actor:
    """A process on a machine of its own, stopped before each thing that it asks of the file system.

    Its life: `begin` to take the folder, `step` after `step` until it has it or not, and from there to let it go.
    """

    here = threading.local()

    def __init__(self, folder: Path, skew: float) -> None:
        self.watch, self.skew, self.sign = claims._Watch(), skew, 0.0
        self.claim: Claim | None = None  # while it takes itself for the holder
        self._folder, self._killed = folder, False
        self._held: AbstractContextManager[Claim] | None = None
        self._fault: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    def pause(self) -> None:
        """Where a step ends and the next one begins, seen from inside."""
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def step(self, most: float = 1) -> None:
        """Go on by so many steps, or to the end of what it is at, if it is at anything, or else of what comes next."""
        if self._thread is None:
            target = self._let_go if self._held else self._take
            self.claim = None
            self._thread = threading.Thread(target=self._live, args=(target,))
            self._thread.start()
            self._stopped.acquire()  # before its first step
        while self._thread and most > 0:
            most -= 1
            self._go.release()
            self._stopped.acquire()
        if self._fault:
            raise self._fault

    def finish(self) -> None:
        """Go on to the end of that."""
        self.step(math.inf)

    def kill(self) -> None:
        self._killed = True
        if self._thread:
            self.finish()

    def _live(self, target: Callable[[], None]) -> None:
        Actor.here.actor = self
        try:
            target()
        except Killed:
            pass
        except BaseException as error:
            self._fault = error
        self._thread = None
        self._stopped.release()

    def _take(self) -> None:
        held, self.sign = lock(self._folder), time.monotonic()
        with suppress(Busy):
            self.claim = held.__enter__()
            self._held = held

    def _let_go(self) -> None:
        assert self._held
        held, self._held = self._held, None
        held.__exit__(None, None, None)


def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
    """An operation before which an actor stops; and once more between making a file and writing it."""

    def operation(*arguments: Any, **named: Any) -> Any:
        actor: Actor | None = getattr(Actor.here, "actor", None)
        if actor is None:
            return real(*arguments, **named)
        actor.pause()
        result = real(*arguments, **named)
        if "x" in arguments[1:2]:
            try:
                actor.pause()
            except Killed:
                result.close()
                raise
        return result

    return operation


class World:
    """One folder without flocks, a clock, and the actors."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 1e6
        self.actors = [self.born(number) for number in range(ACTORS)]

    def born(self, number: int) -> Actor:
        return Actor(self.folder, (number - 1) * HOUR)

    def do(self, number: int, action: str | int) -> None:
        actor = self.actors[number]
        if action == "beat":
            if actor.claim:
                with suppress(FileNotFoundError):
                    os.utime(actor.claim.file, (self.now + actor.skew,) * 2)
                    actor.sign = self.now
        elif action == "die":
            actor.kill()
            self.actors[number] = self.born(number)
        elif action == "insist":
            self.insist(actor)
        elif action == "come and go":
            for _ in range(5):
                actor.finish()
        else:
            actor.step(int(action))

    def insist(self, actor: Actor) -> None:
        """Let it try until it has the folder."""
        for _ in range(LOOKS):
            if not actor.claim:
                actor.finish()
                self.now += STALE / 2

    def holders(self) -> list[Actor]:
        """Those who take themselves for the holder and find it confirmed. Who does not was silent for long enough."""
        found = []
        for actor in self.actors:
            try:
                if actor.claim:
                    actor.claim.check()
                    found.append(actor)
            except Robbed:
                assert self.now - actor.sign >= STALE
        return found


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        for module, name in STEPPED:
            patch.setattr(module, name, stepping(getattr(module, name)))
        made = World(Path(place) / "cell")
        patch.setattr(fcntl, "flock", FLOCKS["none"])
        patch.setattr(claims._Heart, "start", lambda _: None)
        patch.setattr(claims, "_watch", _Own())
        patch.setattr(claims.time, "monotonic", lambda: made.now)
        try:
            yield made
        finally:
            for actor in made.actors:
                actor.kill()


class _Own:
    """Each actor's own memory of what it has met."""

    def __getattr__(self, name: str) -> Any:
        return getattr(Actor.here.actor.watch, name)


# Uniform steps hardly ever lead anywhere: so a process may also go on for some, and others come and go meanwhile.
actions = st.sampled_from([*range(1, 7), "come and go", "come and go", "insist", "insist", "beat", "die"])


@settings(deadline=None, derandomize=True, max_examples=150, phases=[Phase.generate])
@given(events=st.lists(st.tuples(st.integers(0, ACTORS - 1), actions), min_size=60, max_size=80))
def test_at_no_moment_do_two_processes_hold_a_folder_and_in_the_end_it_can_be_had(
    events: list[tuple[int, str | int]],
) -> None:
    with world() as made:
        for event in events:
            made.do(*event)
            assert len(made.holders()) <= 1
        for number in range(ACTORS):
            made.do(number, "die")
        made.insist(made.actors[0])
        assert made.holders() == [made.actors[0]], "what the dead have left is free in time"


def _hold(folder: Path, said: Connection, flock: str, ahead: float) -> None:
    """Hold the folder on a machine whose clock is so many seconds ahead, and there as long as `said` is open."""
    pretend("another machine", flock, 1.0)
    touch = os.utime
    claims.os.utime = lambda path: touch(path, (time.time() + ahead,) * 2)  # type: ignore[assignment,misc]
    with lock(folder):
        said.send("held")
        time.sleep(60)


@contextmanager
def holder(folder: Path, flock: str, ahead: float = 0.0) -> Iterator[Any]:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold, args=(folder, theirs, flock, ahead))
    process.start()
    try:
        assert ours.poll(20)
        assert ours.recv() == "held"
        yield process
    finally:
        process.kill()
        process.join()


def had_within(folder: Path, seconds: float) -> bool:
    """Whether the folder can be had by trying again and again for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(Busy), lock(folder):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is on a machine of its own, and has little patience."""
    monkeypatch.setattr(claims, "_kernel", lambda: "this machine")
    monkeypatch.setattr(claims, "STALE", 2.0)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("flock", "ahead"), [("local", 0.0), ("none", -HOUR), ("none", HOUR)])
def test_who_lives_on_another_machine_keeps_its_folder_and_who_died_there_loses_it_whatever_their_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: str, ahead: float
) -> None:
    monkeypatch.setattr(fcntl, "flock", FLOCKS[flock])
    with holder(tmp_path, flock, ahead) as process:
        assert not had_within(tmp_path, 4.0)
        process.kill()
        assert had_within(tmp_path, 20.0)


def test_where_the_flock_means_something_a_claim_of_a_dead_process_of_this_machine_is_free_at_once(
    tmp_path: Path,
) -> None:
    with lock(tmp_path) as claim:
        left = claim.text
    with lock(tmp_path) as claim:
        pass
    claim.file.write_text(left)  # as if it had been killed
    with lock(tmp_path) as taken:
        assert taken.number == claim.number + 1


def test_a_claim_of_another_mount_or_machine_is_no_dead_process_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock(tmp_path) as claim:
        pass
    claim.file.write_text(claim.text)
    monkeypatch.setattr(claims, "_machine", lambda _: "this kernel, another mount")
    with pytest.raises(Busy), lock(tmp_path):
        pass


def test_a_gap_between_two_looks_is_no_proof_of_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    found = claims._Found(3, touched=1)
    watch = claims._Watch()
    for moment, seconds in ((0.0, 0.0), (10.0, 10.0), (10 * HOUR, 10.0 + STALE / 2), (11 * HOUR, 10.0 + STALE)):
        now[0] = moment
        assert watch.seconds(tmp_path, found) == seconds
    assert watch.seconds(tmp_path, claims._Found(3, touched=2)) == 0.0


def test_what_is_held_is_touched_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(claims, "_heart", claims._Heart())
    with lock(tmp_path / "one") as one, lock(tmp_path / "two") as two:
        seen = [{claim.file.stat().st_mtime_ns for _ in range(40) if not time.sleep(0.02)} for claim in (one, two)]
    assert all(len(times) > 3 for times in seen)


def _hold_on(folder: Path) -> None:
    with lock(folder):
        time.sleep(20)


def _fork_and_die(folder: Path, number: Any) -> None:
    """Leave a child that gives signs of life, though not for what its parent held."""
    claims.BEAT = 0.05
    fcntl.flock = FLOCKS["none"]  # a forked process shares the flocks, as ever
    with lock(folder / "parent's"):
        child = FORK.Process(target=_hold_on, args=(folder / "child's",))
        child.start()
        number.value = child.pid
        while not is_held(folder / "child's"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_forked_process_gives_no_signs_of_life_for_its_dead_parent(tmp_path: Path) -> None:
    number = FORK.Value("i", 0)
    parent = FORK.Process(target=_fork_and_die, args=(tmp_path, number))
    parent.start()
    parent.join()
    assert number.value
    try:
        files = [tmp_path / name / "claim.1" for name in ("parent's", "child's")]
        before = [file.stat().st_mtime_ns for file in files]
        time.sleep(0.5)
        assert [file.stat().st_mtime_ns == was for file, was in zip(files, before, strict=True)] == [True, False]
    finally:
        os.kill(number.value, signal.SIGKILL)


def rob(claim: Claim) -> None:
    """As a process does that has seen no sign of life of its holder."""
    (claim.folder / f"claim.{claim.number + 1}").write_text("{}\n")
    claim.file.unlink()


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may be larger, in bytes: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


def test_a_full_disk_leaves_no_claim_that_others_would_wait_for(tmp_path: Path) -> None:
    with lock(tmp_path):
        pass
    with at_most(0), pytest.raises(OSError, match="File too large"), lock(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "claim.1"}
    with lock(tmp_path) as claim:
        assert claim.number == 2


def test_who_was_robbed_writes_nothing_in_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cells" / "cell"
    with lock(folder) as claim:
        write_json(folder / "curve.json", [1])
        rob(claim)
        with pytest.raises(Robbed, match="cell was taken over"):
            claim.check()
        with pytest.raises(Robbed):
            write_json(folder / "curve.json", [1, 2])
        with pytest.raises(Robbed):
            write_json(folder / "deeper" / "curve.json", [1, 2])
        write_json(tmp_path / "cells" / "cell-2" / "curve.json", [3])
    assert read_json(folder / "curve.json") == [1]
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"lock", "claim.2", "curve.json"}
    assert (folder / "claim.2").read_text() == "{}\n", "what is another's is not let go"
    write_json(folder / "curve.json", [4])  # holding nothing, as ever


def test_a_folder_that_was_deleted_meanwhile_is_held_no_more(tmp_path: Path) -> None:
    with lock(tmp_path / "cell") as claim:
        shutil.rmtree(tmp_path / "cell")
        with pytest.raises(Robbed):
            claim.check()
        with lock(tmp_path / "cell") as new:
            assert new.number == claim.number
            new.check()
            with pytest.raises(Robbed):
                claim.check()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"token": 1'])
def test_a_claim_that_nobody_can_read_is_somebodys_until_it_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "claim.7").write_bytes(content)
    with pytest.raises(Busy), lock(tmp_path):
        pass
    monkeypatch.setattr(claims, "STALE", 0.5)
    assert had_within(tmp_path, 20.0)


@pytest.mark.usefixtures("here")
def test_one_look_tells_what_runs_on_another_machine_from_what_died_there(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    with holder(folder, "local"):
        assert is_held(folder)
        assert state_of(folder, None).name == "running"
    with lock(tmp_path / "own"):
        assert is_held(tmp_path / "own")
    assert not is_held(tmp_path / "own")
    assert not is_held(tmp_path / "nobody's")
    os.utime(folder / "claim.1", (time.time() - 10,) * 2)
    assert not is_held(folder)
    assert state_of(folder, None).name == "to do"


def _look(folder: Path, said: Connection) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)  # root may write wherever it likes
    claims._kernel = lambda: "this machine"  # type: ignore[assignment]
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
    said.send(
        (state_of(folder, None).name, before == {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())})
    )


def test_a_state_can_be_read_where_nothing_may_be_written() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder, (ours, theirs) = Path(place) / "cell", FORK.Pipe()
        with holder(folder, "local"):
            (folder / "lock").chmod(0o444)
            folder.chmod(0o555)
            looking = FORK.Process(target=_look, args=(folder, theirs))
            looking.start()
            assert ours.poll(20)
            assert ours.recv() == ("running", True)
            looking.join()
            folder.chmod(0o755)
