"""A black box in a process of its own: what methods that do not keep to the rules get out of it, and that all others
come to the same results as without."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hostile
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import CLASSES, CPU, SHAPE, RecordingTeacher, digits_cell, rewrite_teacher
from test_serving import app_of
from test_serving import served as served_at
from torch import Tensor

from bench.boxes import examined, teachers
from bench.boxes.box import black_box
from bench.boxes.described import Attached, Endpoint, attach, read
from bench.boxes.process import OwnProcess, Served, packed, unpacked
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import CellFailed, How, run_cell
from bench.contract.plugins import from_file
from bench.errors import UsageError
from bench.tasks.table import task_of
from budgets import Budget, Oracle
from budgets.answers import reveal
from budgets.journal import count
from methods import METHODS
from results.store import read_json, state_of

NO_DATA = Path("no-data")
BUDGET = 40
APART = How(checkpoint_seconds=0, isolate=True)
WITHIN = How(checkpoint_seconds=0)
DIFFER = r"the black box answered (\d+) images, the method's meter counted (\d+)"
PATIENCE = 60.0  # seconds: a busy machine is no failure


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "hostile", from_file(Path(hostile.__file__)))


@pytest.fixture
def loot(tmp_path: Path) -> Path:
    folder = tmp_path / "loot"
    folder.mkdir()
    return folder


def attack(root: Path, name: str, loot: Path, answers: str = "labels") -> Cell:
    honest = digits_cell(root, "noise", BUDGET)
    config = canonical_config("hostile", {"attack": name, "loot": str(loot)})
    return replace(honest, method="hostile", config=config, budget=Budget(BUDGET, answers))


def folder_of(root: Path, cell: Cell) -> Path:
    return root / "cells" / cell.name()


def curve_of(root: Path, cell: Cell) -> bytes:
    return (folder_of(root, cell) / "curve.json").read_bytes()


def _attempt(cell: Cell, root: Path, how: How) -> None:
    torch.set_num_threads(1)
    run_cell(cell, root, NO_DATA, CPU, how=how)


def begun(cell: Cell, root: Path, how: How) -> multiprocessing.process.BaseProcess:
    """The cell in a process of its own, as it always is: what it patches is gone with it."""
    started = multiprocessing.get_context("fork").Process(target=_attempt, args=(cell, root, how))
    started.start()
    return started


def ended(cell: Cell, root: Path, how: How) -> tuple[str, str]:
    """The state that the cell comes to, and the reason."""
    started = begun(cell, root, how)
    started.join(PATIENCE)
    assert started.exitcode is not None, "it does not end"
    state = state_of(folder_of(root, cell), None)
    return state.name, state.reason or ""


def answered(loot: Path) -> list[int]:
    """Images of which each process got an answer, the cell's first."""
    got: dict[int, int] = {}
    for file in loot.glob("answer-*.pt"):
        process = int(file.name.split("-")[1])
        got[process] = got.get(process, 0) + len(torch.load(file))
    return [got[process] for process in sorted(got)]


def boxes_of(cell: int) -> list[int]:
    """The processes that a process has spawned, forked ones apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent, words = (path / "stat").read_text().rpartition(")")[2].split()[1], (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == cell and b"spawn_main" in words:
            found.append(int(path.name))
    return found


def waited_for(condition: Callable[[], object]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def is_alive(number: int) -> bool:
    try:
        return (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# How many answers a method gets in its process and in one that it forks, where nothing but the meter beside it counts.
IN_ONE_PROCESS = {
    "honest": [40],
    "go_back_to_an_earlier_count": [40],
    "patch_the_count": [40],
    "patch_the_count_meanwhile": [20],
    "ask_past_the_last_round": [40],
    "reset_the_count": [60],
    "patch_the_call": [60],
    "say_that_many_images_are_one": [40],
    "ask_from_a_fork": [40, 20],
    "ask_from_a_process": [40, 20],
}


@pytest.mark.parametrize("name", IN_ONE_PROCESS)
def test_without_isolation_a_method_gets_what_it_patches_its_way_to(trained: Path, loot: Path, name: str) -> None:
    assert ended(attack(trained, name, loot), trained, WITHIN) == ("done", "")
    assert answered(loot) == IN_ONE_PROCESS[name]


# The same with isolation, and what the meter beside the method had counted, where that is not the truth.
APART_FROM_IT: dict[str, tuple[list[int], int | None]] = {
    "honest": ([40], None),
    "go_back_to_an_earlier_count": ([40], None),
    "ask_from_a_fork": ([40], None),
    "ask_from_a_process": ([40], None),
    "patch_the_count": ([40], 0),
    "patch_the_count_meanwhile": ([20], 1),
    "ask_past_the_last_round": ([40], 20),
    "reset_the_count": ([40], 20),
    "patch_the_call": ([40], 0),
    "say_that_many_images_are_one": ([40], None),
    "ask_from_a_fork_at_the_pipe": ([20, 20], 20),
}


@pytest.mark.parametrize("name", APART_FROM_IT)
def test_with_isolation_no_patch_and_no_fork_gets_more_than_was_bought_and_none_gets_a_result_out_of_step(
    trained: Path, loot: Path, name: str
) -> None:
    got, counted = APART_FROM_IT[name]
    cell = attack(trained, name, loot)
    told = "" if counted is None else f"the black box answered {sum(got)} images, the method's meter counted {counted}"
    assert ended(cell, trained, APART) == ("failed" if told else "done", told)
    assert answered(loot) == got
    assert (folder_of(trained, cell) / "done.json").exists() == (not told)


def test_threads_that_spend_one_budget_at_once_never_get_more_than_it(trained: Path, loot: Path) -> None:
    cell = attack(trained, "ask_from_threads", loot)
    state, reason = ended(cell, trained, APART)
    (got,) = answered(loot)
    assert got <= BUDGET
    if state == "done":
        assert read_json(folder_of(trained, cell) / "done.json")["spent"] == got
    else:
        found = re.fullmatch(DIFFER, reason)
        assert found, reason
        assert int(found[1]) == got != int(found[2])


@pytest.mark.parametrize("answers", ["labels", "top-3", "round-1"])
def test_no_score_that_was_not_bought_reaches_a_method_that_patches_what_is_revealed(
    trained: Path, loot: Path, answers: str
) -> None:
    cell = attack(trained, "patch_what_is_revealed", loot, answers)
    raw = []
    for how in (WITHIN, APART):
        assert ended(cell, trained, how) == ("done", "")
        (file,) = loot.glob("raw-*.pt")
        raw.append(torch.load(file))
        file.unlink()
        shutil.rmtree(folder_of(trained, cell))
    probs = black_box(teachers.load(task_of("digits-lenet"), trained, CPU))(torch.load(loot / "images.pt"))
    for got in raw:
        torch.testing.assert_close(got, reveal(probs, answers), rtol=0, atol=0, equal_nan=True)


def test_what_is_asked_past_the_meter_at_the_pipe_is_refused(trained: Path, loot: Path) -> None:
    cell = attack(trained, "forge_questions", loot)
    assert ended(cell, trained, APART) == ("done", "")
    assert answered(loot) == [BUDGET]
    resume, right, weights, spent, more, other, nothing, garbage = map(json.loads, read_json(loot / "heard"))
    assert resume["why"] == "resume: wanted before the meter begins to count"
    assert right["why"] == "right: wanted before the meter begins to count"
    assert weights["why"] == "weights: wanted before the meter begins to count"
    assert spent == {"spent": 20}
    assert more == {"raised": "BudgetExhausted", "why": "40 images asked, 20 of 40 queries left"}
    assert {other["raised"], nothing["raised"], garbage["raised"]} == {"ValueError"}


def test_a_pickle_that_a_method_sends_runs_no_code_in_the_process_of_the_black_box(trained: Path, loot: Path) -> None:
    assert ended(attack(trained, "send_pickles", loot), trained, APART) == ("done", "")
    assert [json.loads(text)["raised"] for text in read_json(loot / "heard")] == ["ValueError"] * 3
    assert not (loot / "exploded").exists()
    pickle.loads(pickle.dumps(hostile.Bomb(loot / "exploded")))
    assert (loot / "exploded").exists(), "else the pickle is none"


def test_a_question_longer_than_the_budget_ends_the_black_box_and_the_cell_with_a_line(
    trained: Path, loot: Path
) -> None:
    cell = attack(trained, "send_a_huge_question", loot)
    assert ended(cell, trained, APART) == ("failed", "the process of the black box ended with 0")
    assert answered(loot) == [20]


def weights_of(root: Path) -> set[bytes]:
    """The content of each of the teacher's tensors that no other network has by chance."""
    state = teachers.load(task_of("digits-lenet"), root, CPU).state_dict()
    return {content(value) for value in state.values() if len(value.unique()) > 5}


def content(numbers: Tensor) -> bytes:
    return numbers.contiguous().numpy().tobytes()


def seen(file: Path) -> set[bytes]:
    return {content(numbers) for numbers in torch.load(file)}


@pytest.mark.parametrize("how", [WITHIN, APART])
def test_from_the_oracle_a_method_reaches_the_teacher_unless_that_is_in_another_process(
    trained: Path, loot: Path, how: How
) -> None:
    assert ended(attack(trained, "look_around", loot), trained, how) == ("done", "")
    weights, networks = weights_of(trained), read_json(loot / "networks")
    if how.isolate:
        assert not weights & seen(loot / "near.pt")
        assert networks == []
    else:
        assert weights <= seen(loot / "near.pt")
        assert "Normalised" in networks


GRID = """
description: seconds on a CPU
tasks: [digits-lenet]
budgets: [40]
answers: [labels]
seeds: 1
methods:
  noise: {config: {recipe: {passes: 1, min_steps: 2}}}
  ideal: {config: {batch_size: 20, generator_steps: 1, generator_width: 4, latent: 8, crop_padding: 1}}
"""


def command(folder: Path, *options: str) -> None:
    given = ["run", "--grid", str(folder / "grid.yaml"), "--mlflow", "off", "--device", "cpu", "--jobs", "2", *options]
    done = subprocess.run([sys.executable, "-m", "bench", *given], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_gives_the_same_curves_with_isolation_and_no_method_finds_the_weights_in_its_process(
    trained: Path, tmp_path: Path, loot: Path
) -> None:
    curves = []
    (tmp_path / "grid.yaml").write_text(GRID)
    plugin = ["--plugin", hostile.__file__, "--set", "hostile.attack=look_around", "--set", f"hostile.loot={loot}"]
    for name, options in (("within", []), ("apart", ["--isolate"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "teachers").symlink_to(trained / "teachers")
        command(tmp_path, "--out", name, *plugin, *options)
        found = {file.parent.name: file.read_bytes() for file in (tmp_path / name).glob("cells/*/curve.json")}
        curves.append(found)
        assert len(found) == 3
        there = weights_of(trained) & seen(loot / "everywhere.pt")
        assert there == (weights_of(trained) if name == "within" else set())
    assert curves[0] == curves[1]


def test_the_file_of_the_method_is_not_loaded_beside_the_black_box(
    trained: Path, loot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPORTED", str(loot))
    cell = attack(trained, "honest", loot)
    run_cell(cell, trained, NO_DATA, CPU, how=APART, outside=[Path(hostile.__file__)])
    assert state_of(folder_of(trained, cell), None).name == "done"
    assert not [file for file in loot.iterdir() if file.name.isdigit()]


# Ordinary cells.
HONEST = {
    "ideal, labels": ("ideal", Budget(200)),
    "ideal, probs in 8 bits": ("ideal", Budget(200, "probs", "uint8")),
    "noise, probs": ("noise", Budget(200, "probs")),
    "noise, top-3": ("noise", Budget(200, "top-3")),
}


def cell_of(root: Path, method: str, budget: Budget) -> Cell:
    return replace(digits_cell(root, method, budget.queries), budget=budget)


def elsewhere(root: Path, tmp_path: Path) -> Path:
    """Another results folder with the same teachers."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "teachers").symlink_to(root / "teachers")
    return other


@pytest.mark.parametrize("case", HONEST)
def test_a_cell_comes_to_the_same_curve_with_isolation_as_without(trained: Path, tmp_path: Path, case: str) -> None:
    cell, other = cell_of(trained, *HONEST[case]), elsewhere(trained, tmp_path)
    run_cell(cell, trained, NO_DATA, CPU)
    run_cell(cell, other, NO_DATA, CPU, how=APART)
    assert curve_of(other, cell) == curve_of(trained, cell)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("answers", ["round-1", "above-0.5"])
def test_what_a_student_has_fitted_is_the_same_with_isolation_where_answers_hide_the_top_1(
    trained: Path, tmp_path: Path, answers: str
) -> None:
    cell, other = cell_of(trained, "noise", Budget(200, answers)), elsewhere(trained, tmp_path)
    run_cell(cell, trained, NO_DATA, CPU)
    run_cell(cell, other, NO_DATA, CPU, how=APART)
    assert curve_of(other, cell) == curve_of(trained, cell)


def box_at(spent: int, do: Callable[[multiprocessing.process.BaseProcess], object]) -> Callable[..., None]:
    """A report that does something to the process of the black box once so many queries are spent."""

    def report(now: int, _: dict[str, float]) -> None:
        if now == spent:
            (box,) = multiprocessing.active_children()
            do(box)

    return report


def test_a_black_box_that_is_killed_fails_its_cell_in_a_line_and_the_next_attempt_goes_on_from_the_checkpoint(
    trained: Path, tmp_path: Path
) -> None:
    cell, other = cell_of(trained, "ideal", Budget(200)), elsewhere(trained, tmp_path)
    run_cell(cell, trained, NO_DATA, CPU)
    with pytest.raises(CellFailed, match="the process of the black box was killed by SIGKILL"):
        run_cell(cell, other, NO_DATA, CPU, box_at(80, lambda box: box.kill()), how=APART)
    assert read_json(folder_of(other, cell) / "failed.json")["reason"].endswith("black box was killed by SIGKILL")
    assert not multiprocessing.active_children()
    spent: list[int] = []
    run_cell(cell, other, NO_DATA, CPU, lambda now, _: spent.append(now), how=APART)
    assert spent[0] > 20
    assert curve_of(other, cell) == curve_of(trained, cell)


def test_an_endpoint_is_asked_from_the_other_process_and_asked_nothing_twice_when_that_was_killed(
    trained: Path, tmp_path: Path
) -> None:
    ours = cell_of(trained, "ideal", Budget(200))
    run_cell(ours, trained, NO_DATA, CPU)
    with served_at(app_of(teachers.load(task_of("digits-lenet"), trained, CPU))) as url:
        item = Attached("digits-lenet", read(url, Endpoint))
        assert item.box
        attach(item)
        record = examined.examine(task_of(item.name), tmp_path, NO_DATA, CPU, lambda _: None)
        cell = replace(ours, task=item.name, teacher=record.hash)
        with pytest.raises(CellFailed, match="the process of the black box was killed by SIGKILL"):
            run_cell(cell, tmp_path, NO_DATA, CPU, box_at(80, lambda box: box.kill()), how=APART, outside=[item])
        run_cell(cell, tmp_path, NO_DATA, CPU, how=APART, outside=[item])
    assert curve_of(tmp_path, cell) == curve_of(trained, ours)
    counts = count(folder_of(tmp_path, cell) / "journal")
    assert (counts.answered, counts.charged, counts.attempts) == (200, 200, 10)


def test_what_ends_a_command_does_not_end_the_black_box_before_its_cell(trained: Path) -> None:
    def hang_up(box: multiprocessing.process.BaseProcess) -> None:
        assert box.pid
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(box.pid, number)

    cell = cell_of(trained, "ideal", Budget(120))
    run_cell(cell, trained, NO_DATA, CPU, box_at(60, hang_up), how=APART)
    assert state_of(folder_of(trained, cell), None).name == "done"


def test_a_method_that_leaves_the_program_leaves_no_process_behind(trained: Path, loot: Path) -> None:
    cell = attack(trained, "leave_the_program", loot)
    with pytest.raises(CellFailed, match="SystemExit: no more paper"):
        run_cell(cell, trained, NO_DATA, CPU, how=APART)
    assert not multiprocessing.active_children()


def test_a_black_box_that_does_not_open_fails_the_cell_with_its_reason_and_leaves_no_process(trained: Path) -> None:
    cell = cell_of(trained, "noise", Budget(50))
    rewrite_teacher(teachers.file_of(task_of("digits-lenet"), trained), {"weight": torch.zeros(1)})
    with pytest.raises(CellFailed, match="its weights do not fit"):
        run_cell(cell, trained, NO_DATA, CPU, how=APART)
    assert not multiprocessing.active_children()


def test_what_fails_between_the_opening_of_the_black_box_and_the_first_question_closes_it(trained: Path) -> None:
    cell = replace(cell_of(trained, "noise", Budget(50)), exam="agreement-of-nobody")
    with pytest.raises(CellFailed, match="the held-out answers agreement-of-nobody are not in"):
        run_cell(cell, trained, NO_DATA, CPU, how=APART)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("name", ["take_long", "leave_a_fork_behind"])
def test_the_black_box_ends_with_its_cell_also_where_that_is_killed_and_a_child_of_it_lives_on(
    trained: Path, loot: Path, name: str
) -> None:
    started = begun(attack(trained, name, loot), trained, APART)
    assert started.pid
    assert waited_for(lambda: answered(loot))
    (box,) = boxes_of(started.pid)
    started.kill()
    started.join()
    assert waited_for(lambda: not is_alive(box))
    if (loot / "child").exists():
        left = int((loot / "child").read_text())
        assert is_alive(left), "else it held nothing"
        os.kill(left, signal.SIGKILL)


def test_an_answer_that_was_broken_off_is_not_taken_for_that_to_the_next_question(trained: Path) -> None:
    door = OwnProcess(task_of("digits-lenet"), Budget(1_000_000), trained, trained, CPU, [])
    door.resume(0)
    assert door(torch.rand(3, 1, 8, 8)).shape == (3,)

    def ring(*_: object) -> None:
        raise KeyboardInterrupt

    images = torch.rand(60_000, 1, 8, 8)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(KeyboardInterrupt):
        door(images)
    signal.signal(signal.SIGALRM, before)
    with pytest.raises(UsageError, match="the process of the black box"):
        door(torch.rand(3, 1, 8, 8))
    door.close()
    assert not multiprocessing.active_children()


# The protocol alone, without a process.


class Door(RecordingTeacher):
    """A black box of four classes, as a cell meets it."""

    def right(self, _: str, images: Tensor) -> Tensor | None:
        return self.network(images.float().div(255)).argmax(dim=1)

    def resume(self, spent: int) -> None: ...

    def close(self) -> None: ...


def served(queries: int, answers: str = "labels") -> tuple[Served, Door]:
    door = Door()
    return Served(door, Oracle(door, Budget(queries, answers), shape=SHAPE, classes=CLASSES), "cpu"), door


def images_of(n: int) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(n))


QUESTIONS = st.one_of(
    st.integers(1, 30).map(lambda n: packed({"ask": "answers"}, images_of(n))),
    st.integers(-5, 60).map(lambda n: packed({"ask": "resume", "spent": n})),
    st.integers(1, 5).map(lambda n: packed({"ask": "right", "part": "test"}, images_of(n).mul(255).to(torch.uint8))),
    st.sampled_from(["answers", "right", "resume", "spent", "close", None, 3]).map(lambda ask: packed({"ask": ask})),
    st.binary(max_size=40),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda part: st.lists(part)).map(
        lambda value: json.dumps(value).encode()
    ),
)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(questions=st.lists(QUESTIONS, max_size=15), spent=st.integers(0, 50))
def test_whatever_is_asked_in_whatever_order_no_more_is_answered_than_was_left(
    questions: list[bytes], spent: int
) -> None:
    box, door = served(50)
    box.answered(packed({"ask": "resume", "spent": spent}))
    got = 0
    for question in questions:
        told, answers = unpacked(box.answered(question))
        assert answers is None or answers.dtype == torch.int64
        assert answers is not None or told.keys() in ({"raised", "why"}, {"spent"})
        got += 0 if answers is None else len(answers)
    assert got == sum(door.calls) <= 50 - spent
    assert unpacked(box.answered(packed({"ask": "spent"})))[0] == {"spent": spent + got}


@pytest.mark.parametrize(
    "question",
    [
        b'{"ask": "answers", "dtype": "float32", "shape": [1, 1, 8, 8]}\n' + bytes(255),
        b'{"ask": "answers", "dtype": "float32", "shape": [2, 1, 8, 8]}\n' + bytes(256),
        b'{"ask": "answers", "dtype": "float32", "shape": [-1, 1, 8, 8]}\n',
        b'{"ask": "answers", "dtype": "int64", "shape": [1, 1, 8, 8]}\n' + bytes(512),
        b'{"ask": "answers", "dtype": "object", "shape": [1]}\n' + bytes(8),
        b'{"ask": "answers", "dtype": "float32", "shape": "all"}\n' + bytes(256),
        b'{"ask": "answers"}\n' + bytes(256),
        b'{"ask": "answers", "dtype": "float32", "shape": [1, 1, 8, 8]}\n' + b"\xff" * 256,
        b"[" * 100_000,
        b'{"ask": "spent"',
        b'["ask"]',
    ],
)
def test_a_question_that_is_none_is_refused_and_charged_nothing(question: bytes) -> None:
    box, door = served(50)
    box.answered(packed({"ask": "resume", "spent": 0}))
    assert unpacked(box.answered(question))[0]["raised"] == "ValueError"
    assert door.calls == []
    assert unpacked(box.answered(packed({"ask": "answers"}, images_of(3))))[1] is not None


def test_before_the_meter_begins_to_count_nothing_is_answered_that_would_be_counted() -> None:
    box, _ = served(50)
    assert unpacked(box.answered(packed({"ask": "answers"}, images_of(3))))[0] == {
        "raised": "ValueError",
        "why": "answers: wanted after the meter begins to count",
    }
    assert unpacked(box.answered(packed({"ask": "spent"})))[0] == {"spent": 0}


def test_a_message_is_what_was_packed_and_is_nobody_elses_memory() -> None:
    for numbers in (torch.rand(3, 2), torch.arange(4), torch.zeros(2, 3, dtype=torch.uint8), torch.rand(4, 3).T):
        message = packed({"why": "a\nb", "n": 1}, numbers)
        told, got = unpacked(message)
        assert (told["why"], told["n"]) == ("a\nb", 1)
        assert got is not None
        assert got.dtype == numbers.dtype
        assert torch.equal(got, numbers)
        got.add_(1)  # it may be written to
        _, again = unpacked(message)
        assert again is not None
        assert torch.equal(again, numbers)


def test_bytes_that_say_that_endlessly_many_follow_end_the_talk() -> None:
    box, _ = served(10)
    ours, theirs = multiprocessing.Pipe()
    talk = threading.Thread(target=box.talk, args=(theirs,))
    talk.start()
    ours.send_bytes(packed({"ask": "resume", "spent": 0}))
    ours.recv_bytes()
    os.write(ours.fileno(), struct.pack("!iQ", -1, 2**60))
    talk.join(PATIENCE)
    assert not talk.is_alive()
