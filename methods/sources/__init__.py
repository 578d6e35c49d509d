"""Image sources, what can be drawn without any data: functions n, shape, rng -> images n x C x H x W in [0, 1]."""

from collections.abc import Callable
from typing import Literal

from torch import Generator, Tensor

from methods.generators import Shape
from methods.image_priors import Priors, image_priors
from methods.sources.blobs import blobs
from methods.sources.canvas import noise
from methods.sources.leaves import leaves
from methods.sources.spectrum import spectrum
from methods.sources.strokes import strokes


def _priors(n: int, shape: Shape, rng: Generator) -> Tensor:
    return image_priors(n, shape, Priors(), rng)


Source = Literal["noise", "spectrum", "priors", "leaves", "blobs", "strokes"]
SOURCES: dict[Source, Callable[[int, Shape, Generator], Tensor]] = {
    "noise": noise,
    "spectrum": spectrum,
    "priors": _priors,
    "leaves": leaves,
    "blobs": blobs,
    "strokes": strokes,
}
