"""Random shapes on a plain ground: the synthetic prior of DFMS, drawn without any data."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from methods.generators import Shape


def random_shapes(n: int, shape: Shape, count: int, sizes: tuple[float, float], rng: Generator) -> Tensor:
    """Images n x C x H x W of `count` grey shapes each, alike in all channels, whose sides are `sizes` of the image's.

    Kinds, places, sides between the two sizes, and tones are uniformly random.
    """
    channels, height, width = shape
    low, high = sizes
    draw = torch.rand(6, n, count, generator=rng, device=rng.device)
    ground = torch.rand(n, 1, generator=rng, device=rng.device)
    kinds, centres, sides = (3 * draw[0]).long(), draw[1:3], low + (high - low) * draw[3:5]
    images = paint(kinds, centres, sides, torch.cat([ground, draw[5]], dim=1), height, width)
    return images.expand(-1, channels, -1, -1)


def paint(kinds: Tensor, centres: Tensor, sides: Tensor, tones: Tensor, height: int, width: int) -> Tensor:
    """Grey images N x 1 x height x width, later shapes over earlier ones, drawn at twice the size and averaged 2 x 2.

    kinds: N x S, 0 for a rectangle, 1 an ellipse, 2 a triangle pointing up. centres, sides: 2 x N x S, down and
    across, in shares of the image. tones: N x (S + 1) in [0, 1], the ground's first.
    """
    down, across = ((torch.arange(2 * side, device=kinds.device) + 0.5) / (2 * side) for side in (height, width))
    kinds, centres, sides = kinds[..., None, None], centres[..., None, None], sides[..., None, None]
    v = 2 * (down[:, None] - centres[0]) / sides[0]
    u = 2 * (across - centres[1]) / sides[1]
    box = (u.abs() <= 1) & (v.abs() <= 1)
    ellipse = u**2 + v**2 <= 1
    triangle = box & (u.abs() <= (1 + v) / 2)
    inside = torch.where(kinds == 0, box, torch.where(kinds == 1, ellipse, triangle))
    layers = torch.arange(1, kinds.shape[1] + 1, device=kinds.device)[:, None, None]
    top = (inside * layers).amax(dim=1)
    return F.avg_pool2d(tones.gather(1, top.flatten(1)).view(-1, 1, 2 * height, 2 * width), 2)
