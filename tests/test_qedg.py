"""QEDG's losses, its filter and its accounting."""

import math

import pytest
import torch
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, make_oracle, make_run, small_student
from torch import Tensor, nn

from methods import qedg

SMALL: dict[str, object] = {
    "batch_size": 12,
    "generator_steps": 2,
    "generator_width": 4,
    "latent": 8,
    "crop_padding": 1,
    "passes": 2,
    "final_rounds": 3,
}


class FirstPixel(nn.Module):
    """Of two classes, gives the first a probability equal to the image's first pixel."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0].log(), (1 - images[:, 0, 0, 0]).log()], dim=1)


def images_of(*first_pixels: float) -> Tensor:
    """Images 1 x 8 x 8 whose first pixels are given and whose other pixels tell them apart by position."""
    images = torch.linspace(0, 1, 64).repeat(len(first_pixels), 1).view(-1, 1, 8, 8)
    images[:, 0, 0, 0] = torch.tensor(first_pixels)
    return images


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_at_or_below_the_threshold_are_kept_the_least_sure_first() -> None:
    images = images_of(0.9, 0.625, 0.5, 0.75, 0.3125, 0.05)  # confidences 0.9, 0.625, 0.5, 0.75, 0.6875, 0.95
    config = qedg.Config(threshold=0.6875, least_kept=0.01)
    kept = qedg.unsure(images, FirstPixel(), config)
    assert torch.equal(kept[:, 0, 0, 0], torch.tensor([0.5, 0.625, 0.3125]))


def test_a_round_of_sure_images_keeps_the_least_sure_share() -> None:
    images = images_of(0.9, 0.99, 0.8, 0.95)
    kept = qedg.unsure(images, FirstPixel(), qedg.Config(threshold=0.7, least_kept=0.3))
    assert torch.equal(kept[:, 0, 0, 0], torch.tensor([0.8, 0.9]))  # 0.3 of 4, rounded up


def test_overconfidence_is_the_spread_of_the_probabilities() -> None:
    even, sure = torch.zeros(1, 2), torch.tensor([[50.0, 0.0]])
    assert qedg.overconfidence(even).item() == pytest.approx(0)
    assert qedg.overconfidence(sure).item() == pytest.approx(math.sqrt(1 / 2))  # of 1 and 0, n - 1 = 1
    assert qedg.overconfidence(torch.cat([even, sure])).item() == pytest.approx(math.sqrt(1 / 2) / 2)


def test_similarity_adds_the_cosines_of_pairs_within_a_class() -> None:
    right, up = [1.0, 0.0], [0.0, 2.0]
    images = torch.tensor([right, [3.0, 0.0], up, [1.0, 1.0]]).view(4, 1, 1, 2)
    one_class = qedg.similarity(images, torch.zeros(4, dtype=torch.int64)).item()
    assert one_class == pytest.approx((1 + 3 / math.sqrt(2)) / 4)  # one pair along, three at 45 degrees, two across
    assert qedg.similarity(images, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(1 / math.sqrt(2) / 4)
    assert qedg.similarity(images, torch.arange(4)).item() == 0


def test_images_the_student_gets_wrong_weigh_more() -> None:
    logits = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log()
    loss = qedg.misfit_loss(logits, torch.tensor([0, 1]), misfit_weight=2.0)
    assert loss.item() == pytest.approx((-math.log(3 / 4) - 2 * math.log(1 / 4)) / 2)


def test_only_images_the_student_is_sure_of_are_mirrored_for_free() -> None:
    images = images_of(0.96, 0.6, 0.02)
    mirrored = qedg.free_augment(images, FirstPixel(), rng())
    assert torch.equal(mirrored[1], images[1])
    for sure in (0, 2):
        assert any(torch.equal(mirrored[sure], images[sure].flip(axis)) for axis in (-1, -2))


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    images = torch.rand(40, 3, 8, 8, generator=rng())
    moved = qedg.move(images, qedg.Config(rotation=(90, 90), crop_padding=0), rng(1))
    for before, after in zip(images, moved, strict=True):
        turned = before.rot90(dims=(1, 2))
        choices = [turned, turned.flip(1), turned.flip(2), turned.flip(1).flip(2)]
        assert sum(torch.allclose(after, choice, atol=1e-5) for choice in choices) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_heavily_augmented_images_are_images_and_grey_ones_keep_their_colour(channels: int) -> None:
    images = torch.full((50, channels, 8, 8), 0.25)
    augmented = qedg.heavy_augment(images, qedg.Config(crop_padding=0), rng())
    assert augmented.shape == images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    assert torch.allclose(augmented, images, atol=1e-6) == (channels == 1)


def test_each_kept_image_costs_one_query_and_the_final_rounds_none() -> None:
    teacher, config = RecordingTeacher(), qedg.Config(**SMALL)
    oracle = make_oracle(teacher, 40)
    rounds = list(qedg.distill(oracle, small_student(), config, make_run()))
    kept = [figures["kept"] for figures in rounds if "kept" in figures]
    assert teacher.calls == kept
    assert sum(kept) == oracle.spent == 40
    assert len(rounds) == len(kept) + config.final_rounds


def test_a_student_that_is_always_sure_still_ends_the_run() -> None:
    teacher, config = RecordingTeacher(), qedg.Config(**{**SMALL, "threshold": 0.0, "least_kept": 0.2})
    list(qedg.distill(make_oracle(teacher, 7), small_student(), config, make_run()))
    assert teacher.calls == [2, 2, 2, 1]  # 0.2 of a batch of 7, capped by the budget, rounded up


@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_a_resumed_run_ends_as_an_unbroken_one(stop_after: int) -> None:
    settings = {**SMALL, "threshold": 0.0, "least_kept": 0.6}  # 8 queries a round: 4 rounds, then 3 final ones
    assert_resuming_changes_nothing("qedg", 30, "labels", stop_after, **settings)
