"""Tones: what becomes of an image's brightness after it was drawn."""

import torch
from torch import Generator, Tensor

from methods.noise import stretched


def tone(images: Tensor, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1]: a third as they are, a third stretched to fill [0, 1], a third with a contrast
    of their own, a logistic curve of random steepness and middle."""
    n = len(images)
    which, steep, middle = torch.rand(3, n, 1, 1, 1, generator=rng, device=rng.device)
    full = stretched(images)
    curved = torch.sigmoid((full - middle) * 2 ** (2 + 3 * steep))
    return torch.where(which < 1 / 3, images, torch.where(which < 2 / 3, full, curved))
