"""What the sources draw on: coordinates, colours, and one thing laid over another with a soft edge."""

import torch
from torch import Generator, Tensor

from methods.generators import Shape


def coordinates(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """The middles of the pixels, down (H) and across (W), in shares of the image."""
    down, across = ((torch.arange(side, device=device) + 0.5) / side for side in shape[1:])
    return down, across


def colours(n: int, count: int, shape: Shape, rng: Generator) -> Tensor:
    """n x count x C x 1 x 1 in [0, 1], uniform; in half of the images grey, alike in all channels."""
    drawn = torch.rand(n, count, shape[0], 1, 1, generator=rng, device=rng.device)
    grey = torch.rand(n, 1, 1, 1, 1, generator=rng, device=rng.device) < 0.5
    return torch.where(grey, drawn[:, :, :1], drawn)


def lay_over(images: Tensor, inside: Tensor, ink: Tensor) -> Tensor:
    """images n x C x H x W under `ink`, which is as large or n x C x 1 x 1, where `inside` n x H x W is above 0.

    inside: how far within the thing a pixel's middle is, in pixels, and 1/2 at its edge; more than 1 covers all.
    """
    return images.lerp(ink.expand_as(images), inside.clamp(0, 1)[:, None])
