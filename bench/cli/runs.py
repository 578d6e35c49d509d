"""The folders of runs, and the record that each holds."""

import re
import sys
from pathlib import Path

from bench.cli.asked import Asked
from bench.cli.options import Machine
from bench.errors import UsageError, unknown
from results.records import RecordError, RunRecord, Versions, plain, read
from results.store import write_json

# What else lies among the results.
NOT_RUNS = {"cells", "index", "teachers", "studies", "held-out", "mlflow-artifacts", "calibration"}


def run_folder(name: str, machine: Machine) -> Path:
    """The folder of a run of that name, which can be written; UsageError for a name that cannot be one."""
    if name in NOT_RUNS or not re.fullmatch(r"[\w][\w.+-]*", name):
        raise UsageError(
            f"run name {name!r}: wanted letters, digits and . _ + -, and none of {', '.join(sorted(NOT_RUNS))}; "
            "choose another with --name"
        )
    machine.check_writable(name)
    return machine.out / name


def find_run(run: str, out: Path) -> Path:
    """The folder of a run, given by name or path."""
    for folder in (out / run, Path(run).resolve()):  # whose parent has the cells, also of the folder `.`
        if (folder / "run.json").exists():
            return folder
    names = [path.parent.name for path in out.glob("*/run.json")]
    if not names:
        raise UsageError(f"no run {run!r}: there is no run in {out} yet; bench run makes one")
    raise unknown("run", run, names)


def keep_record(folder: Path, ask: Asked, machine: Machine) -> None:
    """Write run.json: the whole grid that the command asks for, whatever of it was chosen to run."""
    from bench.grids.plan import plan, record

    planned = plan(ask.runs, machine.out, machine.data, gpu=machine.gpu)
    earlier = _id_of(folder)
    kept = record(folder.name, earlier, ask.grid, planned, machine.out, sys.argv[1:])
    write_json(folder / "run.json", plain(kept))


def versions_now() -> dict[str, Versions]:
    """Method -> the result versions of the code that is here now."""
    from bench.cells.code import versions_of
    from methods import METHODS

    return {method: versions_of(method) for method in METHODS}


def _id_of(folder: Path) -> str:
    """The id of the run whose folder it is already; empty for a new one."""
    if not (folder / "run.json").exists():
        return ""
    try:
        return read(folder / "run.json", RunRecord).id
    except RecordError:
        return ""
