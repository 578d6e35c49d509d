"""What a run left behind and somebody spoilt: each command says so in one line or a row, and nothing is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import bench

GRID = """
description: seconds on a CPU
tasks: [digits-lenet]
budgets: [40]
answers: [labels]
seeds: 2
methods:
  noise: {config: {recipe: {passes: 1, min_steps: 2}}}
"""
OFF = ("--mlflow", "off")
MORE = "--seeds=3"  # some to do, whose time is judged by those that are done


def newer(file: Path) -> None:
    content = json.loads(file.read_text())
    if not isinstance(content, dict):
        pytest.skip("a list has no schema")
    file.write_text(json.dumps({**content, "schema": 99}))


SPOILERS: dict[str, Callable[[Path], object]] = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:40]),
    "empty": lambda file: file.write_bytes(b""),
    "of another shape": lambda file: file.write_text('{"schema": 2, "other": [1]}'),
    "a list": lambda file: file.write_text("[1, 2]"),
    "a word": lambda file: file.write_text('"done"'),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "of a newer schema": newer,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.fixture(scope="module")
def whole(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    shutil.copytree(trained_once / "teachers", home / "runs" / "teachers")
    (home / "g.yaml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert bench("run", "--grid", "g.yaml", *OFF) == 0
    return home


@pytest.fixture
def home(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a finished run of two cells."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def first_cell(home: Path) -> Path:
    return sorted((home / "runs" / "cells").iterdir())[0]


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("command", [("status", "g"), ("report", "g"), ("sync", "g", "--mlflow", "sqlite:///m.db")])
def test_a_broken_record_of_a_run_is_one_line_and_exit_2(
    home: Path, spoil: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    SPOILERS[spoil](home / "runs" / "g" / "run.json")
    assert bench(*command) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert "run.json" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_broken_record_of_a_run_is_written_anew_by_the_command_that_made_it(home: Path, spoil: str) -> None:
    if spoil == "a folder":
        pytest.skip("no file can take its place")
    SPOILERS[spoil](home / "runs" / "g" / "run.json")
    assert bench("run", "--grid", "g.yaml", *OFF) == 0
    assert len(json.loads((home / "runs/g/run.json").read_text())["entries"]) == 2


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("name", ["done.json", "curve.json"])
def test_a_broken_result_is_a_row_with_its_reason_and_is_computed_again(
    home: Path, name: str, spoil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = first_cell(home) / name
    before = (first_cell(home) / "curve.json").read_text()
    SPOILERS[spoil](file)
    assert bench("status", "g") == 0
    told = capsys.readouterr().out
    assert "1 done, 1 failed" in told or "1 failed, 1 done" in told
    assert name in told.replace("\n", "")
    assert bench("report", "g") == 0
    assert "not in these tables: 1 runs failed" in capsys.readouterr().out
    ended = bench("run", "--grid", "g.yaml", *OFF)
    if spoil in {"of a newer schema", "a folder"}:
        assert ended == 1, "it is not ours to touch"
        assert file.exists()
    else:
        assert ended == 0
        assert (first_cell(home) / "curve.json").read_text() == before


@pytest.mark.parametrize("name", ["cell.json", "failed.json"])
@pytest.mark.parametrize("spoil", [spoil for spoil in SPOILERS if spoil not in {"of a newer schema", "a folder"}])
def test_other_broken_files_of_a_cell_stop_no_command(home: Path, name: str, spoil: str) -> None:
    file = first_cell(home) / name
    if name == "failed.json":
        (first_cell(home) / "done.json").unlink()
        file.write_text('{"reason": "paper", "schema": 2, "traceback": null, "spent": 3}')
    SPOILERS[spoil](file)
    for command in (("status", "g"), ("report", "g"), ("plan", "--grid", "g.yaml"), ("plan", "--grid", "g.yaml", MORE)):
        assert bench(*command) == 0
    assert bench("run", "--grid", "g.yaml", *OFF) == 0


@pytest.mark.parametrize("spoil", [spoil for spoil in SPOILERS if spoil not in {"of a newer schema", "a folder"}])
def test_a_broken_teacher_is_one_line_and_stays(home: Path, spoil: str, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (home / "runs" / "teachers").glob("*/teacher.pt")
    SPOILERS[spoil](file)
    left = file.read_bytes()
    assert bench("run", "--grid", "g.yaml", *OFF) == 2
    error = capsys.readouterr().err
    assert str(file.relative_to(home)) in error
    assert error.count("\n") == 1
    assert file.read_bytes() == left
