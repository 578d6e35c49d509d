"""Methods from outside the repository: run without touching it, and checked in plain words."""

import sys
from pathlib import Path

import pytest
from test_cli import bench

from methods import METHODS

GOOD = '''
"""A method of my own.

Differs from the paper: there is none.
Differs from the released code: there is none.
"""

import torch
import torch.nn.functional as F
from pydantic import BaseModel

ANSWERS = ("labels",)
DATA = "train"
PROTOCOL = "per_budget"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: mine."""

    batch_size: int = 20


def distill(oracle, student, config, run):
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    run.track(optimizer=optimizer)
    while True:
        images = torch.rand(config.batch_size, *oracle.shape, generator=run.rng, device=run.device)
        loss = F.cross_entropy(student.train()(images), oracle(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield {"loss": loss.item()}
'''
BAD = {
    "catches the exception": (
        "loss = F.cross_entropy(student.train()(images), oracle(images))",
        """try:
            answers = oracle(images)
        except Exception:
            continue
        loss = F.cross_entropy(student.train()(images), answers)""",
        "goes on asking after BudgetExhausted",
    ),
    "is unseeded": (
        ", generator=run.rng",
        ", generator=None if torch.seed() else None",
        "the same seed gives another student",
    ),
    "keeps a reference to the teacher": (
        "    run.track(",
        "    student.teacher = [oracle._Oracle__ask]\n    run.track(",
        "keeps a reference to the teacher",
    ),
    "never yields": ('yield {"loss": loss.item()}', "if False:\n            yield {}", "never yields"),
    "changes the images it was given": (
        "    while True:",
        "    run.data.mul_(0.5)\n    while True:",
        "changes the images it was given",
    ),
    "asks the teacher behind the oracle's back": (
        "oracle(images))",
        "oracle(images)) + 0 * oracle._Oracle__ask(images).sum()",
        "behind its back",
    ),
    "lacks a docstring of differences": (
        "Differs from the paper: there is none.",
        "",
        "no paragraph 'Differs from the paper:'",
    ),
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good method in a file; METHODS is put back afterwards."""
    monkeypatch.setitem(METHODS, "my_method", METHODS["noise"])
    del METHODS["my_method"]
    file = tmp_path / "my_method.py"
    file.write_text(GOOD)
    return file


def test_a_good_method_keeps_to_the_contract(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("check", str(plugin)) == 0
    assert "my_method keeps to the contract" in capsys.readouterr().out


@pytest.mark.parametrize("fault", BAD)
def test_what_is_wrong_with_a_bad_method_is_said_in_plain_words(
    plugin: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    good, bad, told = BAD[fault]
    assert good in GOOD
    plugin.write_text(GOOD.replace(good, bad))
    assert bench("check", str(plugin)) == 1
    assert told in capsys.readouterr().out


def test_a_method_of_ones_own_runs_in_a_grid_without_touching_the_repository(
    trained: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--method", "my_method", "--budget", "250", "--seeds", "1", "--mlflow", "off"]
    assert bench("run", "--plugin", str(plugin), "--out", str(trained), *chosen) == 0
    assert "my_method" in capsys.readouterr().out
    assert len(list(trained.glob("cells/digits-lenet.my_method.250-labels.s0.*/done.json"))) == 1


def test_an_installed_entry_point_is_a_method_too(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "installed"
    (package / "mine-1.dist-info").mkdir(parents=True)
    (package / "mine-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (package / "mine-1.dist-info" / "entry_points.txt").write_text("[bench.methods]\nmy_method = mine_module\n")
    plugin.rename(package / "mine_module.py")
    monkeypatch.syspath_prepend(str(package))
    assert bench("check", "my_method") == 0
    assert "my_method keeps to the contract" in capsys.readouterr().out
    sys.modules.pop("mine_module", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("ANSWERS = ()", "lacks DATA, PROTOCOL, Config, distill"),
    ],
)
def test_a_file_that_is_no_method_is_told_in_one_line(
    plugin: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    plugin.write_text(text)
    assert bench("check", str(plugin)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_plugin_cannot_take_the_name_of_a_method(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("check", str(plugin.rename(plugin.with_name("ideal.py")))) == 2
    assert "there is a method ideal already" in capsys.readouterr().err
