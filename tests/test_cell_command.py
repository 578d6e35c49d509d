"""bench plan --cells and bench cell: a cell as one command; and workers beside each other."""

import shutil
import time
from pathlib import Path

import pytest
from support import bench
from test_cli import OFF, TINY

from bench.cli import cell
from results import claims
from results.store import read_json, write_json


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trained teacher in runs/, a grid, and a file for each of its cells."""
    monkeypatch.chdir(trained.parent)
    home = trained.parent / f"{trained.name}-cells"
    home.mkdir()
    trained.rename(home / "runs")
    monkeypatch.chdir(home)
    (home / "tiny.yaml").write_text(TINY)
    assert bench("plan", "--grid", "tiny.yaml", "--cells", "todo") == 0
    return home


def test_cells_run_one_by_one_are_those_of_the_whole_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(here.glob("todo/*.json"))
    assert len(files) == 6
    for file in files:
        assert bench("cell", str(file)) == 0
    alone = {file.parent.name: file.read_bytes() for file in here.glob("runs/cells/*/curve.json")}
    assert set(alone) == {file.stem for file in files}
    shutil.rmtree(here / "runs/cells")
    capsys.readouterr()
    assert bench("run", "--grid", "tiny.yaml", *OFF) == 0
    assert {file.parent.name: file.read_bytes() for file in here.glob("runs/cells/*/curve.json")} == alone
    assert bench("run", "--grid", "tiny.yaml", *OFF) == 0
    assert "(6 done)" in capsys.readouterr().out


def test_a_cell_says_what_came_of_it_and_where_it_is_done_runs_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(here.glob("todo/*noise.80*.json"))
    assert bench("cell", str(file)) == 0
    told = capsys.readouterr().out
    assert file.stem in told
    stamp = (here / "runs/cells" / file.stem / "done.json").stat().st_mtime_ns
    assert bench("cell", str(here / "runs/cells" / file.stem / "cell.json")) == 0
    assert capsys.readouterr().out == told
    assert (here / "runs/cells" / file.stem / "done.json").stat().st_mtime_ns == stamp


def test_a_cell_that_cannot_be_run_ends_with_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(here.glob("todo/*noise.80*.json"))
    record = read_json(file)

    def told(**changed: object) -> str:
        write_json(here / "changed.json", {**record, "identity": {**record["identity"], **changed}})
        capsys.readouterr()
        assert bench("cell", "changed.json") == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    assert "unknown task 'digits-lenett'; did you mean digits-lenet" in told(task="digits-lenett")
    assert "unknown method 'noice'; did you mean noise" in told(method="noice")
    assert "no teacher abc in runs; bench teachers trains what lacks" in told(teacher="abc")
    assert "scaling [0.5, 0.25], not [0, 1]" in told(scaling=[0, 1])
    assert "no identity of a cell" in told(queries="many")
    assert bench("cell", "nowhere.json") == 2
    assert "nowhere.json cannot be read" in capsys.readouterr().err


def test_a_cell_of_another_machine_is_left_to_it_and_taken_over_once_that_is_dead(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next(here.glob("todo/*noise.80*.json"))
    folder = here / "runs/cells" / file.stem
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "claim.5").write_text('{"machine": "another"}\n')
    assert bench("cell", str(file)) == 2
    assert f"{file.stem} is at work in another process" in capsys.readouterr().err
    monkeypatch.setattr(claims, "STALE", 1.0)
    monkeypatch.setattr(cell, "AGAIN", 0.1)
    time.sleep(1.0)
    assert bench("cell", str(file)) == 0
    assert (folder / "done.json").exists()


def test_a_worker_makes_the_cells_and_no_report_and_the_command_finds_them_done(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("run", "--grid", "tiny.yaml", "--worker") == 0
    assert len(list(here.glob("runs/cells/*/done.json"))) == 6
    assert not (here / "runs/tiny/index.html").exists()
    assert not list(here.glob("runs/mlflow*"))
    capsys.readouterr()
    assert bench("status", "tiny") == 0
    assert "6 done" in capsys.readouterr().out
