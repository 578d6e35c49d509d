"""Teachers that defend themselves: what each defence does, and that it depends on the image alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import CPU, digits_cell
from torch import Tensor

from bench.boxes.defences import defended, parse
from bench.cells.exam import held_out_file, hold_out
from bench.cells.run import run_cell
from bench.errors import UsageError
from bench.tasks.table import task_of
from results.records import Point, read

SHAPE = (1, 8, 8)
ALL = ("rounding-1", "noise-0.2", "flips-0.9")


def teacher(images: Tensor) -> Tensor:
    """Some function of the images."""
    weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    return (images.flatten(1) @ weights).softmax(dim=1)


def pictures(n: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("defence", ALL)
def test_the_same_image_gets_the_same_answer_whatever_is_asked_with_it(defence: str) -> None:
    ask, images = defended(teacher, defence), pictures()
    alone = torch.cat([ask(image[None]) for image in images])
    torch.testing.assert_close(ask(images), alone)
    torch.testing.assert_close(ask(images.flip(0)).flip(0), alone)


@given(seed=st.integers(0, 10_000), defence=st.sampled_from([*ALL, "noise-1", "rounding-0", "flips-1"]))
def test_what_is_answered_are_probabilities(seed: int, defence: str) -> None:
    answered = defended(teacher, defence)(pictures(8, seed))
    assert answered.min() >= 0
    sums = answered.sum(dim=1)
    assert ((sums - 1).abs().lt(1e-5) | (sums == 0)).all()  # rounded to no decimals, nothing may be left


def test_noise_differs_from_image_to_image_and_has_the_strength_that_it_is_named_by() -> None:
    flat = lambda images: torch.full((len(images), 10), 0.1)  # noqa: E731
    moved = defended(flat, "noise-0.01")(pictures(2000)) - 0.1
    assert moved.std().item() == pytest.approx(0.01 * 0.95, rel=0.05)  # a tenth is lost where the sum is made 1 again
    assert moved.mean().abs() < 1e-3
    assert moved.unique(dim=0).shape[0] == 2000


def test_flips_give_the_second_class_for_what_the_teacher_is_not_sure_of() -> None:
    sure = torch.tensor([[0.95, 0.03, 0.02], [0.5, 0.1, 0.4]])
    answered = defended(lambda _: sure, "flips-0.9")(pictures(2))
    assert answered.tolist() == [pytest.approx([0.95, 0.03, 0.02]), pytest.approx([0.4, 0.1, 0.5])]


@pytest.mark.parametrize("defence", ["", "noise", "noise-0", "noise-2", "rounding-1.5", "wall-1", "flips-x"])
def test_a_defence_that_there_is_not_is_told_with_those_there_are(defence: str) -> None:
    with pytest.raises(UsageError, match="wanted rounding-D, noise-S or flips-T"):
        parse(defence)


def test_a_defended_teacher_has_held_out_answers_of_its_own(trained: Path) -> None:
    names = [hold_out(task_of(f"digits-lenet{defence}"), trained, 60, "float") for defence in ("", "+flips-0.9")]
    plain, flipped = (torch.load(held_out_file(name, trained), weights_only=True)["answers"] for name in names)
    assert not torch.equal(plain, flipped)


def test_a_defended_teacher_makes_another_cell_and_other_students_of_the_same_weights(trained: Path) -> None:
    plain = digits_cell(trained, "noise", 400, kind="shapes", recipe={"min_steps": 300, "batch_size": 32})
    other = replace(plain, task="digits-lenet+flips-1")
    assert plain.teacher == other.teacher
    assert plain.name() != other.name()
    assert task_of("digits-lenet+flips-1").defence == "flips-1"
    for cell in (plain, other):
        run_cell(cell, trained, Path("no-data"), CPU)
    points = [read(trained / "cells" / cell.name() / "curve.json", list[Point])[-1] for cell in (plain, other)]
    assert points[0]["accuracy"] != points[1]["accuracy"]
    assert points[0]["agreement"] > points[1]["agreement"] + 0.1  # with what the black box says of the test images
