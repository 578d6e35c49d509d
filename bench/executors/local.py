"""Jobs on this machine, in slots: CPU cores, or shares of GPUs. A slot has a process that does one job after another.

A process that starts anew pays for its imports, its data and, on a GPU, its context, and that takes longer than a small
cell. One is not used again whose job has failed, has run code of a user's own, or has changed what the process shares.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from bench.executors.jobs import Event, Job, More, do, nothing_more
from bench.executors.queue import Queue

if TYPE_CHECKING:
    import torch

# Imported once and then shared by all processes: what would cost each of them seconds.
PRELOAD = ["bench.executors.jobs", "torchvision.datasets", "sklearn.datasets"]
GRACE = 10.0  # seconds that a job has to save its work when it is told to end
LEAVES = "leaves"  # what a process says with its last word, if it does no other job
PACE = 0.25  # seconds between two reports of a process: more would only fill the pipe


@dataclass(frozen=True)
class Slot:
    """Room for one process. device: a torch device. threads: how many it may use on the CPU."""

    device: str
    threads: int


@dataclass
class _Worker:
    """A slot's process, and the job that it is at. heard: when it last said something. silent: whether it was ended for
    saying nothing."""

    slot: Slot
    process: BaseProcess
    job: Job | None = None
    heard: float = 0.0
    silent: bool = False


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


def execute(
    jobs: Iterable[Job],
    slots: list[Slot],
    silence: float | None = None,
    more: More = nothing_more,
    *,
    patient: bool = True,
) -> Generator[Event | None]:
    """Run the jobs, never more at once than there are slots.

    A job that raises is a `failed` event, likewise one whose process dies again and again; the others go on. A job that
    another process is at waits until that one has let it go; without patience this ends when nothing else is left. None
    says that a second has passed without news. silence: seconds after which a process that reports nothing is ended.
    more: the jobs that the end of one makes possible; they come before those that wait. Closing the iterator ends the
    processes that still run: those that can save their work are given the time to.
    """
    executor = _Executor(Queue(jobs, more, patient=patient), slots, silence)
    try:
        yield from executor.events()
    finally:
        executor.close()


class _Executor:
    """The queue, the slots and the processes of one `execute`."""

    def __init__(self, queue: Queue, slots: list[Slot], silence: float | None) -> None:
        self._queue, self._empty, self._silence = queue, list(reversed(slots)), silence
        self._workers: dict[Connection, _Worker] = {}
        self._idle: list[Connection] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def events(self) -> Generator[Event | None]:
        while len(self._idle) < len(self._workers) or self._queue.is_worth_waiting():
            while (self._idle or self._empty) and (job := self._queue.next()):
                yield self._start(job, self._idle.pop() if self._idle else self._hire(self._empty.pop()))
            ready = wait(self._workers.keys() - set(self._idle), timeout=1.0)
            for connection in ready:
                assert isinstance(connection, Connection)
                yield from self._queue.take(self._heard(connection))
            self._end_the_silent()
            if not ready:
                yield None

    def close(self) -> None:
        """End what still runs; a second interruption kills at once."""
        workers = self._workers.values()
        try:
            for worker in workers:
                worker.process.terminate()
            until = time.monotonic() + GRACE
            for worker in workers:
                worker.process.join(max(0.0, until - time.monotonic()))
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.join()

    def _hire(self, slot: Slot) -> Connection:
        """A new process for a slot."""
        ours, theirs = self._context.Pipe()
        # No daemon: a method may have processes of its own, such as those of a DataLoader.
        process: BaseProcess = self._context.Process(target=_work, args=(slot, theirs))
        process.start()
        theirs.close()
        self._workers[ours] = _Worker(slot, process)
        return ours

    def _start(self, job: Job, connection: Connection) -> Event:
        worker = self._workers[connection]
        worker.job, worker.heard = job, time.monotonic()
        with suppress(OSError):  # it died before it had anything to do, which is heard of in a moment
            connection.send(job)
        return Event(job, "started")

    def _heard(self, connection: Connection) -> Event:
        """What a worker says; it is free for another job after its last word on this one."""
        worker = self._workers[connection]
        worker.heard, job, died = time.monotonic(), worker.job, False
        assert job
        try:
            kind, detail = connection.recv()
        except (EOFError, OSError):  # the process is gone without a last word
            worker.process.join()
            (kind, detail), died = self._died(worker, job), True
        if kind in {"progress", "said"}:
            return Event(job, kind, detail)
        worker.job = None
        if died or kind in {"failed", "again"} or detail == LEAVES:
            self._dismiss(connection)
        else:
            self._idle.append(connection)
        return Event(job, kind, None if detail == LEAVES else detail)

    def _dismiss(self, connection: Connection) -> None:
        """Let a process go; its slot is empty again."""
        worker = self._workers.pop(connection)
        connection.close()
        worker.process.join()
        self._empty.append(worker.slot)

    def _died(self, worker: _Worker, job: Job) -> tuple[str, str]:
        code = worker.process.exitcode or 0
        if worker.silent:
            return "failed", f"it reported nothing for {self._silence:g} seconds"
        if code >= 0:
            return "failed", f"its process exited with {code}"
        reason = f"its process was killed by {signal.Signals(-code).name}"
        return self._queue.killed(job, reason).kind, reason

    def _end_the_silent(self) -> None:
        for worker in self._workers.values() if self._silence else ():
            if worker.job and time.monotonic() - worker.heard > (self._silence or 0.0):
                worker.silent = True
                worker.process.kill()


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


def _work(slot: Slot, connection: Connection) -> None:
    """The life of a process: job after job, until one fails, or nobody has another one."""
    import torch

    from bench.provenance import set_precision

    ending = _Ending()
    device = torch.device(slot.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with suppress(EOFError, OSError):
        while True:
            job: Job = connection.recv()
            torch.set_num_threads(slot.threads)
            set_precision()
            ending.begin(job)
            if not _done(job, device, Voice(connection, ending.told)):
                return
            ending.begin(None)


def _done(job: Job, device: "torch.device", voice: "Voice") -> bool:
    """Do a job and say how it ended; returns whether this process may do another one."""
    from bench.contract.trial import surroundings

    before = surroundings()
    event = do(job, device, voice)
    alone = job.alone and event.kind != "busy"  # it remembers for how long it has met that claim
    leaves = alone or event.kind in {"failed", "again"} or surroundings() != before
    voice.send(event.kind, LEAVES if leaves and event.detail is None else event.detail)
    return not leaves


class _Ending:
    """Knows when a process is to end: on a signal, or when its parent is gone. A job that saves has GRACE to do so."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self._saves = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        self.begin(None)
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, job: Job | None) -> None:
        """Take in what the process is at from now on; None for nothing."""
        self._saves = job is not None and job.saves
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, (lambda *_: self.told.set()) if self._saves else signal.SIG_DFL)
        if job is None and self.told.is_set():  # in the last moment of a job, which did not hear of it any more
            signal.raise_signal(signal.SIGTERM)

    def _watch(self) -> None:
        parent = multiprocessing.parent_process()
        assert parent
        parent.join()
        self.told.set()
        time.sleep(GRACE if self._saves else 0.0)
        os._exit(1)
