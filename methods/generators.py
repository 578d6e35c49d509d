"""The image generators of this field: one trunk, as published with IDEAL and with the DFME family."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]


class UpsampledConv2d(nn.Conv2d):
    """Nearest up-sampling by 2 followed by a 3x3 convolution with padding 1, as one convolution of the small map.

    Each output pixel sees only 2x2 different pixels of the small map, which ones and with which sums of
    the 3x3 weights depends on whether its row and its column are even or odd: four 2x2 kernels, and
    2.25 times fewer products. Maps N x C x H x W to N x C' x 2H x 2W.
    """

    # Even rows (and columns) see weights 0 above and 1 + 2 here, odd ones 0 + 1 here and 2 below.
    SUMS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))

    def forward(self, maps: Tensor) -> Tensor:
        n, _, height, width = maps.shape
        sums = self.weight.new_tensor(self.SUMS)
        kernels = torch.einsum("arh,bcw,oihw->aboirc", sums, sums, self.weight).flatten(0, 2)
        bias = None if self.bias is None else self.bias.repeat(4)
        phases = F.conv2d(maps, kernels, bias, padding=1).view(n, 4, self.out_channels, height + 1, width + 1)
        # Unbound, since the gradient of each slice of one tensor would be as large as all of it.
        part = phases.unbind(1)
        rows = [
            torch.stack([part[2 * a + b][:, :, a : a + height, b : b + width] for b in (0, 1)], dim=-1) for a in (0, 1)
        ]
        return torch.stack(rows, dim=3).reshape(n, self.out_channels, 2 * height, 2 * width)


class UpsamplingGenerator(nn.Module):
    """A linear layer and three 3x3 convolutions, two of them after an up-sampling by 2, then `last`.

    latent: length of the noise vector. width: channels before the last convolution.
    shape: (C, H, W), H and W multiples of 4. Maps noise N x latent to N x C x H x W.
    """

    def __init__(self, latent: int, width: int, shape: Shape, last: nn.Module, *, bias: bool) -> None:
        super().__init__()
        channels, height, width_px = shape
        if height % 4 or width_px % 4:
            raise ValueError(f"images of {height} x {width_px} pixels: wanted multiples of 4")
        self.start = (2 * width, height // 4, width_px // 4)
        self.project = nn.Linear(latent, 2 * width * (height // 4) * (width_px // 4))
        self.blocks = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            UpsampledConv2d(2 * width, 2 * width, 3, padding=1, bias=bias),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            UpsampledConv2d(2 * width, width, 3, padding=1, bias=bias),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
            last,
        )

    def forward(self, noise: Tensor) -> Tensor:
        images: Tensor = self.blocks(self.project(noise).view(-1, *self.start))
        return images


def ideal_generator(latent: int, width: int, shape: Shape) -> UpsamplingGenerator:
    """Images in [0, 1]: IDEAL's released code, nets.py, Generator_2 (width 64)."""
    return UpsamplingGenerator(latent, width, shape, nn.Sigmoid(), bias=False)


def dfme_generator(latent: int, width: int, shape: Shape) -> UpsamplingGenerator:
    """Unbounded maps, to be made images by `to_image`: DFME's released code, network/gan.py, GeneratorA (width 64).

    The activation stands apart because zeroth-order methods estimate the gradient before it.
    """
    return UpsamplingGenerator(latent, width, shape, nn.BatchNorm2d(shape[0], affine=False), bias=True)


def to_image(unbounded: Tensor) -> Tensor:
    """tanh, moved from [-1, 1] to [0, 1]."""
    return (torch.tanh(unbounded) + 1) / 2
