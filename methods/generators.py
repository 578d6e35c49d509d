"""The image generators of this field: one trunk, as published with IDEAL and with the DFME family."""

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class UpsamplingGenerator(nn.Module):
    """A linear layer, two up-samplings by 2 and three 3x3 convolutions, then `last`.

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
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=bias),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=bias),
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
