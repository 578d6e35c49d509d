"""What a machine with a GPU is to show, in one command: its tests, slopes, speed, and teachers of the data at hand.

    make gpu                              # into results/measured/gpu; the teachers into runs/
    make gpu DEVICE=cpu SIZE=small        # the same steps on any machine, into runs/gpu; no figure means anything

Exit code 1 where a test failed or a teacher could not be trained; a missed target is told, and fails nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from slopes import correlation, networks, some_maps
from speed import table
from speed.__main__ import chosen, device_of, measured, options
from speed.item import Item, Setting

from bench.boxes import listing
from bench.executors.jobs import Job, data_jobs, teacher_jobs
from bench.executors.local import Slot, execute
from bench.provenance import set_precision
from methods import dfme, maze
from results.store import write_bytes

TESTS = ("-m", "pytest", "-m", "gpu", "-q", "-rs", "tests/test_gpu.py")


def tested() -> tuple[bool, str]:
    """Whether the tests that want a GPU passed, and pytest's last words; without a GPU all are skipped."""
    ended = subprocess.run([sys.executable, *TESTS], stdout=subprocess.PIPE, text=True)
    return ended.returncode == 0, ended.stdout.strip().splitlines()[-1].strip("= ")


def slopes(setting: Setting) -> Iterator[list[str]]:
    """For each method that estimates slopes, their correlation with the true ones, in float32 and in TF32."""
    device, maps = setting.device, some_maps(setting.size(500, 20), setting.device)
    for method in (dfme, maze):
        found = []
        for allowed in (False, True):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
            found.append(f"{correlation(method, networks(device), maps):.3f}")
        set_precision()
        yield [method.__name__.rpartition(".")[2], *found]


def trained(setting: Setting, root: Path, data: Path) -> tuple[list[str], list[list[str]]]:
    """Train the teachers that can be trained here; returns what failed, and a row for each that is there."""
    tasks, gpu = listing.choose(["digits-lenet"] if setting.small else []), setting.device.type == "cuda"
    missing = listing.trainable(tasks, root, data, gpu=gpu)
    slot = [Slot("cuda:0" if gpu else "cpu", 1)]
    failed = done(data_jobs({task.dataset for task in missing.values()}, data), slot)
    failed += done(teacher_jobs(missing, root, data), slot)
    lines = listing.lines(tasks, root, data, gpu=gpu, check_on=None)
    return failed, [line.cells() for line in lines if line.record]


def done(jobs: Sequence[Job], slot: list[Slot]) -> list[str]:
    """Do the jobs; returns what failed, with the reason."""
    ended = [event for event in execute(jobs, slot) if event and event.kind in {"done", "failed"}]
    for event in ended:
        print(event.job.key, event.kind, event.detail or "", file=sys.stderr, flush=True)
    return [f"{event.job.key}: {event.detail}" for event in ended if event.kind == "failed"]


def section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A heading and a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"\n## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def options_here() -> argparse.ArgumentParser:
    """Those of the table of speed, and where data and teachers lie."""
    parser = options()
    parser.description = __doc__
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BENCH_DATA", "data")), help="the data sets")
    parser.set_defaults(device="cuda", out=Path("runs/gpu"))
    return parser


def main() -> None:
    """Step after step; what is known is printed at once, and all of it is kept at the end."""
    given = options_here().parse_args()
    device, items = device_of(given.device), list[Item]()
    passed, verdict = tested()
    print(verdict, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, Path(folder), given.small, given.runs)
        root = Path(folder) / "teachers" if given.small else Path("runs")
        correlations = list(slopes(setting))
        for item in measured(chosen(given.only or ["*"], device), setting):
            print(" ".join(table.cells(item)), file=sys.stderr, flush=True)
            items.append(item)
        failed, teachers = trained(setting, root, given.data)
    words = table.about(
        setting, f"make gpu{'' if device.type == 'cuda' else ' DEVICE=cpu'}{' SIZE=small' * given.small}"
    )
    table.write(given.out, items, words)
    more = f"\n## Tests\n\n    python {' '.join(TESTS)}\n\n{verdict}\n"
    more += section("Slopes against those of float64", ("method", "float32", "TF32"), correlations)
    more += section("Teachers of the data at hand", listing.COLUMNS, teachers) + "".join(
        f"\n{line}\n" for line in failed
    )
    file = given.out / "README.md"
    write_bytes(file, (file.read_text() + more).encode())
    print(file.read_text())
    sys.exit(0 if passed and not failed else 1)


if __name__ == "__main__":
    main()
