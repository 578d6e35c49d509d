"""Knockoff Nets: stealing functionality of black-box models (Orekondy, Schiele, Fritz, CVPR 2019), random selection.

https://arxiv.org/abs/1812.02766, code https://github.com/tribhuvanesh/knockoffnets

The teacher labels real images of *another* data set, chosen at random, and the student is trained on
the pairs. It is not data-free: it shows what images of the wrong kind are worth beside images that
a method has to invent. The default images are squares of two photographs: far below ImageNet, which
the paper asks with.

Differs from the paper: only its random strategy, not the adaptive one, which learns from the classes
    of the other data set which images to ask about; the paper's tables of settings were not at hand,
    so the defaults are those of the released code.
Differs from the released code:
    a budget larger than the data set is refused, where the released code starts over and asks about
    the same images again;
    images are rounded to 8 bits, as a file would hold them;
    the student's input is scaled by a constant, where the released code normalises for teacher and student alike;
    the student starts from the weights it is given, not from ImageNet's, and once for each budget, where
    the released script goes on training one network from budget to budget;
    the learning rate falls at shares of the passes, 0.3, 0.6 and 0.9, which are its 60, 120 and 180 of 200;
    the student after the last pass is the result, not the best on the test set.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import nn

from budgets import Oracle
from methods.fitting import targets
from methods.pool import Pool
from methods.run import Run
from methods.search import Log, Range

ANSWERS = ("labels", "probs", "rounded", "partial")
DATA = "other"
PROTOCOL = "per_budget"
RESULTS = 1


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the README's training command (`--epochs 200 --lr 0.01`) and the defaults of adversary/train.py."""

    images: str = "photos"  # the other data set; ours, because it comes with scikit-learn and needs no download
    batch_size: Annotated[int, Log(16, 256)] = Field(64, ge=1)
    passes: Annotated[int, Log(20, 200)] = Field(200, ge=1)
    lr: Annotated[float, Log(1e-3, 0.1)] = Field(0.01, gt=0)
    momentum: Annotated[float, Range(0.0, 0.95)] = Field(0.5, ge=0, lt=1)
    lr_steps: tuple[float, ...] = (0.3, 0.6, 0.9)
    lr_scale: float = Field(0.1, gt=0)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Label a random choice of `run.data`, N x C x H x W, without a repeat, then one round a pass over it."""
    assert run.data is not None, "the runner gives DATA = 'other' its images"
    if len(run.data) < oracle.budget.queries:
        raise ValueError(f"{oracle.budget.queries} queries: there are only {len(run.data)} images of another data set")
    pool = Pool(oracle.budget.queries)
    optimizer = torch.optim.SGD(student.parameters(), lr=config.lr, momentum=config.momentum)
    order = torch.randperm(len(run.data), generator=run.rng, device=run.device)[: oracle.budget.queries]
    run.track(pool=pool, optimizer=optimizer)
    while oracle.remaining:
        images = run.data[order[oracle.spent : oracle.spent + config.batch_size]]
        pool.add(images, oracle(images))
    for done in range(run.round, config.passes):
        falls = sum(done >= step * config.passes for step in config.lr_steps)
        optimizer.param_groups[0]["lr"] = config.lr * config.lr_scale**falls
        yield {"loss": train_pass(student, optimizer, pool, config, run)}


def train_pass(student: nn.Module, optimizer: torch.optim.SGD, pool: Pool, config: Config, run: Run) -> float:
    """One pass over the labelled images, without a query. Returns the mean loss."""
    student.train()
    losses = []
    for images, answers in pool.batches(config.batch_size, run.rng):
        assert answers is not None, "all images are labelled before the first pass"
        loss = F.cross_entropy(student(images), targets(answers))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()
