"""Spectrum noise: random phases under a spectrum that falls with the frequency, as that of photographs does.

The images of Baradad et al. (NeurIPS 2021): magnitudes 1 / (|fx|^a + |fy|^b), a and b uniform in [0.5, 3.5].
"""

import torch
from torch import Generator, Tensor

from methods.generators import Shape
from methods.noise import stretched


def spectrum(n: int, shape: Shape, rng: Generator) -> Tensor:
    """Images n x C x H x W that fill [0, 1]."""
    channels, height, width = shape
    noise = torch.randn(n, channels, height, width, generator=rng, device=rng.device)
    powers = 0.5 + 3 * torch.rand(2, n, 1, 1, 1, generator=rng, device=rng.device)
    down = torch.fft.fftfreq(height, 1 / height, device=rng.device).abs()[:, None]
    across = torch.fft.rfftfreq(width, 1 / width, device=rng.device)
    falling = 1 / (down ** powers[0] + across ** powers[1]).clamp_min(1)
    return stretched(torch.fft.irfft2(torch.fft.rfft2(noise) * falling, s=(height, width)))
