"""What only a CUDA device can show. On a machine that has one: python -m pytest -m gpu tests/test_gpu.py"""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from slopes import correlation, networks, some_maps
from support import CPU, bench
from syncs import Warned, rounds_of
from test_methods import SMALL
from test_repeats import UNREPEATABLE
from test_syncs import METER, ROUNDS, SETTINGS

from bench.boxes import teachers
from bench.boxes.box import predict
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import How, run_cell
from bench.provenance import set_precision
from bench.tasks.data import sources
from bench.tasks.table import task_of
from budgets import Budget
from methods import METHODS, dfme, images, maze
from methods.pool import Pool, to_8_bits
from results.store import read_json

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
GPU = torch.device("cuda:0")
NO_DATA = Path("no-data")


class Killed(BaseException):
    """Stands for a kill between two rounds."""


def cell_of(trained: Path, method: str, queries: int = 300, seed: int = 0) -> Cell:
    record = teachers.record_of(task_of("digits-lenet"), trained)
    assert record
    budget = Budget(queries, METHODS[method].ANSWERS[0])
    return Cell("digits-lenet", method, canonical_config(method, SMALL[method]), budget, seed, record.hash)


def kill_after(rounds: int) -> object:
    """A report that ends the process, as it were, after so many rounds."""
    seen = iter(range(1, rounds))

    def report(*_: object) -> None:
        if next(seen, None) is None:
            raise Killed

    return report


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_a_gpu_and_goes_on_from_its_checkpoint(trained: Path, method: str) -> None:
    cell = cell_of(trained, method)
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, GPU, kill_after(2), how=How(checkpoint_seconds=0))  # type: ignore[arg-type]
    run_cell(cell, trained, NO_DATA, GPU)
    done = read_json(trained / "cells" / cell.name() / "done.json")
    assert 0 < done["spent"] <= 300
    assert done["rounds"] > 1
    assert done["machine"]["precision"] == "float32"


@pytest.mark.parametrize("method", ["noise", "ideal", "dfme"])
def test_a_resumed_curve_is_that_of_a_run_that_never_stopped(trained: Path, method: str) -> None:
    """Within what a GPU repeats at all: two runs that never stopped say how much that is."""
    curves = []
    for kills in (0, 0, 2):
        cell = cell_of(trained, method)
        folder = trained / "cells" / cell.name()
        if kills:
            with pytest.raises(Killed):
                run_cell(cell, trained, NO_DATA, GPU, kill_after(kills), how=How(checkpoint_seconds=0))  # type: ignore[arg-type]
        run_cell(cell, trained, NO_DATA, GPU)
        curves.append(
            [(point["budget"], point["spent"], point["accuracy"]) for point in read_json(folder / "curve.json")]
        )
        for file in folder.iterdir():
            file.unlink()
    first, second, resumed = curves
    noise = max(abs(one[2] - other[2]) for one, other in zip(first, second, strict=True))
    assert [point[:2] for point in resumed] == [point[:2] for point in first]
    assert max(abs(one[2] - other[2]) for one, other in zip(first, resumed, strict=True)) <= noise + 0.02


@pytest.mark.parametrize("forgets", [False, True])
def test_a_pool_that_has_no_room_on_the_gpu_gives_the_same_batches_from_the_host(
    monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    passes = []
    for share in (2, 10**15):
        monkeypatch.setattr(images, "SHARE", share)
        pool, rng = Pool(500, forgets=forgets), torch.Generator(GPU).manual_seed(0)
        for _ in range(7):
            pool.add(to_8_bits(torch.rand(100, 3, 32, 32, generator=rng, device=GPU)), torch.arange(100, device=GPU))
        again = Pool(500, forgets=forgets)
        again.load_state_dict(pool.state_dict())
        before = torch.cuda.memory_allocated()
        batches = [*pool.batches(64, rng), again.sample(64, rng)]
        assert all(part is not None and part.device.type == "cuda" for batch in batches for part in batch)
        passes.append((before, [(seen.cpu(), answers.cpu()) for seen, answers in batches]))  # type: ignore[union-attr]
        del pool, again, batches
    assert passes[1][0] < passes[0][0]
    for one, other in zip(passes[0][1], passes[1][1], strict=True):
        assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))


def test_a_checkpoint_from_the_cpu_starts_over_with_a_line(trained: Path) -> None:
    cell, said = cell_of(trained, "noise"), list[str]()
    with pytest.raises(Killed):
        run_cell(cell, trained, NO_DATA, CPU, kill_after(2), how=How(checkpoint_seconds=0))  # type: ignore[arg-type]
    run_cell(cell, trained, NO_DATA, GPU, say=said.append)
    assert len(said) == 1
    assert "starts over" in said[0]
    assert (trained / "cells" / cell.name() / "done.json").exists()


@pytest.mark.parametrize("method", [dfme, maze])
def test_slopes_on_a_gpu_are_those_of_float64_with_the_guard(method: ModuleType) -> None:
    set_precision()
    guarded = correlation(method, networks(GPU), some_maps(500, GPU))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    rounded = correlation(method, networks(GPU), some_maps(500, GPU))
    set_precision()
    print(f"{method.__name__}: correlation with the true slope {guarded:.3f} in float32, {rounded:.3f} in TF32")
    assert guarded > 0.95


def test_two_runs_share_one_gpu(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.parent)
    quick = ["--budget", "250", "--method", "noise-*", "--mlflow", "off", "--per-gpu", "2"]
    assert bench("run", *quick, "--seeds", "2", "--out", str(trained)) == 0
    done = list(trained.glob("cells/*/done.json"))
    assert len(done) == 2 * 2 * 2 * 3  # methods, answers, seeds, teachers
    assert {read_json(file)["machine"]["device"] for file in done} == {torch.cuda.get_device_name(0)}


def test_a_teacher_says_the_same_on_a_gpu_and_on_the_cpu(trained: Path) -> None:
    set_precision()
    task = task_of("digits-lenet")
    images = sources.load("digits", NO_DATA).test.images
    answers = [predict(teachers.load(task, trained, device), images.to(device)).cpu() for device in (CPU, GPU)]
    assert (answers[0] == answers[1]).double().mean() > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_a_round_waits_no_more_often_than_was_counted_on_the_cpu(method: str) -> None:
    answers = METHODS[method].ANSWERS[0]
    calls, found = rounds_of(METHODS[method], SETTINGS[method], answers, Warned(), GPU, queries=200)[-1]
    assert found["read"] <= calls * METER[answers] + sum(ROUNDS[method][-1].values())


def test_cuda_tells_of_a_wait() -> None:
    numbers, warned = torch.ones(3, device=GPU), Warned()
    with warned.counted():
        numbers.sum().item()
        assert warned.take()["read"] == 1


@pytest.mark.parametrize("method", [name for name in METHODS if name not in UNREPEATABLE])
def test_a_cell_repeats_bit_for_bit_where_no_sum_depends_on_the_order_of_threads(trained: Path, method: str) -> None:
    set_precision()
    cell, students = cell_of(trained, method), []
    folder = trained / "cells" / cell.name()
    for _ in range(2):
        run_cell(cell, trained, NO_DATA, GPU, how=How(keep_student=True))
        students.append(torch.load(folder / "student.pt", weights_only=True))
        for file in folder.iterdir():
            file.unlink()
    assert all(torch.equal(first, second) for first, second in zip(*(s.values() for s in students), strict=True))
