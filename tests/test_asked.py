"""What is kept of all that the teacher was asked: a fair sample, and whether a student learnt from it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import CLASSES, SHAPE, linear_network
from torch import Tensor

from bench.boxes.box import black_box
from bench.cells import asked
from bench.cells.asked import Asked


def numbered(first: int, n: int) -> Tensor:
    """Images that carry their number."""
    return (torch.arange(first, first + n) / 2**20).view(n, 1, 1, 1).expand(n, *SHAPE).clone()


def kept_numbers(of: Asked) -> list[int]:
    return sorted((of.state_dict()["images"][:, 0, 0, 0] * 2**20).round().int().tolist())


def fill(batches: list[int]) -> Asked:
    found, done = Asked(black_box(linear_network())), 0
    for n in batches:
        found(numbered(done, n))
        done += n
    return found


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_all_are_kept_until_there_is_no_more_room_however_they_come(batches: list[int]) -> None:
    assert kept_numbers(fill(batches)) == list(range(sum(batches)))


@given(st.lists(st.integers(1, 900), min_size=2, max_size=6))
def test_what_is_kept_does_not_depend_on_how_it_was_batched(batches: list[int]) -> None:
    assert kept_numbers(fill(batches)) == kept_numbers(fill([sum(batches)]))


def test_early_and_late_images_are_kept_alike() -> None:
    kept = torch.tensor(kept_numbers(fill([100] * 100)))
    assert len(kept) == asked.KEPT
    quarters = kept.div(2500, rounding_mode="floor").bincount(minlength=4)
    assert (quarters - asked.KEPT / 4).abs().max() < 4 * (asked.KEPT * 0.25 * 0.75) ** 0.5


def test_a_restart_goes_on_with_the_same_sample() -> None:
    whole, first, second = fill([300, 300, 300]), fill([300, 300]), Asked(black_box(linear_network()))
    second.load_state_dict(first.state_dict())
    second(numbered(600, 300))
    assert kept_numbers(second) == kept_numbers(whole)


def test_a_copy_of_the_teacher_has_learnt_everything_and_a_student_of_one_answer_the_share_of_it() -> None:
    teacher = linear_network()
    of = Asked(black_box(teacher))
    labels = of(torch.rand(400, *SHAPE, generator=torch.Generator().manual_seed(0))).argmax(dim=1)
    shares = labels.bincount(minlength=CLASSES) / 400
    found = of.measure(teacher)
    assert found == {"fitted": 1.0, "commonest": pytest.approx(shares.max().item())}
    for answer in range(CLASSES):
        constant = linear_network()
        constant[1].weight.data.zero_()  # type: ignore[index,union-attr,operator]
        constant[1].bias.data = torch.eye(CLASSES)[answer]  # type: ignore[index]
        assert of.measure(constant)["fitted"] == pytest.approx(shares[answer].item())
