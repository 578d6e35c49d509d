"""What scheduling costs on a run of very many cells: `bench run` with a stub for each cell, on two slots.

    PYTHONPATH=tests python -m speed.many_jobs                     # 2,000 cells of 50 ms
    PYTHONPATH=tests python -m speed.many_jobs 100000 --executor ray

A stub takes the cell's lock, leaves the files that run_cell leaves, and sleeps for what is left of 50 ms. All else is
what a user has: plan, record, executor, board, index and report. Lost is what the slots' time has beyond the stubs'.
"""

import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from speed.many_cells import content_of, curve, leave, train

from bench.cells.cell import Cell
from results.claims import lock

NAP = 0.05  # seconds of a stub
SLOTS = 2


def stub(cell: Cell, root: Path, *_: Any) -> None:
    """In place of bench.executors.jobs.work_on_cell, with the same arguments."""
    until, folder = time.monotonic() + NAP, root / "cells" / cell.name()
    with lock(folder):
        leave(folder, cell, list(curve(cell, cell.method, random.Random(cell.seed))), NAP)
        time.sleep(max(0.0, until - time.monotonic()))


def main(cells: int, more: list[str]) -> None:
    import bench.cli.run as run_command
    from bench.cli.app import main as bench
    from bench.executors import jobs

    jobs.work_on_cell = stub  # type: ignore[assignment]
    timed(run_command._Run)
    with tempfile.TemporaryDirectory(prefix="many-jobs-") as folder:
        grid = Path(folder) / "many.yaml"
        grid.write_text(yaml.safe_dump(content_of(cells)))
        words = f"--grid {grid} --out {folder} --device cpu"
        with (Path(folder) / "told.txt").open("w") as told, redirect_stdout(told):
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what that needs is not the command's
                apart.submit(train, Path(folder)).result()
            sys.argv = ["bench", "run", *words.split(), "--mlflow", "off", "--jobs", str(SLOTS), *more]
            try:
                bench()
            except SystemExit as end:
                say(f"ended with {end.code}; most memory of the command, its report too: {most():,.0f} MiB")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def timed(run: Any) -> None:
    """Have the command say what its work took, before it reports."""
    work = run.work

    def measured(self: Any, **how: Any) -> list[str]:
        begun, used = time.monotonic(), time.process_time()
        failed: list[str] = work(self, **how)
        wall, used = time.monotonic() - begun, time.process_time() - used
        n = len(self.waiting)
        say(f"{n:,} runs in {wall:,.0f} s, {1 - n * NAP / SLOTS / wall:.1%} of them lost; {len(failed)} failed")
        say(f"the command: {1000 * used / n:.2f} ms of CPU a run, most memory {most():,.0f} MiB")
        return failed

    run.work = measured


def most() -> float:
    """The most memory that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    given = sys.argv[1:]
    number = int(given.pop(0)) if given and given[0].isdigit() else 2_000
    main(number, given)
