"""What every item of the table has in common: a row, how it is measured, and how its time is taken."""

import operator
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

SIGNS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Item:
    """A row of the table. ours, plain: medians, in `unit`; no plain where there is nothing to compare with.

    wanted: what should hold, such as `ratio >= 2` or `ours <= 3`; empty for a row that is there to be read. note: what
    one must know to read it.
    """

    name: str
    unit: str
    ours: float
    plain: float | None = None
    wanted: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the plain figure is ours."""
        return None if self.plain is None else self.plain / self.ours

    @property
    def met(self) -> bool | None:
        """Whether what is wanted holds; None where nothing is."""
        if not self.wanted:
            return None
        figure, sign, bound = self.wanted.split()
        return bool(SIGNS[sign](getattr(self, figure), float(bound)))


@dataclass(frozen=True)
class Setting:
    """How to measure. small: sizes at which everything runs in seconds and no figure means anything. runs: how often,
    for the median. folder: room for files."""

    device: torch.device
    folder: Path
    small: bool = False
    runs: int = 3

    def size(self, full: int, small: int) -> int:
        """A number of images, steps or cells."""
        return small if self.small else full

    @property
    def rng(self) -> torch.Generator:
        """The generator that the device's unnamed random calls draw from, as in a cell."""
        if self.device.type == "cpu":
            return torch.default_generator
        torch.cuda.init()
        return torch.cuda.default_generators[self.device.index or 0]

    @property
    def unit(self) -> str:
        """What `medians` measures."""
        return "s" if self.device.type == "cuda" else "s CPU"

    def medians(self, *works: Callable[[], object]) -> list[float]:
        """Seconds that each work takes, called in turn so that all meet the same load.

        On a CPU those of the processor, with all children that ended meanwhile; on a GPU those of the clock.
        """
        now = clock if self.device.type == "cuda" else processor
        taken: list[list[float]] = [[] for _ in works]
        for _ in range(self.runs):
            for seconds, work in zip(taken, works, strict=True):
                begun = now()
                work()
                seconds.append(now() - begun)
        return [statistics.median(seconds) for seconds in taken]


def processor() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def clock() -> float:
    """Seconds of the clock, once a GPU has done all that it was told to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
