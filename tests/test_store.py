"""Files that are whole or absent whatever happens to the writer, and a lock that dies with its holder."""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import claims
from results.claims import Busy, lock
from results.store import digest, read_json, state_of, write_bytes, write_json

UNHURRIED = settings(deadline=None, derandomize=True, max_examples=30)  # a busy machine is no failure
FORK = multiprocessing.get_context("fork")
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Interrupted(BaseException):
    """A kill, as far as the code that it hits can tell."""


@UNHURRIED
@given(first=st.binary(max_size=200), second=st.binary(max_size=200))
def test_the_last_writer_wins_and_nothing_else_is_left_in_the_folder(first: bytes, second: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "curve.json"
        for content in (first, second):
            write_bytes(path, content)
            assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


@UNHURRIED
@given(content=plain)
def test_plain_values_come_back_as_they_were_written(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "run.json", content)
        assert read_json(Path(folder) / "run.json") == content


def interruptions() -> dict[str, tuple[Any, str]]:
    """Where a write can be hit: what is replaced by an interruption."""
    return {
        "before it starts": (Path, "open"),
        "before it is on disk": (os, "fsync"),
        "before it is in place": (Path, "replace"),
    }


@pytest.mark.parametrize("moment", interruptions())
@pytest.mark.parametrize("existing", [b"old and whole", None])
@pytest.mark.parametrize("error", [Interrupted, OSError])
def test_a_write_that_is_interrupted_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, moment: str, existing: bytes | None, error: type[BaseException]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise error

    path = tmp_path / "done.json"
    if existing is not None:
        write_bytes(path, existing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*interruptions()[moment], interrupt)
        with pytest.raises(error):
            write_bytes(path, b"new")
    assert (path.read_bytes() if path.exists() else None) == existing
    assert list(tmp_path.iterdir()) == ([path] if existing is not None else [])


def test_what_json_cannot_hold_leaves_the_old_content(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {"new": object()})
    assert read_json(tmp_path / "run.json") == {"old": 1}


def in_another_process(target: Callable[..., None], *arguments: object) -> Any:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def end(process: Any) -> None:
    process.kill()
    process.join()


def _rewrite_for_ever(path: Path) -> None:
    length = 1
    while True:
        write_json(path, {"length": length, "body": [length] * length})
        length = length % 5000 + 997


def test_a_reader_never_sees_half_a_file_while_another_process_writes_it_and_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    seen = set()
    for _ in range(4):
        writer = in_another_process(_rewrite_for_ever, path)
        until = time.monotonic() + 0.15
        while time.monotonic() < until or not path.exists():
            with suppress(FileNotFoundError):
                content = json.loads(path.read_text())
                assert content["body"] == [content["length"]] * content["length"]
                seen.add(content["length"])
        end(writer)
        content = read_json(path)
        assert len(content["body"]) == content["length"]
    assert len(seen) > 1


def _hold(folder: Path, held: Connection) -> None:
    with lock(folder):
        held.send("held")
        time.sleep(60)


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds `tmp_path / "cell"`."""
    ours, theirs = FORK.Pipe()
    process = in_another_process(_hold, tmp_path / "cell", theirs)
    assert ours.poll(20)
    assert ours.recv() == "held"
    yield process
    end(process)


def test_a_folder_that_another_process_holds_is_busy(tmp_path: Path, holder: Any) -> None:
    assert holder.is_alive()
    with pytest.raises(Busy, match="cell"), lock(tmp_path / "cell"):
        pytest.fail("both hold the folder")


def test_a_dead_process_holds_nothing(tmp_path: Path, holder: Any) -> None:
    end(holder)
    with lock(tmp_path / "cell"):
        pass


def test_other_folders_are_free(tmp_path: Path, holder: Any) -> None:
    assert holder.is_alive()
    with lock(tmp_path / "another cell"):
        pass


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_lock_ends_with_its_block_however_that_ends(tmp_path: Path, error: type[BaseException] | None) -> None:
    with suppress(ValueError, KeyboardInterrupt), lock(tmp_path):
        if error:
            raise error
    with lock(tmp_path):
        pass


def test_a_cell_that_this_user_may_not_read_has_failed_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(folder / "lock"))

    (tmp_path / "lock").touch()
    monkeypatch.setattr(claims, "is_held", refused)
    state = state_of(tmp_path, None)
    assert (state.name, state.reason) == ("failed", f"{tmp_path / 'lock'} cannot be read: Permission denied")


def test_a_digest_is_that_of_the_text_alone() -> None:
    assert digest("method 0") == digest("method 0") != digest("method 1")
    assert digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
