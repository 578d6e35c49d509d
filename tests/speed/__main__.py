"""How fast we are beside plain versions: one table, and what is wanted of each row.

    make speed                            # the whole table, into results/measured/speed
    PYTHONPATH=tests python -m speed --only 'meter' --runs 5

docs/performance.md says how to read it.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch
from speed import gpu, harness, ideal_round, meter, runner, table
from speed.item import Item, Setting

from bench.provenance import set_precision

ITEMS = {
    "ideal": ideal_round.ideal_round,
    "cell": harness.cell_overhead,
    "evaluation": harness.evaluation,
    "kernels": harness.kernels,
    "meter": meter.meter,
    "slots": runner.slots,
    "start": runner.start,
    "recognition": runner.recognition,
    "help": runner.help_,
}
ON_A_GPU = {"resnets": gpu.resnets, "cells-per-hour": gpu.cells_per_hour}


def measured(names: Sequence[str], setting: Setting) -> Iterator[Item]:
    """The rows of these items, each when it is known."""
    torch.set_num_threads(1)
    set_precision()
    for name in names:
        yield from {**ITEMS, **ON_A_GPU}[name](setting)


def chosen(globs: Sequence[str], device: torch.device) -> list[str]:
    """The items that match; without a glob all that make sense on the device."""
    everything = [*ITEMS, *ON_A_GPU]
    if not globs:
        return everything if device.type == "cuda" else list(ITEMS)
    found = [name for name in everything if any(fnmatch(name, glob) for glob in globs)]
    if not found:
        sys.exit(f"--only {' '.join(globs)}: wanted one of {', '.join(everything)}")
    return found


def device_of(name: str) -> torch.device:
    """The device of that name, with its index; ends with a line where there is none."""
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda" or not torch.cuda.is_available():
        sys.exit(f"--device {name}: wanted cpu, or cuda on a machine that has a GPU")
    return torch.device("cuda:0")


def options() -> argparse.ArgumentParser:
    """Those of `make speed` and `make gpu`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--small", action="store_true", help="sizes at which all runs in a minute and means nothing")
    parser.add_argument("--runs", type=int, default=3, help="of each figure; the median is shown")
    parser.add_argument("--only", nargs="*", default=[], help="names of items, or globs")
    parser.add_argument("--out", type=Path, help="folder for README.md and speed.csv")
    return parser


def main() -> None:
    """Measure, tell each row when it is known, and show and keep the table."""
    given = options().parse_args()
    device, items = device_of(given.device), list[Item]()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, Path(folder), given.small, given.runs)
        for item in measured(chosen(given.only, device), setting):
            print(" ".join(table.cells(item)), file=sys.stderr, flush=True)
            items.append(item)
        words = table.about(setting, shlex.join(["PYTHONPATH=tests", "python", "-m", "speed", *told(sys.argv[1:])]))
    print(table.markdown(items))
    if given.out:
        table.write(given.out, items, words)


def told(words: Sequence[str]) -> list[str]:
    """A command line without the folder that it writes to."""
    at = words.index("--out") if "--out" in words else len(words)
    return [*words[:at], *words[at + 2 :]]


if __name__ == "__main__":
    main()
