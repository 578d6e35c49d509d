"""The reference from above: real training images labelled by the teacher, and the fixed student recipe.

Knowledge distillation with as many of the teacher's own training images as there are queries. It is
not data-free and stands in no ranking: it shows what the queries could buy. Each image is asked about
at most once, so a budget above the number of images is not used up.

Differs from the paper: there is no paper; the recipe is that of the noise controls.
Differs from the released code: likewise.
"""

from collections.abc import Iterator

import torch
from pydantic import BaseModel
from torch import nn

from budgets import Oracle
from methods.fitting import Recipe, fit, optimizer_of
from methods.pool import Pool
from methods.run import Run

ANSWERS = ("labels", "probs", "rounded", "partial")
DATA = "train"
PROTOCOL = "per_budget"
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """The recipe is ours, the same for all controls."""

    recipe: Recipe = Recipe()


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Label a random choice of `run.data`, N x C x H x W, without a repeat, then one round a pass over it."""
    assert run.data is not None, "the runner gives DATA = 'train' its images"
    order = torch.randperm(len(run.data), generator=run.rng, device=run.device)[: oracle.budget.queries]
    pool, optimizer = Pool(len(order)), optimizer_of(student, config.recipe)
    run.track(pool=pool, optimizer=optimizer)
    while oracle.spent < len(order):
        images = run.data[order[oracle.spent : oracle.spent + config.recipe.batch_size]]
        pool.add(images, oracle(images))
    yield from fit(student, optimizer, pool, config.recipe, run, oracle)
