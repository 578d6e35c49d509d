"""Noise controls: random images, each labelled once, and the fixed student recipe. What any method must beat.

`uniform` draws each pixel by itself. `multiscale` is the hierarchical noise of DIP-KD (arXiv 2604.25794):
uniform noise at several resolutions, enlarged and mixed with random weights, so that neighbouring
pixels agree as they do in photographs.

Differs from the paper: DIP-KD goes on to distort, mix and optimise these images; a control does not.
    Its mixture is used alone, with IDEAL's optimizer settings in place of its own. The mixture is
    stretched to fill [0, 1]; the coarsest scale above the image's side, 32 for 28 pixels, is left out.
Differs from the released code: none was found.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.fitting import Recipe, fit, optimizer_of
from methods.pool import Pool, to_8_bits
from methods.run import Run
from methods.search import Choice, Range

ANSWERS = ("labels", "probs")
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 1


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: scales 2^0 to 2^5 as DIP-KD; the recipe is ours, the same for all controls."""

    kind: Annotated[Literal["uniform", "multiscale"], Choice()] = "uniform"
    scales: Annotated[int, Range(2, 6)] = Field(6, ge=2)
    recipe: Recipe = Recipe()


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Label the whole budget, then one round a pass over it."""
    pool, optimizer = Pool(), optimizer_of(student, config.recipe)
    run.track(pool=pool, optimizer=optimizer)
    while oracle.remaining:
        n = min(config.recipe.batch_size, oracle.remaining)
        images = to_8_bits(draw(n, oracle.shape, config, run.rng))
        pool.add(images, oracle(images))
    yield from fit(student, optimizer, pool, config.recipe, run)


def draw(n: int, shape: tuple[int, int, int], config: Config, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1] of the configured kind."""
    if config.kind == "uniform":
        return torch.rand(n, *shape, generator=rng, device=rng.device)
    return multiscale(n, shape, config.scales, rng)


def multiscale(n: int, shape: tuple[int, int, int], scales: int, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1] of noise at several scales.

    Uniform noise of 2^0, 2^1, ... pixels a side, `scales` of them or up to the image's own size. Each
    layer is enlarged bilinearly; an image's layers are mixed with weights softmax(N(0, 1)), and the
    mixture is stretched to fill [0, 1].
    """
    channels, height, width = shape
    sides = [2**k for k in range(scales) if 2**k <= min(height, width)]
    weights = torch.randn(n, len(sides), generator=rng, device=rng.device).softmax(dim=1)
    images = torch.zeros(n, channels, height, width, device=rng.device)
    for k, side in enumerate(sides):
        layer = torch.rand(n, channels, side, side, generator=rng, device=rng.device)
        enlarged = F.interpolate(layer, size=(height, width), mode="bilinear", align_corners=False)
        images += weights[:, k, None, None, None] * enlarged
    low, high = images.flatten(1).aminmax(dim=1)
    span = (high - low).clamp_min(1e-6)
    return (images - low[:, None, None, None]) / span[:, None, None, None]
