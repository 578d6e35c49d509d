"""DFMS: its random shapes, its diversity loss, its schedule and what its stages cost."""

import math

import pytest
import torch
from resuming import assert_resuming_changes_nothing
from support import SHAPE, RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor

from methods import dfms
from methods.shapes import paint, random_shapes

RECTANGLE, ELLIPSE, TRIANGLE = 0, 1, 2
SMALL = {
    "batch_size": 10,
    "shapes": 3,
    "shape_sizes": (0.2, 0.8),
    "gan_passes": 2,
    "gan_images": 30,
    "latent": 8,
    "generator_width": 4,
    "discriminator_width": 4,
    "initial_images": 40,
    "initial_passes": 3,
    "initial_batch_size": 16,
    "crop_padding": 1,
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_image(*shapes: tuple[int, tuple[float, float], tuple[float, float], float], side: int = 4) -> Tensor:
    """Shapes given as kind, centre, sides and tone, on black."""
    kinds = torch.tensor([[kind for kind, *_ in shapes]])
    centres = torch.tensor([centre for _, centre, *_ in shapes]).T[:, None]
    sides = torch.tensor([sides for *_, sides, _ in shapes]).T[:, None]
    tones = torch.tensor([[0.0, *(tone for *_, tone in shapes)]])
    return paint(kinds, centres, sides, tones, side, side)[0, 0]


def test_a_rectangle_covers_its_sides_around_its_centre() -> None:
    image = one_image((RECTANGLE, (0.5, 0.25), (1.0, 0.5), 0.8))
    assert torch.equal(image, torch.tensor([0.8, 0.8, 0.0, 0.0]).expand(4, 4))


def test_a_later_shape_covers_an_earlier_one() -> None:
    whole, right = (RECTANGLE, (0.5, 0.5), (1.0, 1.0), 0.4), (RECTANGLE, (0.5, 0.75), (1.0, 0.5), 0.9)
    assert torch.allclose(one_image(whole, right), torch.tensor([0.4, 0.4, 0.9, 0.9]).expand(4, 4))
    assert torch.allclose(one_image(right, whole), torch.full((4, 4), 0.4))


def test_an_edge_through_a_pixel_gives_it_half_the_tone() -> None:
    image = one_image((RECTANGLE, (0.5, 0.0), (1.0, 0.75), 1.0))  # reaches from the left to 3/8, one pixel and a half
    assert torch.equal(image, torch.tensor([1.0, 0.5, 0.0, 0.0]).expand(4, 4))


def test_an_ellipse_covers_pi_quarters_and_a_triangle_half_of_its_box() -> None:
    ellipse = one_image((ELLIPSE, (0.5, 0.5), (0.5, 1.0), 1.0), side=64)
    assert ellipse.mean().item() == pytest.approx(math.pi / 4 / 2, abs=0.01)
    triangle = one_image((TRIANGLE, (0.5, 0.5), (1.0, 1.0), 1.0), side=64)
    assert triangle.mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert triangle[0].sum() < 2  # it points up
    assert triangle[-1].sum() > 62


def test_random_shapes_are_grey_images_that_differ() -> None:
    images = random_shapes(6, (3, 8, 12), 5, (0.1, 0.9), rng())
    assert images.shape == (6, 3, 8, 12)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images[:, 0], images[:, 2])
    assert len({image.numpy().tobytes() for image in images}) == 6
    assert all(image.unique().numel() > 1 for image in images)


def test_diversity_loss_is_that_of_the_mean_prediction_of_the_batch() -> None:
    sure = 100 * torch.eye(4)  # each image of another class for certain
    assert dfms.diversity_loss(sure).item() == pytest.approx(-math.log(4), abs=1e-3)
    assert dfms.diversity_loss(torch.zeros(3, 4)).item() == pytest.approx(-math.log(4), abs=1e-3)
    assert dfms.diversity_loss(sure[[1, 1, 1]]).item() == pytest.approx(0, abs=1e-3)
    assert dfms.diversity_loss(sure[[1, 2]]).item() == pytest.approx(-math.log(2), abs=1e-3)


def test_with_its_penalty_the_generator_turns_to_images_the_student_spreads_over_the_classes() -> None:
    config, run, student = dfms.Config(**{**SMALL, "gan_lr": 2e-3}), make_run(), linear_network()
    gan = dfms.make_gan(SHAPE, config, run)
    losses = []
    for _ in range(40):
        fake = dfms.generate(30, gan, config, run)
        losses.append(dfms.diversity_loss(student(fake)))
        dfms.gan_step(gan, fake, dfms.draw(30, SHAPE, config, run), 500 * losses[-1])
    assert losses[-1] < losses[0] - 0.2


def test_the_discriminator_learns_to_tell_shapes_from_other_images() -> None:
    config, run = dfms.Config(**{**SMALL, "gan_lr": 5e-3}), make_run()
    gan = dfms.make_gan(SHAPE, config, run)
    losses = [
        dfms.gan_step(gan, torch.rand(20, *SHAPE, generator=run.rng), dfms.draw(20, SHAPE, config, run))
        for _ in range(60)
    ]
    assert losses[0].item() == pytest.approx(2 * math.log(2), abs=0.1)  # it begins without a notion
    assert losses[-1] < losses[0] / 2


def test_the_first_images_are_half_shapes_and_half_generated() -> None:
    config, run = dfms.Config(**SMALL), make_run()
    gan = dfms.make_gan(SHAPE, config, run)
    torch.nn.init.zeros_(gan.generator.blocks[-2].weight)  # the generator's images are all of one tone
    images = dfms.initial_images(7, gan, SHAPE, config, run)
    plain = [image.unique().numel() == 1 for image in images]
    assert plain == [False] * 4 + [True] * 3


def test_the_gan_costs_nothing_the_first_images_once_and_each_turn_a_batch() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 100)
    rounds = dfms.distill(oracle, small_student(), dfms.Config(**SMALL), make_run())
    spent = [oracle.spent for _, _ in zip(range(9), rounds, strict=False)]
    assert spent == [0, 0, 40, 40, 40, 50, 60, 70, 80]
    assert teacher.calls == [10] * 8


@pytest.mark.parametrize(("queries", "first"), [(60, 30), (61, 31), (1, 1), (2, 1)])
def test_the_first_images_take_at_most_half_of_a_small_budget(queries: int, first: int) -> None:
    oracle = make_oracle(RecordingTeacher(), queries)
    rounds = dfms.distill(oracle, small_student(), dfms.Config(**SMALL), make_run())
    spent = [oracle.spent for _, _ in zip(range(3), rounds, strict=False)]
    assert spent == [0, 0, first]


def test_the_rate_falls_over_the_passes_and_again_over_the_turns_after_a_warm_up() -> None:
    oracle, run = make_oracle(RecordingTeacher(), 80), make_run()
    rounds = dfms.distill(oracle, small_student(), dfms.Config(**{**SMALL, "warm_up": 0.5}), run)
    rates = []
    for _ in range(9):
        next(rounds)
        rates.append(run.state_dict()["parts"]["optimizer"]["param_groups"][0]["lr"])
    assert rates[2:5] == pytest.approx([0.1, 0.1 * 3 / 4, 0.1 * 1 / 4])
    # Turns at 1/4, 2/4, 3/4 and all of their 40 queries: the cosine, halved at the first by the warm-up.
    falls = [(1 + math.cos(math.pi * quarter / 4)) / 2 for quarter in (1, 2, 3, 4)]
    assert rates[5:] == pytest.approx([0.01 * falls[0] / 2, *(0.01 * fall for fall in falls[1:])])


@pytest.mark.parametrize("stop_after", [1, 4, 7])  # while the GAN trains, over the first images, during the turns
def test_a_resumed_run_ends_as_an_unbroken_one(stop_after: int) -> None:
    assert_resuming_changes_nothing("dfms", 90, "labels", stop_after=stop_after, **SMALL)
