"""The image priors of DIP-KD (arXiv 2604.25794, section 3.2): noise of many scales, distorted, and mixed in blobs.

Differs from the paper:
    the mixture of scales is stretched to [0, 1], as in noise.py, and rotated, distorted and cut in one resampling;
    layers are enlarged bilinearly, which is not stated; noise of one pixel is among the scales, as there;
    the two cases of the diverging filter are printed the wrong way round; its stated properties settle it;
    masks are filtered a fixed number of times (2025-tlmr: 10), not until they change by less than 0.01,
    which it says takes about 10;
    not stated, so ours: the share of images mixed with one colour, and how far masks are blurred. Elastic
    distortion has torchvision's default strength at 32 pixels, and all lengths scale with the image's side.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor

from methods.noise import multiscale
from methods.search import Range


class Priors(BaseModel, frozen=True, extra="forbid"):
    """rotation: largest angle, degrees. one_colour: share of images mixed with a colour, not with another image."""

    rotation: Annotated[float, Range(0.0, 90.0)] = Field(45.0, ge=0)
    one_colour: Annotated[float, Range(0.0, 1.0)] = Field(0.5, ge=0, le=1)
    mask_passes: int = Field(10, ge=0)
    mask_blur: float = Field(1 / 16, gt=0)  # of the image's side


def image_priors(n: int, shape: tuple[int, int, int], priors: Priors, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1]."""
    channels, height, width = shape
    side = 2 ** math.ceil(math.log2(max(height, width)))
    noise = multiscale(n, (channels, side, side), side.bit_length(), rng)
    images = distort(noise, height, width, priors.rotation, rng)
    colours = torch.rand(n, channels, 1, 1, generator=rng, device=rng.device)
    one_colour = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < priors.one_colour
    others = torch.where(one_colour, colours, images.roll(1, dims=0))
    mask = semantic_mask(n, height, width, priors, rng)
    return mask * images + (1 - mask) * others


def distort(noise: Tensor, height: int, width: int, rotation: float, rng: Generator) -> Tensor:
    """Rotate by up to `rotation` degrees, distort elastically, and cut height x width at a random place.

    noise: n x C x S x S; what lies outside is black.
    """
    n, channels, side, _ = noise.shape
    unit = torch.eye(2, 3, device=noise.device).expand(n, 2, 3)
    size = torch.tensor([width, height], device=noise.device) / side
    place = (2 * torch.rand(n, 1, 1, 2, generator=rng, device=noise.device) - 1) * (1 - size)
    shifts = elastic_shifts(n, height, width, side / 32, rng)
    angle = math.radians(rotation) * (2 * torch.rand(n, generator=rng, device=noise.device) - 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 1, 2, 2)
    grid = F.affine_grid(unit, [n, channels, height, width], align_corners=False) * size + place + shifts
    return F.grid_sample(noise, grid @ turn, align_corners=False).clamp(0, 1)


def elastic_shifts(n: int, height: int, width: int, scale: float, rng: Generator) -> Tensor:
    """Where each pixel looks instead, n x H x W x 2, in half sides: uniform noise, blurred.

    At scale 1, which is 32 pixels, torchvision's ElasticTransform: blurred by 5 pixels, times 50 / 32.
    """
    field = 2 * torch.rand(n, 2, height, width, generator=rng, device=rng.device) - 1
    return 50 / 32 * scale * blur(field, 5 * scale).permute(0, 2, 3, 1)


def semantic_mask(n: int, height: int, width: int, priors: Priors, rng: Generator) -> Tensor:
    """Masks n x 1 x H x W of soft-edged blobs, near 0 or 1: uniform noise, blurred and diverged in turn."""
    mask = torch.rand(n, 1, height, width, generator=rng, device=rng.device)
    for _ in range(priors.mask_passes):
        mask = diverge(blur(mask, priors.mask_blur * max(height, width)))
    return mask


def diverge(mask: Tensor) -> Tensor:
    """Drive values in [0, 1] from 1/2 towards 0 and 1, along two half-parabolas that meet at (1/2, 1/2)."""
    return torch.where(mask < 0.5, 2 * mask**2, 1 - 2 * (1 - mask) ** 2)


def blur(maps: Tensor, sigma: float) -> Tensor:
    """A Gaussian of `sigma` pixels over N x C x H x W, which continues mirrored beyond its borders."""
    channels, radius = maps.shape[1], min(math.ceil(3 * sigma), min(maps.shape[-2:]) - 1)
    distance = torch.arange(-radius, radius + 1, device=maps.device) / sigma
    kernel = (-(distance**2) / 2).softmax(dim=0).expand(channels, 1, 1, -1)
    padded = F.pad(maps, [radius] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)
