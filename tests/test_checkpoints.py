"""Checkpoints of what grows: written once, whole or not at all, and the same cell whenever it was killed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from support import CPU, digits_cell

from bench.cells import checkpoint
from bench.cells.cell import Cell
from bench.cells.checkpoint import Checkpoint
from bench.cells.run import CellFailed, How, run_cell
from methods.pool import Pool
from methods.run import Run
from results.store import read_json, write_with

NO_DATA = Path("no-data")
OFTEN = How(checkpoint_seconds=0)
KEY = {"format": 3}


class Killed(BaseException):
    """Stands for a kill: nothing in the runner catches it."""


def run_of(pool: Pool, **saved: Any) -> Run:
    run = Run(CPU, torch.manual_seed(0), **saved)
    run.track(pool=pool)
    return run


def fill(pool: Pool, n: int) -> None:
    """Images of one pixel, each with its number for an answer."""
    numbers = torch.arange(pool.added, pool.added + n)
    pool.add((numbers % 256).view(-1, 1, 1, 1) / 255, numbers)


def held(pool: Pool) -> list[int]:
    """The answers in the pool, each looked up beside its image, in order."""
    images, answers = pool.sample(10_000, torch.Generator().manual_seed(0))
    assert torch.equal((images.flatten() * 255).round().long(), answers % 256)
    return sorted(answers.tolist())


def files_in(folder: Path) -> dict[str, int]:
    """Name -> inode, which another file of that name would not have."""
    return {file.name: file.stat().st_ino for file in folder.iterdir()}


def loaded(folder: Path, pool: Pool) -> Checkpoint:
    """Put back what the folder holds into a new pool, by way of a resumed run."""
    again = Checkpoint(folder, KEY)
    state, why = again.load(CPU)
    assert state, why
    run_of(pool, saved=state["run"])
    return again


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece for every 10 images of one byte and an answer of eight."""
    monkeypatch.setattr(checkpoint, "PIECE", 90)


@pytest.fixture
def every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each round, and a piece of it for every 20 images of the digits or so."""
    monkeypatch.setattr(checkpoint, "COST", 0)
    monkeypatch.setattr(checkpoint, "PIECE", 20 * 64)


@pytest.mark.usefixtures("small_pieces")
def test_what_was_saved_of_a_pool_is_not_written_again(tmp_path: Path) -> None:
    pool, kept = Pool(), Checkpoint(tmp_path, KEY)
    run, seen = run_of(pool), dict[str, int]()
    for n in (7, 20, 3, 1, 40):
        fill(pool, n)
        kept.save(run)
        now = files_in(tmp_path)
        assert {name: now.get(name) for name in seen} == seen
        seen = {name: number for name, number in now.items() if name != "checkpoint.pt"}
        assert len(seen) == len(pool) // 10
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert len(state["run"]["parts"]["pool"]["answers"]) == len(pool) % 10
    assert run.state_dict()["parts"]["pool"]["answers"].tolist() == list(range(71))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("room", [0, 25])
def test_a_pool_of_many_pieces_comes_back_and_goes_on(tmp_path: Path, room: int) -> None:
    def new() -> Pool:
        return Pool(room, forgets=room > 0)

    pool, kept = new(), Checkpoint(tmp_path, KEY)
    for n in (3, 18, 11, 1, 9, 30, 2, 6, 6):
        fill(pool, n)
        kept.save(run_of(pool))
        again = new()
        kept = loaded(tmp_path, again)
        assert held(again) == held(pool)
        assert (len(again), again.added) == (len(pool), pool.added)
        pool = again
    pieces = len(files_in(tmp_path)) - 1
    assert pieces <= 3 if room else pieces == pool.added // 10, "those of forgotten images are gone"


@pytest.mark.usefixtures("small_pieces")
def test_a_memory_gives_the_same_samples_after_a_restart(tmp_path: Path) -> None:
    pool, again = Pool(25, forgets=True), Pool(25, forgets=True)
    fill(pool, 20)
    fill(pool, 17)
    Checkpoint(tmp_path, KEY).save(run_of(pool))
    loaded(tmp_path, again)
    drawn = [each.sample(8, torch.Generator().manual_seed(3))[1].tolist() for each in (pool, again)]
    assert drawn[0] == drawn[1]


@pytest.mark.usefixtures("every_round")
def test_a_piece_that_is_gone_or_broken_is_told_in_a_line(trained: Path) -> None:
    cell = digits_cell(trained, "ideal", 300)
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, killed_at(120), how=OFTEN)
    piece = next((trained / "cells" / cell.name()).glob("rows-*.pt"))
    content = piece.read_bytes()
    for broken in (content[: len(content) // 2], None):
        piece.write_bytes(broken) if broken else piece.unlink()
        with pytest.raises(CellFailed, match=rf"{piece.name} cannot be read \(.*\); delete checkpoint.pt to start the"):
            run_cell(cell, trained, NO_DATA, CPU)
    piece.write_bytes(content)
    run_cell(cell, trained, NO_DATA, CPU)


def killed_at(queries: int) -> Callable[..., None]:
    def report(spent: int, *_: object) -> None:
        if spent >= queries:
            raise Killed

    return report


class Killer:
    """In place of `write_with`: kills at the n-th write, before it, half way through it or right after it."""

    def __init__(self, nth: int, moment: str) -> None:
        self._left, self._moment = nth, moment

    def __call__(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        self._left -= 1
        if self._left > 0:
            write_with(path, write)
            return
        if self._moment == "half way":
            write_with(whole := path.with_name("whole"), write)
            content = whole.read_bytes()
            whole.unlink()
            path.with_name(f".{path.name}.0a").write_bytes(content[: len(content) // 2])
        if self._moment == "after":
            write_with(path, write)
        raise Killed


def ended(root: Path, cell: Cell) -> tuple[object, ...]:
    """All that a cell says of itself which may not differ."""
    folder = root / "cells" / cell.name()
    totals = read_json(folder / "done.json")
    student = torch.load(folder / "student.pt", weights_only=True)
    return (
        read_json(folder / "curve.json"),
        *(totals[key] for key in ("spent", "distinct", "rounds", "steps")),
        [value.tolist() for value in student.values()],
    )


def deaths() -> Iterator[tuple[int, str]]:
    """Each of the first writes of an attempt, at each moment; a checkpoint and its pieces are up to five."""
    for nth in (2, 3, 5, 4):
        for moment in ("before", "half way", "after"):
            yield nth, moment


@pytest.mark.usefixtures("every_round")
@pytest.mark.parametrize(("method", "settings"), [("ideal", {}), ("disguide", {"memory": 70}), ("noise", {})])
def test_a_cell_killed_at_any_write_of_its_checkpoints_ends_as_one_left_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, settings: dict[str, object]
) -> None:
    cell, how = digits_cell(trained, method, 300, **settings), How(checkpoint_seconds=0, keep_student=True)
    run_cell(cell, trained, NO_DATA, CPU, how=how)
    shutil.copytree(trained / "teachers", tmp_path / "teachers")
    folder, killed = tmp_path / "cells" / cell.name(), 0
    for death in deaths():
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_with", Killer(*death))
            try:
                run_cell(cell, tmp_path, NO_DATA, CPU, how=how)
            except Killed:
                killed += 1
    run_cell(cell, tmp_path, NO_DATA, CPU, how=how)
    assert killed == 12
    assert ended(tmp_path, cell) == ended(trained, cell)
    assert {file.name for file in folder.iterdir() if not file.name.startswith("claim.")} == {
        "cell.json", "curve.json", "done.json", "lock", "samples.png", "student.pt",
    }  # fmt: skip


@pytest.mark.usefixtures("every_round")
def test_a_cell_that_starts_over_leaves_nothing_of_the_checkpoint_before(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = digits_cell(trained, "ideal", 300)
    folder = trained / "cells" / cell.name()
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, killed_at(200), how=OFTEN)
    old = {file.name for file in folder.glob("rows-*.pt")}
    assert len(old) > 3
    monkeypatch.setattr(checkpoint, "FORMAT", 4)
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, killed_at(80), how=OFTEN)
    new = {file.name for file in folder.glob("rows-*.pt")}
    assert new
    assert not new & old


# Prints the peaks of memory, in MB above what is taken before, of pools of 61 MB: 20,000 images 3 x 32 x 32 in a run
# that never stops, and in one that goes on when it had nearly all of them.
PEAKS = """
import gc, sys
from pathlib import Path
import torch
from bench.cells import checkpoint
from methods.pool import Pool
from methods.run import Run

CPU = torch.device("cpu")
IMAGES = torch.rand(200, 3, 32, 32)

def memory(what):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1e3

def play(kept, n):
    saved = kept.load(CPU)[0]
    pool, run = Pool(20_000), Run(CPU, torch.manual_seed(0), saved=saved and saved.pop("run"))
    run.track(pool=pool)
    while len(pool) < n:
        pool.add(IMAGES, torch.zeros(200, dtype=torch.long))
        if len(pool) % 2_500 == 0:
            kept.save(run)
    for batch in pool.batches(128, run.rng):
        pass
    kept.save(run)

def peak_of(name, n):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = memory("VmRSS")
    play(checkpoint.Checkpoint(Path(sys.argv[1], name), "key"), n)
    return memory("VmHWM") - before

torch.set_num_threads(1)
checkpoint.PIECE = 2**22
play(checkpoint.Checkpoint(Path(sys.argv[1], "warm"), "key"), 400)
play(checkpoint.Checkpoint(Path(sys.argv[1], "warm"), "key"), 800)
fresh = peak_of("whole", 20_000)
peak_of("begun", 17_500)
print(fresh, peak_of("begun", 20_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked in Linux's words")
def test_a_pool_takes_little_more_than_its_images_in_a_run_that_never_stops_and_in_a_resumed_one(
    tmp_path: Path,
) -> None:
    # At a threshold that malloc moves by itself, 10 MB more or less of what is freed stay with it.
    fixed = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path)], capture_output=True, text=True, check=True, env=fixed
    )
    fresh, resumed = (float(figure) for figure in done.stdout.split())
    for peak in (fresh, resumed):
        assert peak < 1.15 * 61.6, "pieces are of 4 MB, and a second copy would be of 54"
    assert fresh > 50, "else it is something else that was measured"
