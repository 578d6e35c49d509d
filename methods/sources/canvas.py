"""What the sources draw on and with: grounds, coordinates, colours, textures, and one thing laid over another."""

import torch
from torch import Generator, Tensor

from methods.generators import Shape
from methods.noise import multiscale

SCALES = 6  # of noise and of textures, as many as the control mixes


def coordinates(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """The middles of the pixels, down (H) and across (W), in shares of the image."""
    down, across = ((torch.arange(side, device=device) + 0.5) / side for side in shape[1:])
    return down, across


def colours(n: int, count: int, shape: Shape, rng: Generator) -> Tensor:
    """n x count x C x 1 x 1 in [0, 1], uniform; in half of the images grey, alike in all channels."""
    drawn = torch.rand(n, count, shape[0], 1, 1, generator=rng, device=rng.device)
    grey = torch.rand(n, 1, 1, 1, 1, generator=rng, device=rng.device) < 0.5
    return torch.where(grey, drawn[:, :, :1], drawn)


def ground(n: int, shape: Shape, rng: Generator) -> Tensor:
    """Images n x C x H x W of one colour each."""
    return colours(n, 1, shape, rng)[:, 0].expand(n, *shape)


def noise(n: int, shape: Shape, rng: Generator) -> Tensor:
    """Images n x C x H x W of noise at several scales, that fill [0, 1]."""
    return multiscale(n, shape, SCALES, rng)


def textured(ink: Tensor, strength: Tensor, texture: Tensor) -> Tensor:
    """Ink n x C x 1 x 1 that shows more or less, n in [0, 1], of a texture n x C x H x W of `noise`."""
    return (ink + strength[:, None, None, None] * (texture - 0.5)).clamp(0, 1)


def lay_over(images: Tensor, inside: Tensor, ink: Tensor) -> Tensor:
    """images n x C x H x W under `ink`, which is as large or n x C x 1 x 1, where `inside` n x H x W is above 0.

    inside: how far within the thing a pixel's middle is, in pixels, and 1/2 at its edge; more than 1 covers all.
    """
    return images.lerp(ink.expand_as(images), inside.clamp(0, 1)[:, None])
