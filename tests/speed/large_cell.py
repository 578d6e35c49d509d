"""A cell of two million queries with tiny images, end to end: its time, its memory, and what its checkpoints take.

    python tests/speed/large_cell.py                      # 2,000,000 queries; some minutes of one CPU core
    python tests/speed/large_cell.py --queries 200000     # a tenth of it
    PYTHONPATH=OTHER python tests/speed/large_cell.py     # the code in another folder, such as an earlier commit

Each round adds 2,000 images to a pool and makes a single step on it, so that there is little else than the meter, the
pool and the checkpoints. Prints one row of a table: wall and CPU time, the peak of memory above what is taken with all
imported, and how many checkpoints there were, with what the last one took and wrote, and the share of all in the time.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from bench.boxes import teachers
from bench.cells import run
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import How, run_cell
from bench.tasks.table import task_of
from budgets import Budget

CPU, NO_DATA = torch.device("cpu"), Path("no-data")
CHEAP = {"relabel": "once", "batch_size": 2_000, "generator_steps": 1, "generator_width": 4, "latent": 8}
CHEAP |= {"entropy_steps": 0, "student_steps": 1, "augment": "none"}
HEAD = "| code | wall s | CPU s | peak MB | checkpoints | the last: s | MB written | share of the time |"


def of_process(file: str, name: str) -> int:
    """A number that the kernel keeps for this process."""
    (line,) = (line for line in Path("/proc/self", file).read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def cell_of(root: Path, queries: int) -> Cell:
    record = teachers.train(task_of("digits-lenet"), root, NO_DATA, CPU, lambda _: None)
    config = canonical_config("dfhl_rs", CHEAP)
    return Cell("digits-lenet", "dfhl_rs", config, Budget(queries, "labels"), 0, record.hash)


def watched(saves: list[tuple[float, int]]) -> None:
    """Note seconds and bytes of each checkpoint."""
    save = run._Running.save

    def noting(self: run._Running) -> float:
        before = of_process("io", "wchar")
        seconds = save(self)
        saves.append((seconds, of_process("io", "wchar") - before))
        return seconds

    run._Running.save = noting  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description="A large cell with tiny images.")
    parser.add_argument("--queries", type=int, default=2_000_000)
    parser.add_argument("--least", type=float, default=20.0, help="least seconds between two checkpoints")
    parser.add_argument("--name", default="this", help="of the code, in the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    saves: list[tuple[float, int]] = []
    watched(saves)
    with tempfile.TemporaryDirectory() as place:
        cell = cell_of(Path(place), given.queries)
        taken, wall, cpu = of_process("status", "VmRSS"), time.perf_counter(), time.process_time()
        run_cell(cell, Path(place), NO_DATA, CPU, how=How(checkpoint_seconds=given.least))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    last, written = saves[-1] if saves else (0.0, 0)
    peak, share = (of_process("status", "VmHWM") - taken) / 1e3, sum(seconds for seconds, _ in saves) / wall
    print(HEAD, "|---" * 8 + "|", sep="\n")
    print(
        f"| {given.name} | {wall:.0f} | {cpu:.0f} | {peak:.0f} | {len(saves)} | {last:.2f} | {written / 1e6:.1f} "
        f"| {share:.1%} |"
    )


if __name__ == "__main__":
    main()
