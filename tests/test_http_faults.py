"""An endpoint that fails: no answer is lost, none paid for twice, no key is shown, and a run ends as it would have."""

import fcntl
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import chaos_http
import faulty
import httpx
import pytest
import torch
from elsewhere import FLOCKS
from faulty import CLASSES, NAME, SHAPE, Fault, Faulty
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CPU, QUICK
from torch import Tensor

from bench.boxes import described, examined, teachers
from bench.boxes.box import black_box
from bench.boxes.described import Attached, Endpoint, attach
from bench.boxes.examined import PROBES
from bench.boxes.http import client, oip, wire
from bench.boxes.http.bill import Bill
from bench.boxes.http.client import Client
from bench.cells import audit
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import CellFailed, run_cell
from bench.errors import UsageError
from bench.tasks.table import task_of
from budgets import Budget
from budgets.journal import Counts, Journal, count, entries
from results.claims import Robbed
from results.records import Failure, read
from results.store import read_json

QUERIES, BATCH = 160, 8
CURVE = ("budget", "round", "spent", "distinct", "steps", "fitted", "accuracy")
DATA = Path("no-data")
NAN, INF = float("nan"), float("inf")
SLOW, TIMEOUT = faulty.slow(5.0), 1.5

Network = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def network(trained_once: Path) -> Network:
    return black_box(teachers.load(task_of("digits-lenet"), trained_once, CPU))


@pytest.fixture
def server(network: Network) -> Iterator[Faulty]:
    with Faulty(network) as server:
        yield server


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)


@dataclass(frozen=True)
class Run:
    """A cell on a black box that was examined. examination: images that are on the bill for that."""

    root: Path
    cell: Cell
    examination: int

    def go_on(self) -> None:
        run_cell(self.cell, self.root, DATA, CPU)

    @property
    def folder(self) -> Path:
        return self.root / "cells" / self.cell.name()

    @property
    def points(self) -> list[tuple[object, ...]]:
        return [tuple(point[key] for key in CURVE) for point in read_json(self.folder / "curve.json")]

    @property
    def counts(self) -> Counts:
        return count(self.folder / "journal")

    @property
    def charged(self) -> int:
        """Images on the bill for the cell."""
        return examined.bill_of(task_of(self.cell.task), self.root).images - self.examination

    def reason(self) -> str:
        """Why the cell stops, which is one line."""
        with pytest.raises(CellFailed) as end:
            self.go_on()
        reason = read(self.folder / "failed.json", Failure).reason
        assert str(end.value) == reason
        assert "\n" not in reason
        return reason


def box_at(server: Faulty, **said: Any) -> Endpoint:
    box = described.read(server.url, Endpoint, **{"batch": BATCH, "patience": 10.0, "agreement": False, **said})
    assert isinstance(box, Endpoint)
    return box


def begun(server: Faulty, root: Path, method: str = "noise", queries: int = QUERIES, **said: Any) -> Run:
    """A cell that may be run, on the server as it is; its counts and its schedule begin with the cell."""
    attached = Attached(NAME, box_at(server, **said))
    attach(attached)
    task = task_of(attached.name)
    record = examined.examine(task, root, DATA, CPU, lambda _: None)
    config = canonical_config(method, QUICK[method])
    cell = Cell(attached.name, method, config, Budget(queries, "labels"), 0, record.hash)
    server.images = server.billed = server.most = 0
    server.asked.clear()
    return Run(root, cell, examined.bill_of(task, root).images)


def again(run: Run, server: Faulty, **said: Any) -> Run:
    """The same cell, with other manners."""
    attach(Attached(NAME, box_at(server, **said)))
    return run


@pytest.fixture(scope="module")
def undisturbed(network: Network, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    with Faulty(network) as server:
        run = begun(server, tmp_path_factory.mktemp("undisturbed"))
        run.go_on()
        assert server.images == server.billed == run.charged == QUERIES
        assert max(asked.images for asked in server.asked) == BATCH
        return run.points


def other(network: Network) -> Network:
    """A model that answers otherwise."""
    return lambda images: network(images).roll(1, dims=1)


def asked_after_answered(journal: Path) -> list[int]:
    """Where the journal says that something was sent whose answer it had."""
    answered: set[int] = set()
    found = []
    for entry in entries(journal):
        if entry["kind"] == "answer":
            answered.add(entry["at"])
        elif entry["kind"] == "sent" and entry["at"] in answered:
            found.append(entry["at"])
    return found


# What passes.


def scaled(factor: float) -> Fault:
    return faulty.spoilt(lambda scores: scores * factor)


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        pytest.param(faulty.dropped, "lost", id="dropped before it is read"),
        pytest.param(faulty.lost, "lost", id="answer lost"),
        pytest.param(faulty.cut, "lost", id="answer cut"),
        pytest.param(SLOW, "lost", id="slow beyond the timeout"),
        pytest.param(faulty.state(429), "refused", id="429"),
        pytest.param(faulty.state(500, "<h1>Error</h1>"), "refused", id="500"),
        pytest.param(faulty.state(503, Retry_After="soon"), "refused", id="503"),
        pytest.param(faulty.instead(b"<html>Sign in</html>"), "unusable", id="HTML"),
        pytest.param(faulty.instead(b'{"outputs": [{"na'), "unusable", id="JSON cut"),
        pytest.param(faulty.instead(b""), "unusable", id="nothing"),
        pytest.param(faulty.instead(b"\xff\x00" * 99), "unusable", id="bytes"),
        pytest.param(faulty.instead(b"[" * 99_999), "unusable", id="brackets"),
        pytest.param(faulty.instead(b"none", Content_Encoding="gzip"), "unusable", id="no gzip"),
        pytest.param(scaled(NAN), "unusable", id="NaN"),
        pytest.param(scaled(INF), "unusable", id="infinite"),
        pytest.param(scaled(2.0), "unusable", id="rows that add up to 2"),
        pytest.param(faulty.spoilt(lambda scores: scores[:, 1:]), "unusable", id="too few classes"),
        pytest.param(faulty.spoilt(lambda scores: scores[1:]), "unusable", id="too few rows"),
        pytest.param(faulty.spoilt(lambda scores: scores, id="another"), "unusable", id="another's answer"),
    ],
)
def test_after_a_fault_that_passes_the_curve_is_the_same_and_the_bill_the_endpoints(
    server: Faulty, tmp_path: Path, undisturbed: list[tuple[object, ...]], fault: Fault, how: str
) -> None:
    run = begun(server, tmp_path, timeout=TIMEOUT if fault is SLOW else 60.0)
    server.plan({2: fault, 9: fault})
    run.go_on()
    assert run.points == undisturbed
    failed = {"lost": 0, "refused": 0, "unusable": 0, how: 2 * BATCH}
    attempts = QUERIES // BATCH + 2
    assert run.counts == Counts(QUERIES, QUERIES, attempts, failed["lost"], failed["refused"], failed["unusable"], 0)
    assert len(server.asked) == attempts
    assert server.images == QUERIES  # a repeat bears the name of the first, and the server knows it
    dropped = 2 * BATCH if fault is faulty.dropped else 0  # which nobody but the server can tell from a lost answer
    assert run.charged == run.counts.charged == server.billed + dropped


def test_a_server_that_is_away_for_a_while_is_waited_for(
    server: Faulty, tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    run = begun(server, tmp_path, retries=1)
    server.plan({5: faulty.away(1.5)})
    run.go_on()
    assert run.points == undisturbed
    assert run.counts.refused > 0  # nobody listened
    assert run.charged == run.counts.charged == QUERIES + run.counts.lost


def test_a_retry_that_may_be_paid_for_is_made_no_oftener_than_was_said(server: Faulty, tmp_path: Path) -> None:
    run = begun(server, tmp_path, retries=2, concurrency=1)
    server.plan(always=faulty.lost)
    assert "gave no answer in 3 attempts" in run.reason()
    assert run.charged == server.billed == 3 * BATCH


# What stays.


@pytest.mark.parametrize(
    ("fault", "told", "at_once"),
    [
        pytest.param(faulty.state(401, "who?"), "says 401 Unauthorized who?", True, id="401"),
        pytest.param(faulty.state(403, "no"), "says 403 Forbidden no", True, id="403"),
        pytest.param(faulty.state(404, '{"error": "unknown\n model"}'), 'says 404 Not Found {"error"', True, id="404"),
        pytest.param(faulty.state(302, Location="/login"), "says 302 Found", True, id="302"),
        pytest.param(faulty.state(429, Retry_After="3600"), "asks to wait 3,600 s; `patience` is 0.2", True, id="429"),
        pytest.param(faulty.state(500, "broken"), "says 500 Internal Server Error broken", False, id="500"),
        pytest.param(faulty.dropped, "Server disconnected", False, id="dropped"),
        pytest.param(SLOW, "ReadTimeout", False, id="slow"),
        pytest.param(faulty.instead(b"<p>Hello"), "no answer of this protocol but <p>Hello", False, id="HTML"),
        pytest.param(scaled(NAN), "scores that are no finite numbers", False, id="NaN"),
        pytest.param(scaled(0.5), "scores that add up to 0.5 to 0.5, wanted probabilities", False, id="halves"),
        pytest.param(faulty.spoilt(lambda scores: scores[:, 1:]), "shape (8, 9), wanted 8 x 10", False, id="classes"),
    ],
)
def test_a_fault_that_stays_is_told_in_one_line_and_answers_are_not_asked_for_again(
    server: Faulty, tmp_path: Path, undisturbed: list[tuple[object, ...]], fault: Fault, told: str, at_once: bool
) -> None:
    timeout = TIMEOUT if fault is SLOW else 60.0
    run = begun(server, tmp_path, retries=1, patience=0.2, timeout=timeout, concurrency=2)
    server.plan(dict.fromkeys(range(1, 6), faulty.none), always=fault)
    assert told in run.reason()
    if at_once:  # but for what is on its way, nothing is sent any more
        assert len(server.asked) <= 5 + 2
    assert run.counts.answered == 5 * BATCH
    server.plan()
    run.go_on()
    assert run.points == undisturbed
    assert asked_after_answered(run.folder / "journal") == []
    assert run.counts.answered == server.images == QUERIES
    assert run.counts.in_doubt == 0
    dropped = run.counts.lost if fault is faulty.dropped else 0
    assert run.charged == run.counts.charged == server.billed + dropped


def test_another_model_in_the_middle_stops_the_cell_and_its_answers_are_not_used(
    server: Faulty, tmp_path: Path, network: Network, undisturbed: list[tuple[object, ...]]
) -> None:
    run = begun(server, tmp_path)
    server.plan({6: faulty.becomes(other(network), "2")})
    assert "has changed: its model was version 1, is 2" in run.reason()
    assert run.counts.unusable in (BATCH, 2 * BATCH, 3 * BATCH, 4 * BATCH)  # those that were on their way
    assert run.charged == run.counts.charged == server.billed
    server.become(network, "1")
    run.go_on()
    assert run.points == undisturbed


def test_a_model_that_is_not_the_one_that_was_examined_is_sent_nothing(server: Faulty, tmp_path: Path) -> None:
    with asking(server, tmp_path, version="0") as ask, pytest.raises(client.Changed, match="was version 0, is 1"):
        ask(torch.rand(1, *SHAPE))
    assert server.asked == []


def test_where_one_request_fails_for_good_the_others_are_not_begun(server: Faulty, tmp_path: Path) -> None:
    images = torch.rand(50 * BATCH, *SHAPE)
    with asking(server, tmp_path, concurrency=2) as ask:
        server.plan({3: faulty.state(401)})
        with pytest.raises(UsageError, match="401"):
            ask(images)
    assert len(server.asked) <= 4


# Manners.


@contextmanager
def asking(server: Faulty, folder: Path, name: str = "test", version: str = "", **said: Any) -> Iterator[Client]:
    box = box_at(server, **said)
    folder.mkdir(parents=True, exist_ok=True)
    bill = Bill(folder, box.price, box.limit)
    asked = Client(box, CLASSES, Journal(folder / f"{name}.journal", {"test": name}), bill, name, version)
    try:
        yield asked
    finally:
        asked.close()


def in_two_seconds() -> str:
    return formatdate(time.time() + 2, usegmt=True)


@pytest.mark.parametrize(("after", "least", "most"), [(lambda: "1", 1.0, 4.0), (in_two_seconds, 1.0, 5.0)])
def test_who_is_told_to_wait_sends_nothing_for_so_long(
    server: Faulty, tmp_path: Path, after: Callable[[], str], least: float, most: float
) -> None:
    with asking(server, tmp_path, concurrency=2) as ask:
        server.plan({3: lambda exchange: faulty.state(429, Retry_After=after())(exchange)})
        ask(torch.rand(12 * BATCH, *SHAPE))
    times = [asked.at for asked in server.asked]
    assert len(times) == 13
    refused = times[2]
    early = [moment for moment in times[3:] if moment < refused + least - 0.1]
    assert len(early) <= 1  # on its way when the server spoke
    (next_, *_) = [moment for moment in times[3:] if moment not in early]
    assert least - 0.1 <= next_ - refused <= most


def test_several_who_ask_one_endpoint_share_its_bound_on_requests_at_once(server: Faulty, tmp_path: Path) -> None:
    server.pause = 0.02

    def ask_all(name: str) -> None:
        with asking(server, tmp_path, name, concurrency=2) as ask:
            ask(torch.rand(10 * BATCH, *SHAPE))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask_all, "abc"))
    assert len(server.asked) == 30
    assert server.most == 2


@pytest.mark.parametrize(("rate", "requests"), [(20.0, 15), (0.8, 2)])
def test_several_who_ask_one_endpoint_share_its_rate(
    server: Faulty, tmp_path: Path, rate: float, requests: int
) -> None:
    def ask_all(name: str) -> None:
        with asking(server, tmp_path, name, rate=rate) as ask:
            ask(torch.rand(requests * BATCH, *SHAPE))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask_all, "ab"))
    assert len(server.asked) == 2 * requests
    assert no_faster([asked.at for asked in server.asked], rate)


def no_faster(times: list[float], rate: float) -> bool:
    """Whether each request came no sooner after the first than the rate allows; the first may have been late."""
    return all(moment - times[0] >= number / rate - 0.3 for number, moment in enumerate(times))


def test_no_request_has_more_images_than_the_batch(server: Faulty, tmp_path: Path) -> None:
    with asking(server, tmp_path, batch=7) as ask:
        ask(torch.rand(24, *SHAPE))
    assert sorted(asked.images for asked in server.asked) == [3, 7, 7, 7]


# Money.


def test_the_limit_on_money_stops_the_cell_and_a_higher_one_goes_on_without_paying_again(
    server: Faulty, tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    run = begun(server, tmp_path, price=1000.0, concurrency=1)
    limit = run.examination + 100.0
    again(run, server, price=1000.0, limit=limit, concurrency=1)
    assert f"the limit on money is reached: {limit - 4:.2f} of {limit:.2f} USD are spent, and 8 more" in run.reason()
    assert run.charged == server.billed == 96
    assert "the limit on money is reached" in run.reason()  # and does not creep
    again(run, server, price=1000.0, limit=run.examination + QUERIES + 0.0, concurrency=1)
    run.go_on()
    assert run.points == undisturbed
    assert run.charged == server.billed == server.images == QUERIES


def limited_examination(server: Faulty, root: Path, limit: float) -> examined.Examined | None:
    """What is known of the server's model once it was examined for so much money at most."""
    attached = Attached(NAME, box_at(server, agreement=True, price=1000.0, limit=limit))
    attach(attached)
    with suppress(UsageError):
        examined.examine(task_of(attached.name), root, DATA, CPU, lambda _: None)
    return examined.examined(task_of(attached.name), root)


def test_an_examination_that_a_limit_ends_goes_on_from_there(server: Faulty, tmp_path: Path) -> None:
    assert limited_examination(server, tmp_path, 200.0) is None
    assert PROBES < server.images <= 200
    known = limited_examination(server, tmp_path, 1e6)
    assert known
    assert known.asked == server.images == 2 * PROBES + 500, "each test image is paid for once"


def test_a_model_that_changes_while_its_examination_is_interrupted_is_noticed(
    server: Faulty, tmp_path: Path, network: Network
) -> None:
    assert limited_examination(server, tmp_path, 200.0) is None
    server.become(other(network), "2")
    known = limited_examination(server, tmp_path, 1e6)
    assert known
    assert known.version == "2"
    assert "was version 1, is 2" in known.changes[0]


def test_all_that_is_asked_of_an_endpoint_is_on_one_bill(server: Faulty, tmp_path: Path) -> None:
    folders = set()
    for task, said in ((NAME, {}), (NAME, {"batch": BATCH + 1}), (NAME, {"agreement": True}), ("mnist-lenet5", {})):
        attached = Attached(task, box_at(server, **said))
        attach(attached)
        folders.add(examined.bill_of(task_of(attached.name), tmp_path).folder)
    assert len(folders) == 1


def test_pictures_are_no_floats() -> None:
    for encoding in ("png", "base64"):
        with pytest.raises(UsageError, match="wanted with inputs: uint8"):
            described.read("http://127.0.0.1:1", Endpoint, images={"encoding": encoding})


def test_places_that_are_asked_again_in_other_company_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [("answer", 0, 100), ("sent", 100, 100), ("answer", 100, 100), ("answer", 0, 250), ("answer", 300, 10)]
    found = [{"kind": kind, "at": at, "n": n} for kind, at, n in kept]
    monkeypatch.setattr(audit.journal, "entries", lambda _: found)
    assert audit._asked(Path()) == 260


# Keys.


KEY = "sk-kept-4711-secret"


def said_back(exchange: faulty.Exchange) -> str:
    return dict(exchange.scope["headers"])[b"authorization"].decode()


async def echoed(exchange: faulty.Exchange) -> None:
    """Each of what an endpoint may say of a key, in turn."""
    key = said_back(exchange)
    faults = [
        faulty.state(500, f"the key {key} is unknown"),
        faulty.instead(f"{'x' * 280} {key}".encode()),
        faulty.spoilt(lambda scores: scores, id=key),
        faulty.spoilt(lambda scores: scores[1:], model_version=key.split()[1]),
        faulty.state(401, f'{{"error": "the key {key} is unknown"}}'),
    ]
    await faults[min(len(exchange.server.asked), len(faults)) - 1](exchange)


def test_a_key_is_sent_and_shown_nowhere_even_where_the_endpoint_says_it_back(
    server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TEST_KEY", f"{KEY}\n")  # as a file has it
    run = begun(server, tmp_path, headers={"Authorization": "Bearer ${BENCH_TEST_KEY}"}, concurrency=1)
    server.plan(always=echoed)
    assert "says 401 Unauthorized" in run.reason()
    assert len(server.asked) == 5
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert run.folder / "failed.json" in files
    shown = [file for file in files if KEY.encode()[:10] in file.read_bytes()]
    assert shown == []
    assert "***" in (run.folder / "failed.json").read_text()


def test_a_password_in_the_address_is_shown_nowhere(server: Faulty, tmp_path: Path) -> None:
    run = begun(server, tmp_path, base=server.url.replace("://", f"://alice:{KEY}@"))
    server.plan(always=faulty.state(401, "who are you?"))
    assert "says 401 Unauthorized" in run.reason()
    assert [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()] == []


def test_a_key_that_is_not_set_is_told_and_the_cell_runs_once_it_is(
    server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TEST_KEY", KEY)
    run = begun(server, tmp_path, headers={"Authorization": "Bearer ${BENCH_TEST_KEY}"})
    monkeypatch.delenv("BENCH_TEST_KEY")
    assert "a header wants the environment variable BENCH_TEST_KEY, which is not set" in run.reason()
    monkeypatch.setenv("BENCH_TEST_KEY", KEY)
    run.go_on()


@pytest.mark.parametrize("key", ["k\u00e4y-4711", "two\nlines-4711", "bell\a-4711"])
def test_a_key_that_no_header_may_have_is_told_without_it(
    server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("BENCH_TEST_KEY", key)
    with pytest.raises(UsageError) as told, asking(server, tmp_path, headers={"X-Key": "${BENCH_TEST_KEY}"}):
        pass
    assert "header X-Key has characters that no header may have" in str(told.value)
    assert "4711" not in str(told.value)
    assert server.asked == []


# Another model.


@pytest.mark.parametrize(
    ("version", "told"), [("2", "its model was version 1, is 2"), ("1", "it answers otherwise to 32 of 32 probes")]
)
def test_a_box_that_changes_is_told_examined_anew_and_old_cells_count_nowhere(
    server: Faulty, tmp_path: Path, network: Network, version: str, told: str
) -> None:
    run = begun(server, tmp_path)
    run.go_on()
    task = task_of(run.cell.task)
    assert examined.changed(task, tmp_path) is None
    server.become(other(network), version)
    assert examined.changed(task, tmp_path) == told
    now = begun(server, tmp_path)
    assert now.cell.teacher != run.cell.teacher
    assert now.cell.name() != run.cell.name()
    assert [told in change for change in examined.examined(task, tmp_path).changes] == [True, True]  # type: ignore[union-attr]
    with pytest.raises(CellFailed, match="is no longer"):
        Run(tmp_path, replace(run.cell, seed=1), 0).go_on()
    now.go_on()
    assert server.images == QUERIES


# A disk that takes nothing.


def full(folder: Path) -> Callable[[], None]:
    """Fill its disk; returns what makes room again."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler.unlink


def limited(folder: Path) -> Callable[[], None]:
    """Let no file grow beyond its journal and a few lines; returns what ends that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (journal,) = folder.glob("cells/*/journal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 400, limits[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def frozen(folder: Path) -> Callable[[], None]:
    """Let the folder only be read; returns what ends that. A file that is open already may be written."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    return lambda: subprocess.run(["umount", folder], check=True) and None


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("only who may mount has a disk that fills up")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [(full, "No space left on device"), (frozen, "Read-only file system"), (limited, "File too large")],
)
def test_a_disk_that_takes_nothing_stops_the_cell_which_goes_on_later_without_paying_again(
    server: Faulty,
    tmp_path: Path,
    undisturbed: list[tuple[object, ...]],
    trouble: Callable[[Path], Callable[[], None]],
    told: str,
) -> None:
    undo: list[Callable[[], None]] = []

    async def happens(exchange: faulty.Exchange) -> None:
        undo.append(trouble(tmp_path / "runs"))
        await faulty.none(exchange)

    with nullcontext() if trouble is limited else small_disk(tmp_path / "runs"):
        run = begun(server, tmp_path / "runs")
        server.plan({6: happens})
        with pytest.raises((CellFailed, OSError), match=told) as end:  # OSError: not even the reason can be written
            run.go_on()
        assert "\n" not in str(end.value)
        assert len(server.asked) <= 6 + 2 * 4  # those on their way, and one each that was begun
        undo[0]()
        server.plan()
        run.go_on()
        assert run.points == undisturbed
        assert asked_after_answered(run.folder / "journal") == []
        assert run.counts.answered == server.images == QUERIES
        assert run.counts.charged >= server.billed
        assert 0 <= run.charged - run.counts.charged <= 4 * BATCH  # put on the bill, and not sent


@pytest.mark.parametrize("method", ["noise", "ideal"])
def test_a_cell_that_was_robbed_sends_no_more_than_was_on_its_way(server: Faulty, tmp_path: Path, method: str) -> None:
    run = begun(server, tmp_path / "runs", method, concurrency=2)

    async def robbed(exchange: faulty.Exchange) -> None:
        (run.folder / "claim.2").write_text("{}")
        (run.folder / "claim.1").unlink()
        await faulty.none(exchange)

    server.plan({4: robbed})
    with pytest.raises(Robbed):
        run.go_on()
    assert 4 <= len(server.asked) <= 6
    assert not (run.folder / "failed.json").exists()
    (run.folder / "claim.2").write_text("{}\nreleased\n")
    run.go_on()
    assert run.counts.answered == QUERIES


def test_where_there_are_no_locks_an_endpoint_is_not_asked_for_its_bounds_could_not_be_kept(
    server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asking(server, tmp_path) as ask:
        monkeypatch.setattr(fcntl, "flock", FLOCKS["none"])
        with pytest.raises(UsageError, match=r"no locks on this file system .*; choose another --out"):
            ask(torch.rand(BATCH, *SHAPE))
    assert not server.asked


# Kills.


@pytest.mark.slow
def test_a_run_that_is_killed_loses_no_answer_and_pays_for_none_twice(trained: Path, tmp_path: Path) -> None:
    whole, lasts = chaos_http.undisturbed(tmp_path / "whole", trained)
    tally = chaos_http.disturbed(tmp_path / "killed", trained, 3, lasts, whole, random.Random(0))
    assert tally.good
    assert tally.kills > 0


# A whole command.


GRID = """
description: two cells that ask at once
tasks: [digits-lenet]
budgets: [80]
answers: [labels]
seeds: 2
methods:
  noise: {config: {recipe: {batch_size: 40, passes: 4, min_steps: 4}}}
"""
BOX = """
base: URL
headers: {X-Key: "key ${BENCH_TEST_KEY}"}
batch: 4
concurrency: 2
rate: 40
retries: 2
agreement: false
"""


def test_a_command_shows_no_key_and_its_processes_share_the_bounds_of_the_endpoint(
    server: Faulty, tmp_path: Path
) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "box.yaml").write_text(BOX.replace("URL", server.url))
    options = ["--grid", "grid.yaml", "--blackbox", "box.yaml", "--jobs", "2", "--mlflow", "off", "--out", "runs"]
    server.pause = 0.02

    async def echoed(exchange: faulty.Exchange) -> None:
        key = dict(exchange.scope["headers"])[b"x-key"].decode()
        answer = faulty.state(500, key) if len(server.asked) % 5 == 3 else faulty.none
        await (faulty.state(403, f"not with {key}") if len(server.asked) > 40 else answer)(exchange)

    server.plan(always=echoed)
    command = [sys.executable, "-m", "bench", "run", *options]
    environment = {**os.environ, "BENCH_TEST_KEY": KEY, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "says 403 Forbidden not with ***" in ended.stdout
    assert KEY not in ended.stdout + ended.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len([file for file in files if file.name == "failed.json"]) > 0
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []
    assert server.most == 2
    of_cells = [asked.at for asked in server.asked[PROBES // 4 :]]
    assert no_faster(of_cells, 40.0)


# What is no answer.


KEYS = ["outputs", "datatype", "shape", "data", "parameters", "binary_data_size", "id", "scores", "label", "score"]
WORDS = ["FP32", "INT64", "images", "3", "nan", "1e999"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([0.1, 2, 10, 10**400, *WORDS]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
        | st.lists(st.lists(inner, min_size=10, max_size=10), min_size=2, max_size=2)
    ),
    max_leaves=30,
)
outputs = st.fixed_dictionaries(
    {}, optional={"datatype": st.sampled_from(WORDS), "shape": values, "data": values, "parameters": values}
)
DESCRIPTIONS: list[dict[str, Any]] = [
    {"scores": "scores"},
    {"scores": "@"},
    {"scores": "length(@)"},
    {"labels": "label"},
    {"pairs": "@"},
    {"scores": "scores", "version": "id.label"},
]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(content=values | st.fixed_dictionaries({"outputs": st.lists(outputs, max_size=2)}), tail=st.binary(max_size=9))
def test_whatever_an_endpoint_says_is_an_answer_as_described_or_told_to_be_none(content: Any, tail: bytes) -> None:
    header = json.dumps(content).encode()
    whole = httpx.Response(200, content=header)
    parted = httpx.Response(200, content=header + tail, headers={oip.LENGTH: str(len(header))})
    boxes = [Endpoint(base="http://x", answer=answer) for answer in DESCRIPTIONS]
    check_answer(partial(oip.answers, boxes[0], parted, "a", 2, 10))
    for box in boxes:
        check_answer(partial(wire.answers, box, whole, 2, 10))


def check_answer(given: Callable[[], tuple[Tensor, str]]) -> None:
    try:
        found, version = given()
    except wire.Garbage:
        return
    assert isinstance(version, str)
    assert tuple(found.shape) in {(2,), (2, 10)}
    assert found.ndim == 2 or set(found.tolist()) <= set(range(10))


@pytest.mark.parametrize("text", ["", "soon", "-5", "nan", "99999999 Oct inf 07:28:00 -9999"])
def test_a_retry_after_that_means_nothing_asks_for_nothing(server: Faulty, tmp_path: Path, text: str) -> None:
    with asking(server, tmp_path) as ask:
        server.plan({1: faulty.state(429, Retry_After=text)})
        ask(torch.rand(1, *SHAPE))
    assert len(server.asked) == 2


# What is no endpoint.


def look(base: str, folder: Path) -> None:
    """See who answers at the address, and what model it has."""
    box = described.read(base, Endpoint, retries=1)
    assert isinstance(box, Endpoint)
    asked = Client(box, CLASSES, Journal(folder / "journal", {}), Bill(folder, 0.0, None), "test")
    try:
        asked.look()
    finally:
        asked.close()


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("127.0.0.1:8080", "wanted an address such as http://127.0.0.1:8080"),
        ("ftp://127.0.0.1", "wanted an address such as http://127.0.0.1:8080"),
        ("http://127.0.0.1:many", "Invalid port: 'many'"),
        ("http://127.0.0.1:9", "gave no answer in 2 attempts: http://127.0.0.1:9/v2/health/ready: ConnectError"),
    ],
)
def test_an_address_where_nobody_answers_is_told_soon(tmp_path: Path, base: str, told: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError) as error:
        look(base, tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - begun < 5
