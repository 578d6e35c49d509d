"""The student recipe of the controls and references: a fixed pool and a fixed schedule."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from budgets import Oracle
from methods.augment import Augment, augment
from methods.pool import Pool, batch_sizes
from methods.run import Run
from methods.search import Choice, Log

WARM_UP = 0.05  # of all steps


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """SGD with IDEAL's momentum and weight decay (released code, ideal.py). Its rate rises over the first twentieth of
    the steps, without which a LeNet-5 now and then dies in its first steps, and falls to 0 along a cosine.

    passes, min_steps: at least so many passes over the pool and so many steps, whichever is more, so
    that a student of few images is trained to its end as well. schedule: `constant` keeps the rate as it is.
    """

    batch_size: Annotated[int, Log(16, 256)] = Field(128, ge=1)
    passes: Annotated[int, Log(5, 100)] = Field(20, ge=1)
    min_steps: int = Field(1000, ge=1)
    lr: Annotated[float, Log(5e-3, 0.5)] = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    augment: Annotated[Augment, Choice()] = "none"
    crop_padding: int = Field(4, ge=0)


def optimizer_of(student: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """The recipe's optimizer, to be tracked beside the pool."""
    return torch.optim.SGD(
        student.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of one of so many steps, counted from 0."""
    if recipe.schedule == "constant":
        return recipe.lr
    rising = min(1.0, (step + 1) / (WARM_UP * steps))
    return recipe.lr * rising * (1 + math.cos(math.pi * step / steps)) / 2


def targets(answers: Tensor) -> Tensor:
    """What a student is to give: the answers, where what was not revealed of an image is spread evenly over the classes
    that nothing was said of."""
    if not answers.is_floating_point():
        return answers
    hidden = answers.isnan()
    left = (1 - answers.nansum(dim=1, keepdim=True)).clamp(min=0) / hidden.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(hidden, left, answers)


def fit(
    student: nn.Module, optimizer: torch.optim.SGD, pool: Pool, recipe: Recipe, run: Run, oracle: Oracle
) -> Iterator[dict[str, float]]:
    """Train on the pool; one round a pass. The oracle is asked about the views of images without answers alone."""
    per_pass = len(batch_sizes(len(pool), recipe.batch_size))
    passes = max(recipe.passes, math.ceil(recipe.min_steps / per_pass))
    for done in range(run.round, passes):
        student.train()
        losses = []
        for step, (images, answers) in enumerate(pool.batches(recipe.batch_size, run.rng), start=done * per_pass):
            optimizer.param_groups[0]["lr"] = rate(recipe, step, passes * per_pass)
            views = augment(images, recipe.augment, recipe.crop_padding, run.rng)
            loss = F.cross_entropy(student(views), targets(oracle(views) if answers is None else answers))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        yield {"loss": torch.stack(losses).mean().item(), "pool": len(pool)}
