"""Dead leaves: shapes of many sizes, each over those before it, plain or with a texture.

The model of natural images of Lee, Mumford and Huang (IJCV 2001), used to train networks without data by Baradad et al.
(NeurIPS 2021): sizes follow a power law, so that an image has a few large leaves and many small ones.
"""

import math

import torch
from torch import Generator, Tensor

from methods.generators import Shape
from methods.sources.canvas import colours, coordinates, ground, lay_over, noise, textured

MOST = 30  # leaves
SMALLEST, LARGEST = 0.06, 0.6  # half a side, in shares of the image's


def leaves(n: int, shape: Shape, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1] of 1 to 30 ellipses, rectangles and triangles, turned, on a plain ground.

    Half of the images have leaves with texture: each shows more or less of one image of multi-scale noise.
    """

    def draw(*size: int) -> Tensor:
        return torch.rand(n, *size, generator=rng, device=rng.device)

    count = (MOST ** draw(1)).ceil()  # as many images of 1 to 5 as of 6 to 30
    there = torch.arange(MOST, device=rng.device) >= MOST - count
    kind, turn = (3 * draw(MOST)).long(), 2 * math.pi * draw(MOST)
    size = (SMALLEST**-2 + draw(MOST) * (LARGEST**-2 - SMALLEST**-2)) ** -0.5  # density as size to the -3
    size = torch.where(draw(1) < 0.5, size, SMALLEST + (LARGEST - SMALLEST) * draw(MOST))
    ratio, centre = 0.4 + 0.6 * draw(MOST), draw(MOST, 2)
    inks = colours(n, MOST, shape, rng)
    texture = noise(n, shape, rng)
    strength = draw(MOST) * (draw(1) < 0.5)
    images = ground(n, shape, rng)
    down, across = coordinates(shape, rng.device)
    for leaf in range(MOST):
        v, u = down - centre[:, leaf, :1], across - centre[:, leaf, 1:]
        cosine, sine = turn[:, leaf].cos()[:, None, None], turn[:, leaf].sin()[:, None, None]
        along = (u[:, None, :] * cosine + v[:, :, None] * sine).div_(size[:, leaf, None, None])
        beside = (v[:, :, None] * cosine - u[:, None, :] * sine).div_((size * ratio)[:, leaf, None, None])
        reach = edge(kind[:, leaf, None, None], along, beside)
        inside = (1 - reach) * (size * ratio)[:, leaf, None, None] * max(shape[1:]) + 0.5
        ink = textured(inks[:, leaf], strength[:, leaf], texture)
        images = lay_over(images, inside * there[:, leaf, None, None], ink)
    return images


def edge(kind: Tensor, along: Tensor, beside: Tensor) -> Tensor:
    """How far out a place is: 1 at the edge of an ellipse (kind 0), a rectangle (1) or a triangle (2)."""
    ellipse = (along**2 + beside**2).sqrt()
    rectangle = torch.maximum(along.abs(), beside.abs())
    triangle = torch.maximum(-beside, 2 * along.abs() + beside)
    return torch.where(kind == 0, ellipse, torch.where(kind == 1, rectangle, triangle))
