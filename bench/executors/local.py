"""One process per job on this machine, in slots: CPU cores, or shares of GPUs."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bench.executors.jobs import Event, Job

# Imported once and then shared by all processes: what would cost each of them seconds.
PRELOAD = ["bench.cells.run", "torchvision.datasets", "sklearn.datasets"]


@dataclass(frozen=True)
class Slot:
    """Room for one process. device: a torch device. threads: how many it may use on the CPU."""

    device: str
    threads: int


def slots(jobs: int | None, gpus: list[int], per_gpu: int) -> list[Slot]:
    """`per_gpu` slots on each of the GPUs, or without a GPU `jobs` slots (default one a core), the cores shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = [f"cuda:{gpu}" for _ in range(per_gpu) for gpu in gpus] or ["cpu"] * (jobs or cores)
    return [Slot(device, max(1, cores // len(devices))) for device in devices]


def execute(jobs: Iterable[Job], slots: list[Slot]) -> Generator[Event | None]:
    """Run the jobs, one process each, never more at once than there are slots.

    A job that raises, or whose process dies, is a `failed` event; the others go on. None says that a
    second has passed without news. Closing the iterator ends the processes that still run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    waiting, free = list(reversed(list(jobs))), list(reversed(slots))
    running: dict[Connection, tuple[Job, Slot, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, slot = waiting.pop(), free.pop()
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_work, args=(job, slot, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = job, slot, process
                yield Event(job, "started")
            ready = wait(running, timeout=1.0)
            if not ready:
                yield None
            for connection in ready:
                assert isinstance(connection, Connection)
                job, slot, process = running[connection]
                event = _receive(job, connection, process)
                if event.kind != "progress":
                    process.join()
                    connection.close()
                    del running[connection]
                    free.append(slot)
                yield event
    finally:
        for _, _, process in running.values():
            process.terminate()
        for _, _, process in running.values():
            process.join()


def _receive(job: Job, connection: Connection, process: BaseProcess) -> Event:
    try:
        kind, detail = connection.recv()
        return Event(job, kind, detail)
    except EOFError:  # the process is gone without a last word
        process.join()
        code = process.exitcode or 0
        died = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return Event(job, "failed", f"its process {died}")


def _work(job: Job, slot: Slot, connection: Connection) -> None:
    """The life of a process: one job."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(slot.threads)
    device = torch.device(slot.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)

    def report(*values: Any) -> None:
        connection.send(("progress", values))

    try:
        job.function(*job.arguments, device, report)
    except Exception as error:
        connection.send(("failed", str(error) or type(error).__name__))
    else:
        connection.send(("done", None))
