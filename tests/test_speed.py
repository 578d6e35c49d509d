"""The items of `make speed` run, at sizes where no figure means anything; the plain version is of the same method."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from speed import plain_ideal, table
from speed.__main__ import ITEMS, ON_A_GPU, chosen, main, measured
from speed.item import Item, Setting
from support import CPU
from torch import nn

from methods.generators import ideal_generator


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")  # forks of a process with threads
@pytest.mark.parametrize("name", [*ITEMS, *ON_A_GPU])
def test_an_item_has_rows_with_figures(name: str, tmp_path: Path) -> None:
    rows = list(measured([name], Setting(CPU, tmp_path, small=True, runs=1)))
    assert rows
    for row in rows:
        assert row.ours > 0
        assert row.plain is None or row.plain > 0
        assert (row.met is None) == (not row.wanted)


@pytest.mark.parametrize(
    ("wanted", "met"),
    [("ratio >= 2", True), ("ratio >= 2.1", False), ("ours <= 3", True), ("ours <= 2.9", False), ("", None)],
)
def test_what_is_wanted_is_of_ours_or_of_how_many_times_the_plain_figure_is_ours(wanted: str, met: bool | None) -> None:
    assert Item("a pass", "s", 3.0, 6.0, wanted).met is met


def test_medians_come_from_works_that_are_called_in_turn(tmp_path: Path) -> None:
    called = list[str]()
    setting = Setting(CPU, tmp_path, runs=3)
    seconds = setting.medians(lambda: called.append("ours"), lambda: called.append("plain"))
    assert called == ["ours", "plain"] * 3
    assert len(seconds) == 2


def test_the_plain_generator_is_ours_in_other_layers() -> None:
    ours, plain = ideal_generator(8, 4, (1, 8, 8)), plain_ideal.generator_of(8, 4, (1, 8, 8))
    weights = ours.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
    noise = torch.randn(6, 8)
    assert torch.allclose(ours(noise), plain(noise), atol=1e-6)


def test_the_plain_pool_comes_back_from_its_files(tmp_path: Path) -> None:
    images = torch.arange(256).view(4, 1, 8, 8).div(255)
    for half in images.split(2):
        plain_ideal.save(half, tmp_path / "pool")
    back = [
        image if image[0, 0, 0] < image[0, 0, 1] else image.flip(-1) for image in plain_ideal.Files(tmp_path / "pool")
    ]
    assert torch.equal(torch.stack(back), images)


def test_the_plain_batch_leaves_the_gradients_that_ours_does_not_compute() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images = plain_ideal.generate(plain_ideal.generator_of(8, 4, (1, 8, 8)), student, 6, 8, 2, torch.default_generator)
    assert images.shape == (6, 1, 8, 8)
    assert student[1].weight.grad is not None


def test_the_table_is_kept_with_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "--small", "--runs", "1", "--only", "recog*", "--out", str(tmp_path)])
    main()
    with (tmp_path / "speed.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "20 finished cells are recognised"
    assert (row["met"], row["wanted"]) == ("True", "ours <= 2")
    words = (tmp_path / "README.md").read_text()
    assert "python -m speed --small --runs 1 --only" in words
    assert str(tmp_path) not in words
    assert "no figure means anything" in words


def test_a_missed_target_is_told_as_plainly_as_a_met_one() -> None:
    rows = table.markdown([Item("a", "s", 1.0, 3.0, "ratio >= 2"), Item("b", "s", 1.0, 1.0, "ratio >= 2")])
    assert [line.split("|")[7].strip() for line in rows.splitlines()[2:]] == ["met", "missed"]


def test_an_item_that_is_none_is_told_with_those_that_are() -> None:
    assert chosen([], CPU) == list(ITEMS)
    assert chosen(["re*"], CPU) == ["recognition", "resnets"]
    with pytest.raises(SystemExit, match="--only pool: wanted one of ideal, cell"):
        chosen(["pool"], CPU)
