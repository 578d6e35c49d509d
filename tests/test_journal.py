"""The journal: an answer that was paid is there whatever happens, and no other is ever given for it."""

import errno
import fcntl
import json
import multiprocessing
import os
import random
import resource
import stat
import struct
import subprocess
import tempfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import FLOCKS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from budgets.journal import Counts, Journal, JournalError, count, entries

UNHURRIED = settings(deadline=None, derandomize=True, max_examples=60)  # a busy machine is no failure
FORK = multiprocessing.get_context("fork")
ABOUT = {"cell": "c0ffee", "batch": 64}
AS_ROOT = os.geteuid() == 0

few_images = st.lists(st.integers(0, 3), min_size=1, max_size=3)
places = st.integers(0, 3)
names = st.sampled_from(["a", "b"])
requests = st.tuples(places, st.integers(1, 3), names)
operations = st.lists(
    st.tuples(st.just("sent"), requests)
    | st.tuples(st.sampled_from(["refused", "lost", "unusable"]), requests)
    | st.tuples(st.just("answer"), st.tuples(places, few_images, names)),
    max_size=10,
)


def prints(*images: int) -> bytes:
    """The fingerprints of those images."""
    return struct.pack(f"<{len(images)}q", *images)


def answers_to(*images: int, turn: int = 0) -> Tensor:
    """Probabilities that tell the images apart, and how often they were asked about."""
    return torch.tensor([[image, turn] for image in images], dtype=torch.float32)


def same(found: Tensor | None, wanted: Tensor) -> bool:
    """Whether two answers are the same to the last bit, whatever is no number in them."""
    assert found is not None
    return (
        found.dtype == wanted.dtype
        and found.shape == wanted.shape
        and found.numpy().tobytes() == wanted.numpy().tobytes()
    )


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in which nothing waits for the disk, for tests that make hundreds of journals."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield Path(folder)


def play(book: Journal, operation: tuple[str, Any], turn: int = 0) -> None:
    kind, (at, what, id) = operation
    if kind == "answer":
        book.keep(at, prints(*what), id, answers_to(*what, turn=turn))
    elif kind == "sent":
        book.sent(at, what, id)
    else:
        book.failed(kind, at, what, id, "why")  # type: ignore[arg-type]


def check_found(book: Journal, done: list[tuple[str, Any]], at: int, images: list[int]) -> None:
    """The journal says what a plain list says."""
    turns = [
        turn for turn, (kind, (where, what, _)) in enumerate(done) if (kind, where, what) == ("answer", at, images)
    ]
    found = book.find(at, prints(*images))
    assert same(found, answers_to(*images, turn=turns[0])) if turns else found is None


def line(entry: Any) -> bytes:
    """A record as the format has it, put together here anew."""
    content = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    length = f"{len(content):08x}"
    digits = blake2b(content).hexdigest()[:16]
    return f"{length} {zlib.crc32(length.encode()):08x} {digits} ".encode() + content + b"\n"


def refusal(path: Path) -> str:
    """The line with which both a writer and a reader refuse the file, which stays as it is."""
    before = path.read_bytes()
    with pytest.raises(JournalError) as of_reader:
        list(entries(path))
    with pytest.raises(JournalError) as of_writer:
        Journal(path, ABOUT)
    assert path.read_bytes() == before
    assert str(of_reader.value) == str(of_writer.value)
    assert "\n" not in str(of_writer.value)
    assert str(path) in str(of_writer.value)
    return str(of_writer.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def small(path: Path) -> Path:
    """A journal of one record of each kind, some 900 bytes."""
    with Journal(path, ABOUT) as book:
        book.sent(0, 2, "a")
        book.failed("refused", 0, 2, "a", "429")
        book.keep(0, prints(1, 2), "b", answers_to(1, 2))
        book.failed("lost", 2, 1, "c", "timeout")
        book.failed("unusable", 2, 1, "d", "html")
        book.keep(2, prints(3), "e", torch.tensor([7]))
    return path


# What is kept


@UNHURRIED
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.int64]))
def test_an_answer_comes_back_bit_for_bit_at_once_and_after_a_restart(data: st.DataObject, dtype: torch.dtype) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    size = int(np.prod(shape)) * dtype.itemsize
    answers = torch.frombuffer(bytearray(data.draw(st.binary(min_size=size, max_size=size))), dtype=dtype).view(shape)
    images = prints(*range(shape[0]))
    with quick_folder() as folder:
        with Journal(folder / "journal", ABOUT) as book:
            book.keep(10**12, images, "id", answers)
            assert same(book.find(10**12, images), answers)
        with Journal(folder / "journal", ABOUT) as book:
            assert same(book.find(10**12, images), answers)


def test_a_hidden_probability_is_still_none_and_a_view_is_kept_as_it_looks(path: Path) -> None:
    answers = torch.tensor([[0.5, torch.nan], [torch.inf, -0.0], [1, 2]], requires_grad=True).t()
    with Journal(path, ABOUT) as book:
        book.keep(0, prints(1, 2), "id", answers)
        found = book.find(0, prints(1, 2))
        assert same(found, answers.detach().contiguous())
        assert found is not None
        found.fill_(9)  # it is the caller's own
        assert same(book.find(0, prints(1, 2)), answers.detach().contiguous())


@UNHURRIED
@given(done=operations, at=places, images=few_images)
def test_find_gives_the_first_answer_to_these_images_at_this_place_and_never_another(
    done: list[tuple[str, Any]], at: int, images: list[int]
) -> None:
    with quick_folder() as folder:
        for operations_now in (done, []):  # the second time from the file alone
            with Journal(folder / "journal", ABOUT) as book:
                for turn, operation in enumerate(operations_now):
                    play(book, operation, turn)
                check_found(book, done, at, images)


def test_a_request_that_was_computed_otherwise_after_a_restart_has_an_answer_of_its_own(path: Path) -> None:
    with Journal(path, ABOUT) as book:
        book.keep(64, prints(1, 2), "a", answers_to(1, 2))
        book.keep(66, prints(5, 6), "a", answers_to(5, 6))
        book.keep(64, prints(1, 3), "b", answers_to(1, 3))
        assert same(book.find(64, prints(1, 2)), answers_to(1, 2))
        assert same(book.find(64, prints(1, 3)), answers_to(1, 3))
        assert same(book.find(66, prints(5, 6)), answers_to(5, 6))
        for images in (prints(1), prints(1, 2, 3), prints(2, 1), b"", prints(1, 2)[:15]):
            assert book.find(64, images) is None


def test_of_two_answers_to_the_same_request_the_first_counts_as_it_did_when_it_was_the_only_one(path: Path) -> None:
    with Journal(path, ABOUT) as book:
        for turn in range(3):
            book.keep(0, prints(1), str(turn), answers_to(1, turn=turn))
            assert same(book.find(0, prints(1)), answers_to(1))
    with Journal(path, ABOUT) as book:
        assert same(book.find(0, prints(1)), answers_to(1))


UNFIT: dict[str, tuple[int, bytes, Tensor, str]] = {
    "doubles": (0, prints(1), torch.zeros(1, 2, dtype=torch.float64), "float64: wanted float32 or int64"),
    "truth values": (0, prints(1), torch.zeros(1, dtype=torch.bool), "bool: wanted float32 or int64"),
    "fewer answers than images": (0, prints(1, 2), torch.zeros(1, 2), r"16 bytes .* \(1, 2\): wanted 8 an image"),
    "a lone number": (0, prints(1), torch.tensor(1.0), r"8 bytes .* \(\): wanted 8 an image"),
    "a byte too many": (0, prints(1) + b"1", torch.zeros(1, 2), r"9 bytes .* \(1, 2\): wanted 8 an image"),
    "no image": (0, b"", torch.zeros(0, 2), "wanted .* n and shape of 1 or more"),
    "no class": (0, prints(1), torch.zeros(1, 0), "wanted .* n and shape of 1 or more"),
    "before the first image": (-1, prints(1), torch.zeros(1, 2), "wanted .* at of 0 or more"),
    "beyond all images": (2**63, prints(1), torch.zeros(1, 2), "a record .*: wanted"),
    "a truth value for a place": (True, prints(1), torch.zeros(1, 2), "a record .*: wanted"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_could_not_be_read_back_is_not_written(small: Path, kind: str) -> None:
    before = small.read_bytes()
    at, images, answers, wanted = UNFIT[kind]
    with Journal(small, ABOUT) as book, pytest.raises(ValueError, match=wanted):
        book.keep(at, images, "id", answers)
    assert small.read_bytes() == before


@pytest.mark.parametrize("how", ["sent", "answer", "open", "late"])
def test_a_failure_of_an_unknown_kind_is_not_written(small: Path, how: Any) -> None:
    before = small.read_bytes()
    with Journal(small, ABOUT) as book, pytest.raises(ValueError, match="wanted"):
        book.failed(how, 0, 1, "id", "why")
    assert small.read_bytes() == before


def test_the_file_can_be_read_with_ordinary_tools_line_by_line(small: Path) -> None:
    lines = small.read_bytes().splitlines(keepends=True)
    assert [line(each[35:-1]) for each in lines] == lines
    assert [json.loads(each[35:])["kind"] for each in lines] == [
        "open",
        "sent",
        "refused",
        "answer",
        "lost",
        "unusable",
        "answer",
    ]
    assert json.loads(lines[0][35:]) == {"kind": "open", "schema": 1, "about": ABOUT}
    assert json.loads(lines[-1][35:]) == {
        "kind": "answer",
        "at": 2,
        "n": 1,
        "id": "e",
        "images": "AwAAAAAAAAA=",
        "dtype": "int64",
        "shape": [1],
        "answers": "BwAAAAAAAAA=",
    }


@UNHURRIED
@given(text=st.text(), name=st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20))
def test_any_text_goes_into_a_journal_and_stays_one_line(text: str, name: str) -> None:
    with quick_folder() as folder:
        path, about = folder / f"journal {name}", {"box": text, text: [text]}
        with Journal(path, about) as book:
            book.failed("lost", 0, 1, text, text + "\ud800\0\n\u2028")
        with Journal(path, about) as book:
            book.keep(0, prints(1), text, answers_to(1))
        first, failed, kept = entries(path)
        assert first["about"] == about
        assert (failed["id"], failed["why"], kept["id"]) == (text, text + "\ud800\0\n\u2028", text)
        assert path.read_bytes().count(b"\n") == 3
        assert path.read_bytes().isascii()


def test_threads_may_share_a_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seek_slowly(*where: int) -> int:
        end = real(*where)
        time.sleep(0.001)  # in which others would write, if they could
        return end

    def work(first: int) -> None:
        for at in range(first, first + 20):
            book.sent(at, 1, str(at))
            book.keep(at, prints(at), str(at), answers_to(at))
            assert same(book.find(at, prints(at)), answers_to(at))

    real = os.lseek
    monkeypatch.setattr(os, "lseek", seek_slowly)
    with Journal(path, ABOUT) as book:
        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 80, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(same(book.find(at, prints(at)), answers_to(at)) for at in range(80))
    assert count(path) == Counts(80, 80, 80, 0, 0, 0, 0)


def test_an_open_journal_holds_some_bytes_a_request_and_no_answers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    with Journal(path, ABOUT) as book:
        for at in range(2000):
            book.keep(at, prints(*range(64)), "id", torch.zeros(64, 10))
    tracemalloc.start()
    try:
        with Journal(path, ABOUT):
            assert tracemalloc.get_traced_memory()[0] / 2000 < 40
    finally:
        tracemalloc.stop()


# Torn tails


@UNHURRIED
@given(done=operations, more=operations, share=st.floats(0, 1), zeros=st.integers(0, 100))
def test_after_a_kill_at_any_byte_exactly_the_whole_records_are_there_and_it_goes_on(
    done: list[tuple[str, Any]], more: list[tuple[str, Any]], share: float, zeros: int
) -> None:
    with quick_folder() as folder:
        path, ends = folder / "journal", []
        with Journal(path, ABOUT) as book:
            for turn, operation in enumerate(done):
                play(book, operation, turn)
                ends.append(path.stat().st_size)
        cut = round(share * path.stat().st_size)
        path.write_bytes(path.read_bytes()[:cut] + bytes(zeros))
        whole = done[: sum(end <= cut for end in ends)]
        with Journal(path, ABOUT) as book:
            for turn, operation in enumerate(more, len(whole)):
                play(book, operation, turn)
        with Journal(path, ABOUT) as book:
            for at in range(4):
                for images in ([0], [1], [0, 1], [1, 1, 1]):
                    check_found(book, whole + more, at, images)
        assert [entry["kind"] for entry in entries(path)] == ["open", *(kind for kind, _ in whole + more)]
        assert count(path) == plain_counts(whole + more)


def test_a_reader_ends_at_each_byte_before_what_is_not_whole_and_changes_nothing(small: Path) -> None:
    whole, records = small.read_bytes(), list(entries(small))
    ends = [end for end, byte in enumerate(whole, 1) if byte == ord("\n")]
    for cut in range(len(whole), -1, -1):
        for length in (cut, cut + 1, cut + 5000):
            os.truncate(small, cut)
            os.truncate(small, length)  # a longer file has zeros at its end
            assert list(entries(small)) == records[: sum(end <= cut for end in ends)]
            assert small.stat().st_size == length
        os.truncate(small, cut)
    assert small.read_bytes() == b""


@pytest.mark.parametrize("start", [None, b"", bytes(4096), line({"kind": "open"})[:30], line({"a": 1})[:-1] + bytes(9)])
def test_a_file_without_a_whole_first_record_is_begun_anew(path: Path, start: bytes | None) -> None:
    if start is not None:
        path.write_bytes(start)
    with Journal(path, ABOUT):
        pass
    assert path.read_bytes() == line({"kind": "open", "schema": 1, "about": ABOUT})


@pytest.mark.parametrize(
    "content", [b"hello\n", b"0" * 9, b"x" * 100, b"{}\n", bytes(50) + b"1", b"00000000 00000000 0", b"0" * 8 + b"\n"]
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "byte 0: no head of a record" in refusal(path)


# Damage


def flips(path: Path) -> Iterator[int]:
    """Flip each bit of the file in turn, and give the place of its byte."""
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:  # in place: to write whole files anew takes a hundred times as long
        for bit in range(8 * len(whole)):
            place = bit // 8
            os.pwrite(file.fileno(), bytes([whole[place] ^ 1 << bit % 8]), place)
            yield place
            os.pwrite(file.fileno(), whole[place : place + 1], place)


def test_every_single_flipped_bit_is_refused_in_one_line_that_says_where_and_what_to_do(small: Path) -> None:
    ends = [end for end, byte in enumerate(small.read_bytes(), 1) if byte == ord("\n")]
    for place in flips(small):
        start = max((end for end in ends if end <= place), default=0)
        with pytest.raises(JournalError) as refused:
            Journal(small, ABOUT)
        message = str(refused.value)
        assert message.startswith(f"{small}: byte {start}: ")
        assert f"put back a copy of the file, or cut it there (truncate -s {start})" in message
        assert "\n" not in message


@pytest.mark.parametrize("left", [0, 5, 20, 60, 150])
def test_a_flipped_bit_beside_a_torn_tail_gives_the_same_records_or_is_refused(small: Path, left: int) -> None:
    records = list(entries(small))[:-1]
    end = small.read_bytes()[:-1].rindex(b"\n") + 1
    os.truncate(small, end + left)
    given = []
    for place in flips(small):
        with suppress(JournalError):
            assert list(entries(small)) == records
            given.append(place)
    assert all(place >= end for place in given)  # only in what is cut anyway


@settings(UNHURRIED, max_examples=250)
@given(data=st.data())
def test_whatever_is_done_to_a_journal_it_never_says_anything_else(data: st.DataObject) -> None:
    with quick_folder() as folder:
        path = folder / "journal"
        with Journal(path, ABOUT) as book:
            for at in range(3):
                book.sent(at, 1, "id")
                book.keep(at, prints(at), "id", answers_to(at))
        whole, records = path.read_bytes(), list(entries(path))
        low = data.draw(st.integers(0, len(whole)))
        high = data.draw(st.integers(low, min(len(whole), low + 300)))
        put = data.draw(st.binary(max_size=5) | st.just(bytes(high - low)) | st.just(whole[:high]))
        path.write_bytes(whole[:low] + put + whole[high:])
        with suppress(JournalError):
            found = iter(records)
            assert all(any(entry == record for record in found) for entry in entries(path))  # some of them, in order


def test_bytes_that_are_missing_before_the_last_newline_are_no_torn_tail(small: Path) -> None:
    whole = small.read_bytes()
    small.write_bytes(whole[:-50] + whole[-20:])
    assert "a record unlike its checksum" in refusal(small)


def test_zeros_with_something_behind_them_are_no_torn_tail(small: Path) -> None:
    end = small.stat().st_size
    small.write_bytes(small.read_bytes() + bytes(1 << 21) + b"1")
    assert f"byte {end}: no head of a record" in refusal(small)


OTHER: dict[str, Any] = {
    "no JSON": b"{",
    "no text": b"\xff",
    "a list": [],
    "a number": 1,
    "no kind": {"at": 0, "n": 1, "id": ""},
    "an unknown kind": {"kind": "late", "at": 0, "n": 1, "id": ""},
    "a list for a kind": {"kind": [], "at": 0, "n": 1, "id": ""},
    "a field missing": {"kind": "sent", "at": 0, "n": 1},
    "a field too many": {"kind": "sent", "at": 0, "n": 1, "id": "", "why": ""},
    "a truth value for a number": {"kind": "sent", "at": 0, "n": True, "id": ""},
    "a negative place": {"kind": "sent", "at": -1, "n": 1, "id": ""},
    "an endless place": {"kind": "sent", "at": 2**63, "n": 1, "id": ""},
    "no image": {"kind": "sent", "at": 0, "n": 0, "id": ""},
    "a second beginning": {"kind": "open", "schema": 1, "about": ABOUT},
}
ANSWER = {
    "kind": "answer",
    "at": 0,
    "n": 1,
    "id": "",
    "images": "AwAAAAAAAAA=",
    "dtype": "int64",
    "shape": [1],
    "answers": "BwAAAAAAAAA=",
}
OTHER |= {
    f"an answer with {field} {value!r}": {**ANSWER, field: value}
    for field, value in [
        ("dtype", "float64"),
        ("dtype", "float32"),
        ("shape", []),
        ("shape", [2]),
        ("shape", [True]),
        ("shape", [1, 0]),
        ("shape", [1, "1"]),
        ("shape", [-1, -1]),
        ("n", 2),
        ("images", "AwAAAAAAAA=="),
        ("answers", ""),
    ]
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_whole_record_that_no_journal_has_is_refused(small: Path, kind: str) -> None:
    end = small.stat().st_size
    small.write_bytes(small.read_bytes() + line(OTHER[kind]))
    assert f"byte {end}: another record than belongs there" in refusal(small)


def test_an_answer_put_together_by_hand_is_taken_where_it_fits(small: Path) -> None:
    small.write_bytes(small.read_bytes() + line({**ANSWER, "at": 9}))
    with Journal(small, ABOUT) as book:
        assert same(book.find(9, prints(3)), torch.tensor([7]))


def test_a_journal_begins_with_what_it_is_of(small: Path) -> None:
    small.write_bytes(b"".join(small.read_bytes().splitlines(keepends=True)[1:]))
    assert "byte 0: another record than belongs there" in refusal(small)


def test_a_journal_of_a_newer_schema_is_refused(path: Path) -> None:
    path.write_bytes(line({"kind": "open", "schema": 2, "about": ABOUT}))
    assert "schema 2, this code reads 1" in refusal(path)


def test_an_answer_that_was_spoilt_since_the_journal_was_opened_is_not_given(small: Path) -> None:
    with Journal(small, ABOUT) as book:
        whole = small.read_bytes()
        place = whole.rindex(b"BwAAAAAAAAA=")
        small.write_bytes(whole[:place] + b"C" + whole[place + 1 :])
        with pytest.raises(JournalError, match="a record unlike its checksum; put back a copy"):
            book.find(2, prints(3))
        assert same(book.find(0, prints(1, 2)), answers_to(1, 2))


# What it is of, and who writes it


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({**ABOUT, "batch": 32}, "'batch'"),
        ({"cell": "c0ffee"}, "'batch'"),
        ({**ABOUT, "box": None}, "'box'"),
        ({"cell": "other", "batch": 64.0}, "'batch', 'cell'"),
        ({**ABOUT, "zwei\nzeilen": 1}, r"'zwei\\nzeilen'"),
    ],
)
def test_a_journal_of_something_else_is_refused_by_the_keys_that_differ(
    small: Path, about: dict[str, Any], named: str
) -> None:
    before = small.read_bytes()
    with pytest.raises(JournalError, match=rf"journal: of something else, by {named}; go back to that") as refused:
        Journal(small, about)
    assert "\n" not in str(refused.value)
    assert small.read_bytes() == before


def test_what_a_journal_is_of_may_be_given_in_another_order_and_with_tuples(path: Path) -> None:
    Journal(path, {"shape": (1, 8, 8), "box": {"url": "x", "batch": 1}}).close()
    Journal(path, {"box": {"batch": 1, "url": "x"}, "shape": [1, 8, 8]}).close()


@pytest.mark.parametrize("about", [{"a": float("nan")}, {"a": object()}])
def test_a_journal_of_what_is_no_json_is_not_begun(path: Path, about: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Journal(path, about)
    assert not path.exists()


def _hold(path: Path, held: Connection) -> None:
    with Journal(path, ABOUT):
        held.send("held")
        time.sleep(60)


def test_two_writers_are_impossible_and_a_dead_one_holds_nothing(small: Path) -> None:
    ours, theirs = FORK.Pipe()
    holder = FORK.Process(target=_hold, args=(small, theirs), daemon=True)
    holder.start()
    try:
        assert ours.poll(20)
        with pytest.raises(JournalError, match="journal: held by another process"):
            Journal(small, ABOUT)
        assert count(small).answered == 3
    finally:
        holder.kill()
        holder.join()
    with Journal(small, ABOUT) as book:
        with pytest.raises(JournalError, match="held by another process"):
            Journal(small, ABOUT)
        book.keep(9, prints(9), "id", answers_to(9))
    Journal(small, ABOUT).close()


def test_where_there_are_no_locks_a_journal_is_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", FLOCKS["none"])
    with Journal(tmp_path / "journal", ABOUT) as book:
        book.keep(0, prints(9), "id", answers_to(9))
    assert count(tmp_path / "journal").answered == 1


def test_a_journal_that_was_refused_is_held_by_nobody(small: Path) -> None:
    with pytest.raises(JournalError, match="of something else"):
        Journal(small, {})
    Journal(small, ABOUT).close()


def test_a_reader_beside_a_writer_sees_what_is_there_and_changes_nothing(small: Path) -> None:
    with Journal(small, ABOUT) as book:
        reading = entries(small)
        assert next(reading)["kind"] == "open"
        book.keep(9, prints(9), "z", answers_to(9))
        assert [entry["id"] for entry in reading] == ["a", "a", "b", "c", "d", "e", "z"]
        small.write_bytes(small.read_bytes()[:-1])
        before, changed = small.read_bytes(), small.stat().st_mtime_ns
        assert count(small).answered == 3
        assert (small.read_bytes(), small.stat().st_mtime_ns) == (before, changed)


def test_a_journal_that_was_let_go_of_takes_and_gives_nothing(path: Path) -> None:
    book = Journal(path, ABOUT)
    book.close()
    book.close()
    uses: list[Callable[[], object]] = [
        lambda: book.sent(0, 1, "id"),
        lambda: book.keep(0, prints(1), "id", answers_to(1)),
        lambda: book.find(0, prints(1)),
    ]
    for use in uses:
        with pytest.raises(JournalError, match=r"journal: closed, .*; open it again"):
            use()


# Counts


def plain_counts(done: list[tuple[str, Any]]) -> Counts:
    """The counts as one would take them with a pencil: each end strikes out the first request that is like it."""
    sizes = [(kind, len(what) if kind == "answer" else what) for kind, (_, what, _) in done]
    total = {kind: sum(n for each, n in sizes if each == kind) for kind in ("answer", "lost", "refused", "unusable")}
    waiting: list[tuple[int, int, str]] = []
    for (kind, n), (_, (at, _, id)) in zip(sizes, done, strict=True):
        if kind == "sent":
            waiting.append((at, n, id))
        elif (at, n, id) in waiting:
            waiting.remove((at, n, id))
    distinct = {image for kind, (_, what, _) in done if kind == "answer" for image in what}
    return Counts(
        answered=total["answer"],
        distinct=len(distinct),
        attempts=sum(kind == "sent" for kind, _ in sizes),
        lost=total["lost"],
        refused=total["refused"],
        unusable=total["unusable"],
        in_doubt=sum(n for _, n, _ in waiting),
    )


@settings(UNHURRIED, max_examples=150)
@given(done=operations)
def test_the_counts_are_those_of_a_plain_list(done: list[tuple[str, Any]]) -> None:
    with quick_folder() as folder:
        with Journal(folder / "journal", ABOUT) as book:
            for operation in done:
                play(book, operation)
        counts = count(folder / "journal")
    assert counts == plain_counts(done)
    assert counts.charged == counts.answered + counts.lost + counts.unusable + counts.in_doubt


def test_what_was_sent_before_a_kill_is_in_doubt_and_charged_though_it_is_sent_again(path: Path) -> None:
    with Journal(path, ABOUT) as book:
        book.sent(0, 64, "a")
        book.failed("refused", 0, 64, "a", "503")
        book.sent(0, 64, "a")
        book.keep(0, prints(*range(64)), "a", torch.zeros(64, 10))
        book.sent(64, 64, "b")
    with Journal(path, ABOUT) as book:
        book.sent(64, 64, "b")
        book.keep(64, prints(*range(64)), "b", torch.zeros(64, 10))
    counts = count(path)
    assert counts == Counts(answered=128, distinct=64, attempts=4, lost=0, refused=64, unusable=0, in_doubt=64)
    assert counts.charged == 192


def test_a_journal_that_died_at_once_counts_nothing_and_none_is_an_error(path: Path) -> None:
    path.write_bytes(bytes(7))
    assert count(path) == Counts(0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(FileNotFoundError):
        count(path.with_name("other"))


# Disks and kills


@dataclass
class Synced:
    """What was asked to be on disk: of files how long they were then, of folders `folder`."""

    seen: list[int | str]

    def __call__(self, fd: int) -> None:
        state = os.fstat(fd)
        self.seen.append("folder" if stat.S_ISDIR(state.st_mode) else state.st_size)


def test_answers_are_on_disk_before_keep_returns_and_the_file_and_its_name_once_it_is_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced([])
    monkeypatch.setattr(os, "fsync", synced)
    with Journal(path, ABOUT) as book:
        assert synced.seen == [path.stat().st_size, "folder"]
        book.sent(0, 1, "id")
        book.failed("lost", 0, 1, "id", "why")
        assert len(synced.seen) == 2
        book.keep(0, prints(1), "id", answers_to(1))
        assert synced.seen[2:] == [path.stat().st_size]
    path.write_bytes(path.read_bytes()[:-1])
    with Journal(path, ABOUT):  # what a killed process wrote may not be on disk either
        assert synced.seen[3:] == [path.stat().st_size, "folder"]


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_an_answer_that_the_disk_did_not_take_is_not_kept_and_the_next_one_is(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()
    with Journal(small, ABOUT) as book:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="Input/output"):
                book.keep(9, prints(9), "id", answers_to(9))
        assert small.read_bytes() == before
        assert book.find(9, prints(9)) is None
        book.keep(9, prints(9), "id", answers_to(9))
    with Journal(small, ABOUT) as book:
        assert same(book.find(9, prints(9)), answers_to(9))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_append_that_ends_half_way_leaves_nothing_behind(
    small: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def write_some(fd: int, content: bytes) -> int:
        if len(content) < 60:
            raise error
        return real(fd, content[:50])

    real, before = os.write, small.read_bytes()
    with Journal(small, ABOUT) as book:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_some)
            with pytest.raises(error):
                book.keep(9, prints(9), "id", answers_to(9))
        assert small.read_bytes() == before
        book.keep(9, prints(9), "id", answers_to(9))
        assert same(book.find(9, prints(9)), answers_to(9))
    Journal(small, ABOUT).close()


def test_where_half_an_append_cannot_be_taken_back_nothing_is_written_behind_it(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_some(fd: int, content: bytes) -> int:
        real(fd, content[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    real, before = os.write, small.read_bytes()
    with Journal(small, ABOUT) as book:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_some)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(OSError, match="No space"):
                book.keep(9, prints(9), "id", answers_to(9))
        with pytest.raises(JournalError, match=r"closed, .* by an append that failed; open it again"):
            book.keep(9, prints(9), "id", answers_to(9))
    assert small.read_bytes()[: len(before)] == before
    assert small.stat().st_size == len(before) + 50
    with Journal(small, ABOUT) as book:
        assert small.read_bytes() == before
        book.keep(9, prints(9), "id", answers_to(9))


def test_an_answer_that_was_written_when_somebody_pressed_ctrl_c_is_not_paid_again(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with Journal(small, ABOUT) as book:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                book.keep(9, prints(9), "id", answers_to(9))
        book.keep(10, prints(10), "id", answers_to(10))
    with Journal(small, ABOUT) as book:
        assert same(book.find(9, prints(9)), answers_to(9))
        assert same(book.find(10, prints(10)), answers_to(10))


def fill(path: Path, at: int = 0) -> tuple[int, int]:
    """Keep answers until the disk is full: how many were kept, and the number of the error."""
    with Journal(path, ABOUT) as book:
        while True:
            size = path.stat().st_size
            try:
                book.keep(at, prints(*range(at, at + 50)), "id", torch.full((50, 10), float(at)))
            except OSError as error:
                assert path.stat().st_size == size
                assert book.find(at, prints(*range(at, at + 50))) is None
                return at, error.errno
            at += 1


def check_filled(path: Path, kept: int) -> None:
    with Journal(path, ABOUT) as book:
        for at in range(kept):
            assert same(book.find(at, prints(*range(at, at + 50))), torch.full((50, 10), float(at)))
    assert count(path).answered == 50 * kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if not AS_ROOT:
        pytest.skip("mounting a small disk takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_that_spoils_nothing_and_with_room_again_it_goes_on(small_disk: Path) -> None:
    path, ballast = small_disk / "journal", small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    kept, number = fill(path)
    assert (kept > 10, number) == (True, errno.ENOSPC)
    check_filled(path, kept)
    ballast.unlink()
    more, _ = fill(path, kept)
    assert more > kept
    check_filled(path, more)


def test_a_journal_on_a_disk_that_takes_no_writes_is_an_error_of_the_system(small_disk: Path) -> None:
    Journal(small_disk / "journal", ABOUT).close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("journal", "other"):
        with pytest.raises(OSError, match="Read-only file system"):
            Journal(small_disk / name, ABOUT)
    assert len(list(entries(small_disk / "journal"))) == 1


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_journal_in_a_folder_that_takes_no_files_is_an_error_of_the_system(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        Journal(tmp_path / "journal", ABOUT)


def test_a_journal_in_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "missing" / "journal", ABOUT)


def _fill_within(limit: int, path: Path, told: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # Python ignores the signal that goes with it
    told.send(fill(path))


@pytest.mark.parametrize("limit", [20_000, 20_001, 23_456])
def test_a_file_that_may_grow_no_further_loses_nothing(path: Path, limit: int) -> None:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_fill_within, args=(limit, path, theirs), daemon=True)
    process.start()
    assert ours.poll(60)
    kept, number = ours.recv()
    process.join()
    assert (kept > 1, number) == (True, errno.EFBIG)
    check_filled(path, kept)


def _keep_on(path: Path, at: int, told: Connection) -> None:
    with Journal(path, ABOUT) as book:
        while True:
            book.sent(at, 20, str(at))
            book.keep(at, prints(*range(at, at + 20)), str(at), torch.full((20, 10), float(at)))
            told.send(at)
            at += 1


def test_a_reader_beside_a_busy_writer_sees_ever_more_whole_records(path: Path) -> None:
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_keep_on, args=(path, 0, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(20)
        until, seen = time.monotonic() + 0.5, []
        while time.monotonic() < until or len(seen) < 5:
            while ours.poll():
                last = ours.recv()
            seen.append(count(path).answered)
            assert seen[-1] >= 20 * (last + 1)
    finally:
        process.kill()
        process.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def killed_after(path: Path, at: int, seconds: float) -> list[int]:
    """Let a process keep answers from that place on, kill it so long after the first: what it said was kept."""
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_keep_on, args=(path, at, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(20)
    time.sleep(seconds)
    process.kill()
    process.join()
    told = []
    with suppress(EOFError, OSError):
        while True:
            told.append(ours.recv())
    return told


def test_whatever_was_kept_before_a_kill_is_there_after_it(path: Path) -> None:
    chance, told = random.Random(0), []
    for _ in range(20):
        told += killed_after(path, told[-1] + 1 if told else 0, chance.uniform(0, 0.05))
        with Journal(path, ABOUT) as book:
            for at in told:
                assert same(book.find(at, prints(*range(at, at + 20))), torch.full((20, 10), float(at)))
    assert told == list(range(len(told)))
    counts = count(path)
    assert counts.answered >= 20 * len(told) >= 400
    assert counts.charged == 20 * counts.attempts  # each request that went out is an answer or in doubt
