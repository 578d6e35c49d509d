"""How far a decision boundary is and in which direction, from top-1 answers only.

A bisection finds the boundary along a direction; the direction then turns against a gradient of which only
the signs of random differences are known, as in github.com/cmhcbb/attackbox, on which ZSDB3KD builds.
"""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor

from methods.search import Log, Range

# Shifts N x M x D of N images, M each -> whether the shifted image is across the boundary, N x M. A shift is a query.
Crossed = Callable[[Tensor], Tensor]


class Search(BaseModel, frozen=True, extra="forbid"):
    """How carefully to search. Defaults: untargeted_mbd.py and sample_robustness.py of ZSDB3KD, as near as can be.

    halvings: of a bisection; its tolerances of 1e-5 and 2e-6 take about 20.
    gradient_samples, epsilon: random differences to a gradient, and their size. An epsilon below 2^-halvings
        is lost in the error of the bisection.
    line_steps: sizes 1, 1/2, 1/4, ... of a step against the gradient, tried side by side.
    """

    halvings: Annotated[int, Range(2, 20)] = Field(20, ge=1)
    gradient_samples: Annotated[int, Log(10, 200)] = Field(200, ge=1)
    epsilon: float = Field(1e-3, gt=0)
    line_steps: Annotated[int, Range(1, 8)] = Field(8, ge=1)

    def queries(self, directions: int, turns: int) -> int:
        """What `nearest` costs for one image."""
        bisection = 1 + self.halvings
        return directions * bisection + turns * (self.gradient_samples + self.line_steps * bisection)


def nearest(crossed: Crossed, shifts: Tensor, turns: int, search: Search, rng: Generator) -> tuple[Tensor, Tensor]:
    """Unit directions N x D to the nearest boundary found and the distances N, infinite where none was.

    shifts: N x M x D, the first guesses, each reaching across the boundary if it is any good. The nearest is then
    turned `turns` times.
    """
    rows = torch.arange(len(shifts), device=shifts.device)
    directions = F.normalize(shifts, dim=2)
    distance, best = bisect(crossed, directions, shifts.norm(dim=2), search.halvings).min(dim=1)
    direction = directions[rows, best]
    sizes = 0.5 ** torch.arange(search.line_steps, device=shifts.device)
    for _ in range(turns):
        far = distance.nan_to_num(posinf=0)[:, None]
        gradient = sign_gradient(crossed, direction, far, search, rng)
        turned = F.normalize(direction[:, None] - sizes[:, None] * gradient[:, None], dim=2)
        found, best = bisect(crossed, turned, far.expand(-1, len(sizes)), search.halvings).min(dim=1)
        direction = torch.where((found < distance)[:, None], turned[rows, best], direction)
        distance = torch.minimum(found, distance)
    return direction, distance


def bisect(crossed: Crossed, directions: Tensor, far: Tensor, halvings: int) -> Tensor:
    """Distances N x M to the boundary along unit directions N x M x D; infinite if it is not crossed at `far`, N x M.

    Right to far / 2^halvings and never too short.
    """
    ends = crossed(far[..., None] * directions)
    low, high = torch.zeros_like(far), far
    for _ in range(halvings):
        middle = (low + high) / 2
        beyond = crossed(middle[..., None] * directions)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return torch.where(ends, high, torch.inf)


def sign_gradient(crossed: Crossed, direction: Tensor, far: Tensor, search: Search, rng: Generator) -> Tensor:
    """Unit estimates, N x D, of how the distance grows with the direction: the mean of random u, each with a sign.

    The sign is -1 if the direction moved by epsilon u is across the boundary at the same distance, else 1.
    """
    u = torch.randn(len(direction), search.gradient_samples, direction.shape[1], generator=rng, device=rng.device)
    u = F.normalize(u, dim=2)
    signs = 1 - 2 * crossed(far[..., None] * F.normalize(direction[:, None] + search.epsilon * u, dim=2)).float()
    return F.normalize((signs[..., None] * u).mean(dim=1), dim=1)
