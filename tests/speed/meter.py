"""The meter: microseconds an image, and what 20 million images take."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path

import torch
from speed.item import Item, Setting
from torch.utils.benchmark import Timer

from budgets import Budget, Oracle
from budgets.distinct import Distinct

SHAPE, BATCH = (3, 32, 32), 250


def meter(setting: Setting) -> Iterator[Item]:
    """A question through the meter to a box that takes no time; a count that is as large as they get."""
    images = setting.size(10_000, 500)
    batches = cycle(torch.rand(images, *SHAPE, device=setting.device).split(BATCH))
    labels = torch.zeros(BATCH, dtype=torch.int64, device=setting.device)
    oracle = Oracle(lambda _: labels, Budget(20_000_000), shape=SHAPE, classes=10)
    clocks = {} if setting.device.type == "cuda" else {"timer": time.process_time}  # Timer's own waits for a GPU
    timer = Timer("oracle(next(batches))", globals={"oracle": oracle, "batches": batches}, **clocks)
    microseconds = timer.blocked_autorange(min_run_time=setting.size(2, 0)).median * 1e6 / BATCH
    yield Item("meter, an image of 3 x 32 x 32", "us", microseconds, None, "ours <= 3")
    many = setting.size(20_000_000, 200_000)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:  # whose memory is its own
        raised, seconds = process.submit(count, many, setting.folder / "meter.pt").result()
    yield Item(f"meter, memory at {many:,} different images", "MB", raised, None, "ours <= 200")
    yield Item(f"meter, state at {many:,}, written to a file", "s", seconds, None, "ours <= 1")


def count(many: int, file: Path) -> tuple[float, float]:
    """Count so many different images; returns by how many MB the memory of this process rose at most, and the
    seconds in which the state is written."""
    before, counter = megabytes("VmRSS"), Distinct(many)
    for first in range(0, many, 50_000):
        counter.add(torch.arange(first, min(first + 50_000, many), dtype=torch.float64).view(-1, 1, 1, 1))
    raised = megabytes("VmHWM") - before
    assert len(counter) == many
    begun = time.perf_counter()
    torch.save(counter.state_dict(), file)
    return raised, time.perf_counter() - begun


def megabytes(field: str) -> float:
    """The memory of this process as Linux tells it: VmRSS what it has, VmHWM the most it ever had; NaN elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6
