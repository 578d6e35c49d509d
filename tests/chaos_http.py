"""Kill real runs that ask a black box over HTTP, at random moments, and count what was lost and what was paid twice.

    python tests/chaos_http.py --kills 100         # half an hour

The app of `bench serve`, with a teacher of the digits and in a process of its own, takes a while for each request.
`bench run` asks it in a results folder of its own. Its whole process group is killed by SIGKILL, after a random time or
while one of a random number of requests is on its way, and the same command given again, until it has come to its end
or enough were killed; then a new server and a new folder follow. For each of
them: is every answer that the server gave in a journal; did the server answer more images than the cells' meters and
the examination counted; are the curves those of an undisturbed run, byte for byte? Prints one line; exits 1 if any
differs.
"""

import argparse
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import torch
from chaos import kill_group, processes
from faulty import Faulty

from bench.boxes import teachers
from bench.boxes.box import black_box
from bench.cells.audit import audit
from bench.tasks.table import task_of
from budgets import journal
from results.store import read_json

GRID = """
description: cells of some seconds that ask a slow black box
tasks: [digits-lenet]
budgets: [200, 400]
answers: [labels]
seeds: 1
methods:
  ideal-once: {method: ideal, config: {relabel: once, batch_size: 50, generator_width: 8, latent: 16, crop_padding: 1}}
  noise: {config: {recipe: {batch_size: 64, passes: 10, min_steps: 300}}}
"""
TASK = "digits-lenet"
PAUSE = 0.05  # seconds that the server takes for a request
MOST = 40  # requests that a run sends at most before it is killed
POLL = 0.01  # seconds
FOREVER = 600.0  # seconds in which any command ends


@dataclass
class Tally:
    """What was found, images except `kills`, `folders` and `differing`.

    under_way: sent by a run that was killed before it knew the answer. unsent: on the bill, for a run was killed before
    it had sent what it had put there.
    """

    kills: int = 0
    folders: int = 0
    answered: int = 0
    under_way: int = 0
    lost: int = 0
    twice: int = 0
    repeated: int = 0
    unsent: int = 0
    differing: int = 0

    def add(self, other: "Tally") -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def good(self) -> bool:
        return not (self.lost or self.twice or self.repeated or self.differing or self.unsent < 0)


@dataclass(frozen=True)
class Moment:
    """When a run is killed: after so many seconds, or after so many requests and a part of the next one's time."""

    seconds: float = FOREVER
    requests: int | None = None


def some_moment(rng: random.Random, lasts: float) -> Moment:
    if rng.random() < 0.25:
        return Moment(rng.uniform(0.0, lasts))
    return Moment(requests=rng.randint(1, MOST))


def serve(teachers_folder: Path, theirs: Connection) -> None:
    """The life of the server's process. It says what it answered whenever it is asked."""
    torch.set_num_threads(1)
    network = black_box(teachers.load(task_of(TASK), teachers_folder, torch.device("cpu")))
    with Faulty(network, pause=PAUSE) as server:
        theirs.send(server.url)
        with suppress(EOFError):
            while True:
                theirs.recv()
                theirs.send((len(server.asked), server.images, server.answered))


class Served:
    """A new server in a process of its own."""

    def __init__(self, teachers_folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(teachers_folder, theirs))
        self._process.start()
        theirs.close()
        self.url: str = self._ours.recv()

    def told(self) -> tuple[int, int, dict[str, int]]:
        """Requests that came, images that its model answered, and the images of each request that it answered."""
        self._ours.send("what was answered?")
        told: tuple[int, int, dict[str, int]] = self._ours.recv()
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def prepared(folder: Path, url: str) -> list[str]:
    """The command of a run in that folder."""
    folder.mkdir(parents=True)
    (folder / "chaos.yaml").write_text(GRID)
    (folder / "box.yaml").write_text(f"base: {url}\nbatch: 16\n")
    options = ["--grid", str(folder / "chaos.yaml"), "--blackbox", str(folder / "box.yaml"), "--jobs", "2"]
    options += ["--out", str(folder / "runs"), "--mlflow", "off", "--checkpoint", "0.2"]
    return [sys.executable, "-m", "bench", "run", *options]


def curves(folder: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in sorted(folder.glob("runs/cells/*/curve.json"))}


def killed(command: list[str], server: Served, moment: Moment) -> bool:
    """Whether the run was killed at that moment, before it had come to its end; RuntimeError where it failed."""
    before, begun = server.told()[0], time.monotonic()
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and time.monotonic() < begun + moment.seconds:
        if moment.requests and server.told()[0] >= before + moment.requests:
            time.sleep(random.uniform(0.0, PAUSE))
            break
        time.sleep(POLL)
    ended = process.poll() is not None
    while processes(process.pid):  # one may have started another meanwhile
        kill_group(process.pid)
        time.sleep(POLL)
    _, told = process.communicate()
    if (ended and process.returncode) or (not ended and moment == Moment()):
        raise RuntimeError(f"a run ended with {process.returncode}: {told.decode()[-500:]}")
    return not ended


def counted(folder: Path, server: Served, whole: dict[str, bytes]) -> Tally:
    """What is wrong in the folder of a run that has ended, if anything is."""
    _, images, answered = server.told()
    journals = [*folder.glob("runs/cells/*/journal"), *folder.glob("runs/boxes/*/*.journal")]
    counts = [journal.count(file) for file in journals]
    kept = {entry["id"] for file in journals for entry in journal.entries(file) if entry["kind"] == "answer"}
    metered = sum(read_json(file)["spent"] for file in folder.glob("runs/cells/*/done.json"))
    metered += sum(read_json(file)["asked"] for file in folder.glob("runs/boxes/*/box.json"))
    (bill,) = (read_json(file)["images"] for file in folder.glob("runs/boxes/*/bill.json"))
    audits = [audit(file) for file in folder.glob("runs/cells/*")]
    faults = [found.fault for found in audits if found and found.fault]
    if faults or curves(folder) != whole:
        print(f"{folder.name}: {'; '.join(faults) or 'its curves are not those of an undisturbed run'}", flush=True)
    return Tally(
        folders=1,
        answered=images,
        under_way=sum(found.in_doubt for found in counts),
        lost=sum(size for id, size in answered.items() if id not in kept),
        twice=images - metered,
        repeated=sum(found.repeated for found in audits if found),
        unsent=bill - sum(found.charged for found in counts),
        differing=int(bool(faults) or curves(folder) != whole),
    )


def undisturbed(folder: Path, trained: Path) -> tuple[dict[str, bytes], float]:
    """The curves of a run that nobody disturbs, and the seconds that it takes."""
    with Served(trained) as server:
        begun = time.monotonic()
        killed(prepared(folder, server.url), server, Moment())
        lasts, whole = time.monotonic() - begun, curves(folder)
        tally = counted(folder, server, whole)
    if not tally.good or tally.unsent:
        raise RuntimeError(f"an undisturbed run does not count right: {tally}")
    return whole, lasts


def disturbed(
    folder: Path, trained: Path, kills: int, lasts: float, whole: dict[str, bytes], rng: random.Random
) -> Tally:
    """Run once to the end, with so many kills at most."""
    done = 0
    with Served(trained) as server:
        command = prepared(folder, server.url)
        while killed(command, server, some_moment(rng, lasts) if done < kills else Moment()):
            done += 1
        tally = counted(folder, server, whole)
    tally.kills = done
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, total, begun = random.Random(asked.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        teachers.train(task_of(TASK), root / "trained", Path("no-data"), torch.device("cpu"), lambda _: None)
        undisturbed(root / "cold", root / "trained")  # which takes longer than any that follows
        whole, lasts = undisturbed(root / "whole", root / "trained")
        while total.kills < asked.kills:
            folder = root / f"folder-{total.folders}"
            total.add(disturbed(folder, root / "trained", asked.kills - total.kills, lasts, whole, rng))
            shutil.rmtree(folder)
            print(f"{total.kills}/{asked.kills} after {time.monotonic() - begun:,.0f} s: {total}", flush=True)
    print(
        f"{total.kills} kills in {total.folders} folders, {time.monotonic() - begun:,.0f} s: the server answered "
        f"{total.answered:,} images, {total.under_way} of them were under way when a run was killed; "
        f"lost {total.lost}, paid twice {total.twice}, asked again {total.repeated}, "
        f"on the bill and never sent {total.unsent}; runs that differ {total.differing}"
    )
    sys.exit(0 if total.good else 1)


if __name__ == "__main__":
    main()
