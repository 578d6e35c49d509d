"""One process per job on this machine, in slots: CPU cores, or shares of GPUs."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bench.executors.jobs import Event, Job

# Imported once and then shared by all processes: what would cost each of them seconds.
PRELOAD = ["bench.executors.jobs", "torchvision.datasets", "sklearn.datasets"]
GRACE = 10.0  # seconds that a job has to save its work when it is told to end
ATTEMPTS = 2  # a job whose process was killed is tried again so often in all
BUSY = 1.0  # seconds until a job that another process is at is tried again
PACE = 0.25  # seconds between two reports of a process: more would only fill the pipe


@dataclass(frozen=True)
class Slot:
    """Room for one process. device: a torch device. threads: how many it may use on the CPU."""

    device: str
    threads: int


@dataclass
class _Running:
    job: Job
    slot: Slot
    process: BaseProcess
    heard: float  # when it last said something
    silent: bool = False  # whether it was ended for saying nothing


def slots(jobs: int | None, gpus: list[int], per_gpu: int, threads: int = 1) -> list[Slot]:
    """`per_gpu` slots on each of the GPUs, or without a GPU `jobs` slots (default one a core), of so many threads each.

    One thread, unless asked otherwise: a sum over two threads rounds differently, so that a result would depend on
    how many cores there are.
    """
    devices = [f"cuda:{gpu}" for _ in range(per_gpu) for gpu in gpus]
    return [Slot(device, threads) for device in devices or ["cpu"] * (jobs or cores())]


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(jobs: Iterable[Job], slots: list[Slot], silence: float | None = None) -> Generator[Event | None]:
    """Run the jobs, one process each, never more at once than there are slots.

    A job that raises is a `failed` event, likewise one whose process dies again and again; the others go on. A job that
    another process is at waits until that one has let it go. None says that a second has passed without news. silence:
    seconds after which a process that reports nothing is ended. Closing the iterator ends the processes that still run:
    those that can save their work are given the time to.
    """
    executor = _Executor(list(jobs), slots, silence)
    try:
        yield from executor.events()
    finally:
        executor.close()


class _Executor:
    """The queue, the slots and the processes of one `execute`."""

    def __init__(self, jobs: list[Job], slots: list[Slot], silence: float | None) -> None:
        self._waiting, self._free, self._silence = deque(jobs), list(reversed(slots)), silence
        self._busy: dict[str, float] = {}  # key -> when to try again
        self._attempts: dict[str, int] = {}
        self._running: dict[Connection, _Running] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def events(self) -> Generator[Event | None]:
        while self._waiting or self._running:
            while self._free and (job := self._next()):
                yield self._start(job, self._free.pop())
            ready = wait(self._running, timeout=1.0)
            for connection in ready:
                assert isinstance(connection, Connection)
                yield self._heard(connection)
            self._end_the_silent()
            if not ready:
                yield None

    def close(self) -> None:
        """End what still runs; a second interruption kills at once."""
        try:
            for running in self._running.values():
                running.process.terminate()
            until = time.monotonic() + GRACE
            for running in self._running.values():
                running.process.join(max(0.0, until - time.monotonic()))
        finally:
            for running in self._running.values():
                running.process.kill()
                running.process.join()

    def _next(self) -> Job | None:
        """The next job that nobody else is at, as far as is known."""
        now = time.monotonic()
        for job in self._waiting:
            if self._busy.get(job.key, 0.0) <= now:
                self._waiting.remove(job)
                return job
        return None

    def _start(self, job: Job, slot: Slot) -> Event:
        ours, theirs = self._context.Pipe(duplex=False)
        # No daemon: a method may have processes of its own, such as those of a DataLoader.
        process: BaseProcess = self._context.Process(target=_work, args=(job, slot, theirs))
        process.start()
        theirs.close()
        self._running[ours] = _Running(job, slot, process, time.monotonic())
        return Event(job, "started")

    def _heard(self, connection: Connection) -> Event:
        """What a process says; its slot is free again after its last word."""
        running = self._running[connection]
        running.heard = time.monotonic()
        try:
            kind, detail = connection.recv()
        except (EOFError, OSError):  # the process is gone without a last word
            running.process.join()
            kind, detail = self._died(running)
        if kind not in {"progress", "said"}:
            running.process.join()
            connection.close()
            del self._running[connection]
            self._free.append(running.slot)
            if kind in {"busy", "again"}:
                self._busy[running.job.key] = time.monotonic() + (BUSY if kind == "busy" else 0.0)
                self._waiting.append(running.job)
        return Event(running.job, kind, detail)

    def _died(self, running: _Running) -> tuple[str, str]:
        code = running.process.exitcode or 0
        if running.silent:
            return "failed", f"it reported nothing for {self._silence:g} seconds"
        if code >= 0:
            return "failed", f"its process exited with {code}"
        reason = f"its process was killed by {signal.Signals(-code).name}"
        attempts = self._attempts[running.job.key] = self._attempts.get(running.job.key, 1) + 1
        return ("again" if attempts <= ATTEMPTS else "failed"), reason

    def _end_the_silent(self) -> None:
        for running in self._running.values() if self._silence else ():
            if time.monotonic() - running.heard > (self._silence or 0.0):
                running.silent = True
                running.process.kill()


class Voice:
    """A job's report: what it says goes to the parent, and what the parent wants ends it between two rounds."""

    def __init__(self, connection: Connection, ending: threading.Event) -> None:
        self._connection, self._ending = connection, ending
        self._next = 0.0

    def __call__(self, done: float, figures: dict[str, float] | None = None) -> None:
        from bench.cells.run import Interrupted

        if self._ending.is_set():
            raise Interrupted
        if time.monotonic() >= self._next:
            self.send("progress", (done, figures or {}))
            self._next = time.monotonic() + PACE

    def say(self, line: str) -> None:
        self.send("said", line)

    def send(self, kind: str, detail: Any = None) -> None:
        """Tell the parent; one that is gone wants the job to end."""
        try:
            self._connection.send((kind, detail))
        except OSError:
            self._ending.set()


def _work(job: Job, slot: Slot, connection: Connection) -> None:
    """The life of a process: one job."""
    import torch

    from bench.cells.run import Interrupted
    from bench.provenance import set_precision
    from results.store import Busy

    voice = Voice(connection, _told_to_end(job.saves))
    torch.set_num_threads(slot.threads)
    set_precision()
    device = torch.device(slot.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        job.function(*job.arguments, device, voice)
    except Interrupted:
        voice.send("again", "it was told to end")
    except Busy:
        voice.send("busy")
    except Exception as error:
        voice.send("failed", str(error) or type(error).__name__)
    else:
        voice.send("done")


def _told_to_end(saves: bool) -> threading.Event:
    """Set when the process is to end: on a signal, or when its parent is gone. It has GRACE to save its work then."""
    ending = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, (lambda *_: ending.set()) if saves else signal.SIG_DFL)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent
        parent.join()
        ending.set()
        time.sleep(GRACE if saves else 0.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return ending
