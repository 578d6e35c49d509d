"""Blobs: one to three things with a wavy outline, plain or textured, on a plain ground."""

import torch
from torch import Generator, Tensor

from methods.generators import Shape
from methods.sources.canvas import colours, coordinates, ground, lay_over, noise, textured

MOST, WAVES = 3, 6


def blobs(n: int, shape: Shape, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1]. An outline's radius is a Fourier series of the angle, of 6 terms; half of the
    images are mirror images of themselves, as made things and creatures often are."""

    def draw(*size: int) -> Tensor:
        return torch.rand(n, *size, generator=rng, device=rng.device)

    there = torch.arange(MOST, device=rng.device) < 1 + (MOST * draw(1) ** 2).long()
    size, stretch = 0.1 + 0.35 * draw(MOST), 0.5 + draw(MOST)
    centre = 0.5 + 0.6 * (draw(MOST, 2) - 0.5) * (0.3 + 0.7 * draw(1, 1))
    fading = torch.arange(1, WAVES + 1, device=rng.device) ** -0.7
    waves = torch.randn(n, MOST, 2, WAVES, generator=rng, device=rng.device) * fading * 0.5 * draw(MOST, 1, 1)
    inks, texture = colours(n, MOST, shape, rng), noise(n, shape, rng)
    strength = draw(MOST) * (draw(1) < 0.6)
    images = ground(n, shape, rng)
    down, across = coordinates(shape, rng.device)
    for blob in range(MOST):
        v = ((down - centre[:, blob, :1]) * stretch[:, blob, None])[:, :, None]
        u = ((across - centre[:, blob, 1:]) / stretch[:, blob, None])[:, None, :]
        distance = (u**2 + v**2).sqrt().clamp_min(1e-3)
        outline = size[:, blob, None, None] * series(waves[:, blob], u / distance, v / distance).clamp(0.15, 3)
        inside = (outline - distance) * max(shape[1:]) + 0.5
        ink = textured(inks[:, blob], strength[:, blob], texture)
        images = lay_over(images, inside * there[:, blob, None, None], ink)
    half = images[..., : (shape[2] + 1) // 2]
    mirrored = torch.cat([half, half[..., : shape[2] // 2].flip(-1)], dim=-1)
    return torch.where(draw(1, 1, 1) < 0.5, mirrored, images)


def series(waves: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """1 + sum over k of a_k cos(k t) + b_k sin(k t), from cos t and sin t. waves: n x 2 x K."""
    total, c, s = torch.ones_like(cosine * sine), cosine, sine
    for k in range(waves.shape[2]):
        total = total + waves[:, 0, k, None, None] * c + waves[:, 1, k, None, None] * s
        c, s = c * cosine - s * sine, s * cosine + c * sine
    return total
