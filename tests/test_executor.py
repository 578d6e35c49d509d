"""The local executor: slots, and jobs that end, raise, die or are stopped."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.executors.jobs import Event, Job
from bench.executors.local import Slot, execute, slots

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


def sleep(path: Path, *_: object) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


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
