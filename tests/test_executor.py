"""The local executor: slots, and jobs that end, raise, die or are stopped."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from bench.executors import queue
from bench.executors.jobs import Event, Job
from bench.executors.local import Slot, _Ending, execute, slots
from bench.provenance import precision
from results.claims import Busy

ONE, TWO = [Slot("cpu", 1)], [Slot("cpu", 1)] * 2


def succeed(path: Path, device: torch.device, report: Callable[..., None]) -> None:
    report(0.5, {"threads": torch.get_num_threads()})
    path.write_text(str(device))


def raise_an_error(*_: object) -> None:
    raise ValueError("out of paper")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(*_: object) -> None:
    os._exit(7)


def write_precision(path: Path, *_: object) -> None:
    """Also exports a network, which asks torch how it computes."""
    torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(2, 3),))
    path.write_text(precision())


def sleep(path: Path, *_: object) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def say_nothing(*_: object) -> None:
    time.sleep(60)


def be_told_in_the_last_moment() -> None:
    """The life of a process that is told to end after the last report of a job that saves."""
    ending = _Ending()
    ending.begin(Job("job", say_nothing, (), saves=True))
    os.kill(os.getpid(), signal.SIGTERM)
    ending.begin(None)
    time.sleep(60)


def be_busy_twice(path: Path, *_: object) -> None:
    tries = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (tries + 1))
    if tries < 2:
        raise Busy("cell")


def die_once(path: Path, *_: object) -> None:
    if not path.exists():
        path.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)


def report_often(_: torch.device, report: Callable[..., None]) -> None:
    for done in range(2000):
        report(done, {"loss": 0.1})


def count_until_told(path: Path, _: torch.device, report: Callable[..., None]) -> None:
    """A job that saves: on being told to end it leaves how far it came."""
    done = 0
    try:
        while True:
            done += 1
            report(done, {})
            (path / "alive").write_text(str(os.getpid()))
            time.sleep(0.01)
    finally:
        (path / "saved").write_text(str(done))


def have_children(path: Path, *_: object) -> None:
    loader = DataLoader(TensorDataset(torch.arange(4)), num_workers=1)
    path.write_text(str(sum(int(batch[0]) for batch in loader)))


def kinds(events: list[Event | None], key: str) -> list[str]:
    return [event.kind for event in events if event is not None and event.job.key == key]


def reason(events: list[Event | None], key: str) -> object:
    return next(
        event.detail for event in events if event is not None and event.kind == "failed" and event.job.key == key
    )


def test_jobs_that_raise_or_die_fail_with_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = [
        Job("raises", raise_an_error, ()),
        Job("dies", die, ()),
        Job("leaves", leave, ()),
        Job("succeeds", succeed, (tmp_path / "file",)),
    ]
    events = list(execute(jobs, TWO))
    assert reason(events, "raises") == "out of paper"
    assert reason(events, "dies") == "its process was killed by SIGKILL"
    assert kinds(events, "dies") == ["started", "again", "started", "failed"]
    assert reason(events, "leaves") == "its process exited with 7"
    assert kinds(events, "succeeds") == ["started", "progress", "done"]
    assert (tmp_path / "file").read_text() == "cpu"


def test_a_job_has_the_threads_of_its_slot(tmp_path: Path) -> None:
    events = execute([Job("job", succeed, (tmp_path / "file",))], ONE)
    reports = [event.detail for event in events if event is not None and event.kind == "progress"]
    assert reports == [(0.5, {"threads": 1})]


def test_no_more_jobs_run_at_once_than_there_are_slots(tmp_path: Path) -> None:
    running = most = 0
    for event in execute([Job(str(i), succeed, (tmp_path / str(i),)) for i in range(4)], ONE):
        if event is not None:
            running += {"started": 1, "done": -1}.get(event.kind, 0)
            most = max(most, running)
    assert most == 1


def test_a_job_whose_process_was_killed_once_is_tried_again(tmp_path: Path) -> None:
    events = list(execute([Job("dies once", die_once, (tmp_path / "file",))], ONE))
    assert kinds(events, "dies once") == ["started", "again", "started", "done"]


def test_a_job_that_another_process_is_at_is_looked_at_again_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BUSY", 0.1)
    jobs = [Job("busy", be_busy_twice, (tmp_path / "tries",)), Job("free", succeed, (tmp_path / "file",))]
    events = [event for event in execute(jobs, ONE) if event is not None]
    assert kinds(list(events), "busy") == ["started", "busy", "started", "busy", "started", "done"]
    assert [event.job.key for event in events if event.kind == "done"] == ["free", "busy"]


def test_a_job_that_reports_nothing_for_too_long_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = [Job("silent", say_nothing, ()), Job("succeeds", succeed, (tmp_path / "file",))]
    events = list(execute(jobs, TWO, silence=2.0))
    assert reason(events, "silent") == "it reported nothing for 2 seconds"
    assert kinds(events, "succeeds")[-1] == "done"


def test_a_parent_that_is_away_stops_no_job() -> None:
    events = execute([Job("chatty", report_often, ())], ONE)
    next(events)
    time.sleep(2.0)  # 2,000 reports would fill the pipe many times over
    start = time.monotonic()
    assert kinds(list(events), "chatty")[-1] == "done"
    assert time.monotonic() - start < 1.0


def test_a_job_that_saves_is_given_the_time_to_when_all_is_stopped(tmp_path: Path) -> None:
    events = execute([Job("saves", count_until_told, (tmp_path,), saves=True)], ONE)
    for _ in events:
        if (tmp_path / "alive").exists():
            break
    events.close()
    assert int((tmp_path / "saved").read_text()) >= 1


def _start_and_wait(path: Path) -> None:
    for _ in execute([Job("saves", count_until_told, (path,), saves=True)], ONE):
        pass


def test_a_job_whose_parent_is_killed_saves_and_ends(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=_start_and_wait, args=(tmp_path,))
    parent.start()
    until = time.monotonic() + 60
    while not (tmp_path / "alive").exists() and time.monotonic() < until:
        time.sleep(0.02)
    child = int((tmp_path / "alive").read_text())
    parent.kill()
    parent.join()
    while not (tmp_path / "saved").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "saved").exists()
    while time.monotonic() < until and Path(f"/proc/{child}").exists():
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_a_method_may_have_processes_of_its_own(tmp_path: Path) -> None:
    events = list(execute([Job("loads", have_children, (tmp_path / "sum",))], ONE))
    assert kinds(events, "loads")[-1] == "done"
    assert (tmp_path / "sum").read_text() == "6"


def test_convolutions_of_a_worker_compute_in_true_float32(tmp_path: Path) -> None:
    assert list(execute([Job("precision", write_precision, (tmp_path / "file",))], ONE))
    assert (tmp_path / "file").read_text() == "float32"


def test_stopping_ends_the_processes_that_still_run(tmp_path: Path) -> None:
    events = execute([Job("sleeps", sleep, (tmp_path / "pid",))], ONE)
    for _ in events:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break
    events.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_slot_has_one_thread_unless_asked_otherwise_and_gpus_have_as_many_slots_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert slots(None, [], 1) == [Slot("cpu", 1)] * 8
    assert slots(3, [], 1, 2) == [Slot("cpu", 2)] * 3
    assert slots(None, [0, 1], 2) == [Slot("cuda:0", 1), Slot("cuda:1", 1)] * 2


def say_who(folder: Path, key: str, *_: object) -> None:
    (folder / key).write_text(str(os.getpid()))


def change_dtype(folder: Path, key: str, *_: object) -> None:
    say_who(folder, key)
    torch.set_default_dtype(torch.float64)


def be_busy_once(folder: Path, *_: object) -> None:
    with (folder / "tries").open("a") as tries:
        tries.write(f"{os.getpid()}\n")
    if len((folder / "tries").read_text().splitlines()) < 2:
        raise Busy("cell")


def test_a_process_that_could_not_begin_is_used_again_for_it_remembers_whom_it_met(tmp_path: Path) -> None:
    events = execute([Job("cell", be_busy_once, (tmp_path,), alone=True)], slots(1, [], 1))
    assert [event.kind for event in events if event] == ["started", "busy", "started", "done"]
    first, second = (tmp_path / "tries").read_text().splitlines()
    assert first == second


@pytest.mark.parametrize(
    ("first", "alone", "same"), [(say_who, False, True), (say_who, True, False), (change_dtype, False, False)]
)
def test_a_process_does_one_job_after_another_unless_the_first_left_something_behind(
    tmp_path: Path, first: Callable[..., None], alone: bool, same: bool
) -> None:
    work = [
        Job("first", first, (tmp_path, "first"), alone=alone),
        Job("second", say_who, (tmp_path, "second")),
    ]
    assert [event.kind for event in execute(work, slots(1, [], 1)) if event and event.kind != "started"] == ["done"] * 2
    assert ((tmp_path / "first").read_text() == (tmp_path / "second").read_text()) == same


def test_a_process_that_is_told_to_end_in_the_last_moment_of_a_job_ends_and_does_not_wait_for_another() -> None:
    process = multiprocessing.get_context("forkserver").Process(target=be_told_in_the_last_moment)
    process.start()
    process.join(30)
    try:
        assert process.exitcode == -signal.SIGTERM
    finally:
        process.kill()
