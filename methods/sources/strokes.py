"""Strokes: a few curves of a thick pen on a plain ground."""

import torch
from torch import Generator, Tensor

from methods.generators import Shape
from methods.sources.canvas import colours, coordinates, ground, lay_over

MOST, DOTS = 5, 24  # curves an image, and how many dots make one


def strokes(n: int, shape: Shape, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1] of 1 to 5 quadratic Bezier curves each, in colours and widths of their own.

    The three points of a curve are uniform in the image; a radius is 2 to 8 % of its side.
    """
    points = torch.rand(n, MOST, 3, 2, generator=rng, device=rng.device)
    radius = 0.02 + 0.06 * torch.rand(n, MOST, generator=rng, device=rng.device)
    count = 1 + (MOST * torch.rand(n, 1, generator=rng, device=rng.device)).long()
    there = torch.arange(MOST, device=rng.device) < count
    images = ground(n, shape, rng)
    inks = colours(n, MOST, shape, rng)
    along = torch.linspace(0, 1, DOTS, device=rng.device)[:, None]
    dots = (
        (1 - along) ** 2 * points[:, :, :1] + 2 * along * (1 - along) * points[:, :, 1:2] + along**2 * points[:, :, 2:]
    )
    down, across = coordinates(shape, rng.device)
    for stroke in range(MOST):
        high = (down - dots[:, stroke, :, 0, None]) ** 2
        wide = (across - dots[:, stroke, :, 1, None]) ** 2
        distance = (high[..., None] + wide[..., None, :]).amin(dim=1).sqrt()
        inside = (radius[:, stroke, None, None] - distance) * max(shape[1:]) + 0.5
        images = lay_over(images, inside * there[:, stroke, None, None], inks[:, stroke])
    return images
