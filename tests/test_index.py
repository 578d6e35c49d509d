"""The index of cells: whatever happens to cells and to itself, it answers as the folders do."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from results.claims import lock
from results.index import FILE, Cells
from results.records import Failure, Machine, Point, Totals, Versions, plain, read
from results.store import CellState, state_of, write_json

NAMES = ("a", "b", "c.noise.40-labels")
OURS: Versions = {"method": 1}
MACHINE = Machine("CPU", 1, "float32", "0", None, "2")
LONG_AGO = 1_600_000_000  # seconds
Action = Callable[[Path], None]


def finish(root: Path, name: str, spent: int, at: int | None = None, versions: Versions = OURS) -> None:
    """A finished cell. at: seconds after LONG_AGO when its files were written, if not now."""
    folder = root / "cells" / name
    point: Point = {"budget": spent, "round": 1, "spent": spent, "distinct": spent, "figures": None, "accuracy": 0.5}
    write_json(folder / "curve.json", [point])
    write_json(folder / "done.json", plain(Totals(spent, spent, 1, 0.1, versions, MACHINE, steps=3)))
    for file in ("curve.json", "done.json") if at is not None else ():
        os.utime(folder / file, (LONG_AGO + at, LONG_AGO + at))  # type: ignore[operator]


def seen(root: Path, versions: Versions | None = OURS) -> dict[str, tuple[CellState, list[Point] | None]]:
    with Cells(root) as cells:
        states = {name: cells.state(name, versions, "no room") for name in NAMES}
        return {name: (state, cells.points(name) if state.name == "done" else None) for name, state in states.items()}


def there(root: Path, versions: Versions | None = OURS) -> dict[str, tuple[CellState, list[Point] | None]]:
    folders = {name: root / "cells" / name for name in NAMES}
    states = {name: state_of(folder, versions, "no room") for name, folder in folders.items()}
    return {
        name: (state, read(folders[name] / "curve.json", list[Point]) if state.name == "done" else None)
        for name, state in states.items()
    }


def lines(root: Path) -> list[bytes]:
    return (root / "index" / FILE).read_bytes().splitlines()


@contextmanager
def unopened(root: Path, name: str) -> Iterator[None]:
    """The files of a cell hold nothing that could be read, with the sizes and times that they had."""
    kept = {path: (path.read_bytes(), path.stat()) for path in (root / "cells" / name).glob("*.json")}
    for path, (content, before) in kept.items():
        path.write_bytes(b"?" * len(content))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    yield
    for path, (content, before) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


TICK = count(1)
NUMBERS = st.integers(0, 10**6)
NAME = st.sampled_from(NAMES)
OTHER: Versions = {"method": 2}


def _in_place(root: Path, name: str, file: str, content: bytes) -> None:
    path = root / "cells" / name / file
    if path.exists():
        with path.open("r+b") as old:
            old.write(content)
        os.utime(path, (LONG_AGO + next(TICK),) * 2)


def _fail(root: Path, name: str) -> None:
    (root / "cells" / name / "done.json").unlink(missing_ok=True)
    write_json(root / "cells" / name / "failed.json", plain(Failure("no paper")))


def _cut(root: Path, at: int) -> None:
    if (root / "index" / FILE).exists():
        os.truncate(root / "index" / FILE, at % (1 + len((root / "index" / FILE).read_bytes())))


def _garble(root: Path, at: int, byte: int) -> None:
    if (root / "index" / FILE).exists() and (content := bytearray((root / "index" / FILE).read_bytes())):
        content[at % len(content)] = byte
        (root / "index" / FILE).write_bytes(content)


def _add(root: Path, rubbish: bytes) -> None:
    (root / "index").mkdir(exist_ok=True)
    with (root / "index" / FILE).open("ab") as file:
        file.write(rubbish)


ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.builds(lambda name, n: lambda root: finish(root, name, n, next(TICK)), NAME, NUMBERS),
    st.builds(lambda name, n: lambda root: finish(root, name, n), NAME, NUMBERS),
    st.builds(lambda name, n: lambda root: finish(root, name, n, next(TICK), OTHER), NAME, NUMBERS),
    st.builds(lambda name: lambda root: shutil.rmtree(root / "cells" / name, ignore_errors=True), NAME),
    st.builds(lambda name: lambda root: _fail(root, name), NAME),
    st.builds(lambda name, file: lambda root: _in_place(root, name, file, b"[{"), NAME, st.sampled_from(["done.json"])),
    st.builds(lambda name: lambda root: _in_place(root, name, "curve.json", b"[{"), NAME),
    st.builds(lambda name: lambda root: _in_place(root, name, "curve.json", b"[]" + b" " * 300), NAME),
    st.builds(lambda at: lambda root: _cut(root, at), NUMBERS),
    st.builds(lambda at, byte: lambda root: _garble(root, at, byte), NUMBERS, st.integers(0, 255)),
    st.builds(lambda rubbish: lambda root: _add(root, rubbish), st.binary(max_size=60)),
)


@given(st.lists(ACTIONS, max_size=12))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_the_index_answers_as_the_folders_do(actions: list[Action]) -> None:
    with TemporaryDirectory() as folder:
        for action in actions:
            action(Path(folder))
            for versions in (OURS, None, OURS):
                assert seen(Path(folder), versions) == there(Path(folder), versions)


def test_a_cell_that_the_index_knows_is_not_opened(tmp_path: Path) -> None:
    finish(tmp_path, "a", 40, at=0)
    before = seen(tmp_path)
    with unopened(tmp_path, "a"):
        assert seen(tmp_path) == before
        assert seen(tmp_path, OTHER)["a"][0].name == "stale"
    assert before == there(tmp_path)


def test_what_was_written_a_moment_ago_is_not_remembered_for_it_may_be_written_again_in_that_moment(
    tmp_path: Path,
) -> None:
    finish(tmp_path, "a", 40)
    seen(tmp_path)
    assert not (tmp_path / "index").exists()


def test_where_the_index_cannot_be_written_or_another_reader_writes_all_works_without(tmp_path: Path) -> None:
    finish(tmp_path, "a", 40, at=0)
    with lock(tmp_path / "index"):
        assert seen(tmp_path) == there(tmp_path)
    assert not (tmp_path / "index" / FILE).exists()
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "index").write_text("no folder")
    assert seen(tmp_path) == there(tmp_path)


def test_the_file_is_written_anew_when_most_of_it_counts_no_more(tmp_path: Path) -> None:
    finish(tmp_path, "a", 40, at=0)
    for at in range(1, 12):
        finish(tmp_path, "b", at, at)
        seen(tmp_path)
        assert len(lines(tmp_path)) <= 5
    assert seen(tmp_path) == there(tmp_path)
    shutil.rmtree(tmp_path / "cells")
    seen(tmp_path)
    assert lines(tmp_path) == []


def test_lines_of_another_schema_are_passed_over(tmp_path: Path) -> None:
    finish(tmp_path, "a", 40, at=0)
    seen(tmp_path)
    (line,) = lines(tmp_path)
    (tmp_path / "index" / FILE).write_bytes(b"00000000" + line[8:] + b"\n")
    with unopened(tmp_path, "a"):
        assert seen(tmp_path)["a"][0].name == "failed"  # for it was opened


def test_many_lines_at_once_go_into_the_file_as_they_come(tmp_path: Path) -> None:
    for name in NAMES:
        finish(tmp_path, name, 40, at=0)
    cells = Cells(tmp_path)
    cells.BUFFER = 1
    with cells:
        found = {name: (cells.state(name, OURS), cells.points(name)) for name in NAMES}
        assert len(lines(tmp_path)) == 3
    assert found == there(tmp_path) == seen(tmp_path)
