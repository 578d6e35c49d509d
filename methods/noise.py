"""Noise controls: random images, each labelled once, and the fixed student recipe. What any method must beat.

`uniform` draws each pixel by itself. `multiscale` is the hierarchical noise of DIP-KD (arXiv 2604.25794):
uniform noise at several resolutions, enlarged and mixed with random weights, so that neighbouring
pixels agree as they do in photographs.

`relabel: every_view` asks about each view in each pass, as published work does: B queries buy B / passes images.
`shapes` are a few random rectangles, ellipses and triangles on a plain ground (shapes.py).

Differs from the paper: DIP-KD goes on to distort, mix and optimise these images; a control does not.
    Its mixture is used alone, with IDEAL's optimizer settings in place of its own. The mixture is
    stretched to fill [0, 1], which makes its labels more even; the finest scale, 32, is left out of images of
    fewer pixels, so that there is none of one pixel at 28; how layers are enlarged is not stated there.
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
from methods.search import Choice, Log, Range
from methods.shapes import random_shapes

ANSWERS = ("labels", "probs", "rounded", "partial")
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 2

Interpolation = Literal["bilinear", "nearest"]


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: scales 2^0 to 2^5 as DIP-KD; the recipe is ours, the same for all controls.

    pixels: whether a scale of one pixel, which images of 8 and 32 pixels have, is in the mixture. Nearest or bilinear,
    with or without pixels, and 6, 12 or 25 shapes of two ranges of sizes were compared on the validation images of
    digits-lenet and mnist-lenet5, three seeds each: a tie of the two with pixels, and 25 shapes.
    """

    kind: Annotated[Literal["uniform", "multiscale", "shapes"], Choice()] = "uniform"
    relabel: Literal["once", "every_view"] = "once"
    scales: Annotated[int, Range(2, 6)] = Field(6, ge=2)
    interpolation: Annotated[Interpolation, Choice()] = "bilinear"
    pixels: Annotated[bool, Choice()] = True
    shapes: Annotated[int, Log(3, 50)] = Field(25, ge=1)
    shape_sizes: tuple[float, float] = (0.1, 0.6)  # smallest and largest side, in shares of the image's
    recipe: Recipe = Recipe()


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Label the whole budget, then one round a pass over it; or ask about each view in each of the passes."""
    once, recipe = config.relabel == "once", config.recipe
    total = oracle.budget.queries // (1 if once else recipe.passes)
    if not once:  # its passes are what is paid for
        recipe = recipe.model_copy(update={"min_steps": 1})
    if not total:
        return
    pool, optimizer = Pool(total), optimizer_of(student, recipe)
    run.track(pool=pool, optimizer=optimizer)
    while len(pool) < total:
        images = to_8_bits(draw(min(recipe.batch_size, total - len(pool)), oracle.shape, config, run.rng))
        pool.add(images, oracle(images) if once else None)
    yield from fit(student, optimizer, pool, recipe, run, oracle)


def draw(n: int, shape: tuple[int, int, int], config: Config, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1] of the configured kind."""
    if config.kind == "uniform":
        return torch.rand(n, *shape, generator=rng, device=rng.device)
    if config.kind == "shapes":
        return random_shapes(n, shape, config.shapes, config.shape_sizes, rng)
    return multiscale(n, shape, config.scales, rng, config.interpolation, pixels=config.pixels)


def multiscale(
    n: int,
    shape: tuple[int, int, int],
    scales: int,
    rng: Generator,
    interpolation: Interpolation = "bilinear",
    *,
    pixels: bool = True,
) -> Tensor:
    """Images n x C x H x W in [0, 1] of noise at several scales.

    Uniform noise of 2^0, 2^1, ... pixels a side, `scales` of them or up to the image's own size. Each
    layer is enlarged; an image's layers are mixed with weights softmax(N(0, 1)), and the
    mixture is stretched to fill [0, 1].
    """
    channels, height, width = shape
    sides = [2**k for k in range(scales) if 2**k < min(height, width) + pixels]
    weights = torch.randn(n, len(sides), generator=rng, device=rng.device).softmax(dim=1)
    images = torch.zeros(n, channels, height, width, device=rng.device)
    for k, side in enumerate(sides):
        layer = torch.rand(n, channels, side, side, generator=rng, device=rng.device)
        enlarged = F.interpolate(layer, size=(height, width), mode=interpolation)
        images += weights[:, k, None, None, None] * enlarged
    return stretched(images)


def stretched(images: Tensor) -> Tensor:
    """Images n x C x H x W, each of them brought to fill [0, 1]."""
    low, high = (part[:, None, None, None] for part in images.flatten(1).aminmax(dim=1))
    return (images - low) / (high - low).clamp_min(1e-6)
