"""Kill real runs at random moments, give the command again, and compare with a run that nobody disturbed.

    make chaos                       # 100 kills; some 20 minutes
    python tests/chaos.py 10   # fewer

Each attempt starts `bench run` on a grid of real cells in a results folder of its own, kills it once or more in one of
six ways, lets the same command finish, and then asks: are the curves those of the undisturbed run, digit for digit;
has nothing failed; is no process left, and no lock held? Prints killed / resumed / differing; exits 1 if any differ.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from results.claims import is_held
from results.store import read_json

GRID = """
description: real cells of a few seconds
tasks: [digits-lenet]
budgets: [200, 400]
answers: [labels]
seeds: 1
methods:
  ideal: {config: {batch_size: 20, generator_steps: 10, generator_width: 8, latent: 16, augment: crop, crop_padding: 1}}
  noise: {config: {recipe: {batch_size: 32, passes: 10, min_steps: 1500}}}
  disguide: {config: {batch_size: 20, generator_width: 8, latent: 16, replays: 3}}
"""
CURVE = ("budget", "round", "spent", "distinct", "accuracy", "agreement")
GONE = 25.0  # seconds within which every process of a killed command must be gone


def command(folder: Path) -> list[str]:
    options = ["--grid", str(folder / "chaos.yaml"), "--out", str(folder / "runs"), "--mlflow", "off"]
    options += ["--checkpoint", "0.2"]
    return [sys.executable, "-m", "bench", "run", *options]


def processes(group: int) -> list[int]:
    """The processes of a session, the first of which has that number."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def workers(group: int) -> list[int]:
    """Those of them that run a cell: they hold its lock open."""
    found = []
    for number in processes(group):
        try:
            files = [os.readlink(file) for file in Path(f"/proc/{number}/fd").iterdir()]  # noqa: PTH115 - may be gone
        except OSError:
            continue
        if any(file.endswith("/lock") and "/cells/" in file for file in files):
            found.append(number)
    return found


def send(number: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has come to its own end
        os.kill(number, what)


def kill_group(group: int) -> None:
    for number in processes(group):
        send(number, signal.SIGKILL)


def kill_one_worker(group: int) -> None:
    if running := workers(group):
        send(random.choice(running), signal.SIGKILL)


WAYS: dict[str, Callable[[int], None]] = {
    "SIGKILL of the group": kill_group,
    "SIGKILL of one worker": kill_one_worker,
    "SIGKILL of the parent alone": lambda group: send(group, signal.SIGKILL),
    "SIGTERM": lambda group: send(group, signal.SIGTERM),
    "SIGHUP": lambda group: send(group, signal.SIGHUP),
    "SIGINT of the group": lambda group: [send(number, signal.SIGINT) for number in processes(group)] and None,
}


def curves(runs: Path) -> dict[str, list[tuple[object, ...]]]:
    """Cell -> its points, without what depends on time."""
    return {
        file.parent.name: [tuple(point[key] for key in CURVE) for point in read_json(file)]
        for file in sorted(runs.glob("cells/*/curve.json"))
    }


def prepared(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "chaos.yaml").write_text(GRID)
    if (root / "whole" / "runs" / "teachers").exists():
        shutil.copytree(root / "whole" / "runs" / "teachers", folder / "runs" / "teachers")
    return folder


def disturbed(folder: Path, way: str, lasts: float) -> list[str]:
    """Start a run, kill it at a random moment, and say what was not as it must be."""
    process = subprocess.Popen(
        command(folder), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(random.uniform(0.0, lasts))
    WAYS[way](process.pid)
    if way == "SIGKILL of one worker":
        return [] if process.wait(timeout=300) == 0 else ["the command did not get over a lost worker"]
    process.wait(timeout=60)
    until = time.monotonic() + GONE
    while processes(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    return [f"{len(processes(process.pid))} processes are left"] if processes(process.pid) else []


def faults_after(folder: Path, whole: dict[str, list[tuple[object, ...]]]) -> list[str]:
    """What is wrong once the same command has been given again."""
    again = subprocess.run(command(folder), capture_output=True, text=True, timeout=600)
    faults = (
        [] if again.returncode == 0 else [f"the command again ended with {again.returncode}: {again.stderr[-300:]}"]
    )
    faults += [f"failed: {file.parent.name}" for file in folder.glob("runs/cells/*/failed.json")]
    faults += [f"a lock is held: {path.name}" for path in folder.glob("runs/cells/*") if is_held(path)]
    if curves(folder / "runs") != whole:
        faults.append("its curves are not those of an undisturbed run")
    return faults


def main() -> None:
    attempts = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    random.seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    killed, resumed, differing = Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        start = time.monotonic()
        subprocess.run(command(prepared(root, "whole")), check=True, stdout=subprocess.DEVNULL)
        lasts, whole = time.monotonic() - start, curves(root / "whole" / "runs")
        for number in range(attempts):
            way, folder = random.choice(list(WAYS)), prepared(root, f"attempt-{number}")
            faults = disturbed(folder, way, lasts)
            cells = list(folder.glob("runs/cells/*"))
            resumed += any((cell / "checkpoint.pt").exists() for cell in cells)
            faults += faults_after(folder, whole)
            killed[way] += 1
            differing += bool(faults)
            print(f"{number + 1}/{attempts} {way}: {'; '.join(faults) or 'as undisturbed'}", flush=True)
            shutil.rmtree(folder)
    print(f"killed {sum(killed.values())} ({', '.join(f'{n} {way}' for way, n in killed.items())})")
    print(f"resumed from a checkpoint {resumed}, differing {differing}")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
