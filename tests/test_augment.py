"""Views of a batch: windows and mirror images, drawn for each image by itself, with a gradient to the pixels."""

import pytest
import torch
from torch import Generator, Tensor

from methods.augment import augment, random_crop, random_flip


def rng(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = 1, channels: int = 1, height: int = 3, width: int = 3) -> Tensor:
    """Images whose pixels are all different and above 0."""
    return torch.arange(1, n * channels * height * width + 1).float().view(n, channels, height, width)


def windows(image: Tensor, padding: int) -> list[Tensor]:
    """All the crops there are, cut by hand."""
    height, width = image.shape[1:]
    padded = torch.zeros(len(image), height + 2 * padding, width + 2 * padding)
    padded[:, padding : padding + height, padding : padding + width] = image
    places = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    return [padded[:, top : top + height, left : left + width] for top, left in places]


def test_the_crops_of_three_by_three_pixels_are_the_nine_windows_and_all_of_them() -> None:
    image = numbered()[0]
    by_hand = torch.stack(windows(image, 1)).flatten(1)
    assert by_hand[0].tolist() == [0, 0, 0, 0, 1, 2, 0, 4, 5]
    assert by_hand[8].tolist() == [5, 6, 0, 8, 9, 0, 0, 0, 0]
    cropped = random_crop(image.expand(500, 1, 3, 3), 1, rng()).flatten(1)
    assert {tuple(row) for row in cropped.tolist()} == {tuple(row) for row in by_hand.tolist()}


@pytest.mark.parametrize("padding", [1, 2, 5])
def test_every_crop_of_a_colour_image_that_is_not_square_is_one_of_its_windows(padding: int) -> None:
    images = numbered(n=30, channels=3, height=4, width=6)
    for image, cropped in zip(images, random_crop(images, padding, rng()), strict=True):
        assert any(torch.equal(cropped, window) for window in windows(image, padding))


def test_a_crop_without_padding_is_the_image() -> None:
    images = numbered(n=5)
    assert torch.equal(random_crop(images, 0, rng()), images)


def test_a_flip_mirrors_left_to_right_about_half_of_the_images_and_no_other() -> None:
    images = numbered(n=1000, channels=2, height=2, width=3)
    mirrored = 0
    for image, flipped in zip(images, random_flip(images, rng()), strict=True):
        is_mirror = torch.equal(flipped, image[:, :, [2, 1, 0]])
        assert is_mirror or torch.equal(flipped, image)
        mirrored += is_mirror
    assert 440 < mirrored < 560


def test_none_is_the_batch_itself_and_draws_nothing() -> None:
    images, generator = numbered(n=3), rng()
    before = generator.get_state()
    assert torch.equal(augment(images, "none", 4, generator), images)
    assert torch.equal(generator.get_state(), before)


def test_each_kind_does_what_its_name_says() -> None:
    images = numbered(n=200, height=4, width=4)
    rows = {kind: augment(images, kind, 1, rng()) for kind in ("crop", "flip", "crop_flip")}  # type: ignore[arg-type]
    assert torch.equal(rows["crop"], random_crop(images, 1, rng()))
    assert torch.equal(rows["flip"], random_flip(images, rng()))
    generator = rng()
    assert torch.equal(rows["crop_flip"], random_flip(random_crop(images, 1, generator), generator))


@pytest.mark.parametrize("kind", ["none", "crop", "flip", "crop_flip"])
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (7, 3, 32, 32), (4, 1, 5, 9)])
def test_a_view_has_the_shape_of_its_image_and_leaves_it_as_it_was(kind: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(*shape, generator=rng())
    before = images.clone()
    view = augment(images, kind, 2, rng())  # type: ignore[arg-type]
    assert view.shape == images.shape
    assert view.dtype == images.dtype
    assert torch.equal(images, before)


def test_the_gradient_reaches_the_pixels_that_are_seen_and_no_others() -> None:
    images = numbered(n=50, height=4, width=4).requires_grad_()
    view = augment(images, "crop_flip", 2, rng())
    view.sum().backward()
    assert images.grad is not None
    for image, seen, gradient in zip(images.detach(), view.detach(), images.grad, strict=True):
        assert torch.equal(gradient, torch.isin(image, seen).float())


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    images = numbered(n=20, height=8, width=8)
    first, again, other = (augment(images, "crop_flip", 2, rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_of_one_batch_are_moved_each_by_itself() -> None:
    same = numbered(height=8, width=8).expand(100, 1, 8, 8)
    assert len(random_crop(same, 2, rng()).flatten(1).unique(dim=0)) > 15
