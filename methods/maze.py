"""MAZE: data-free model stealing with zeroth-order gradient estimation (Kariyappa, Prakash, Qureshi, CVPR 2021).

https://arxiv.org/abs/2005.03161, code https://github.com/sanjaykariyappa/MAZE

A generator looks for images on which student and teacher diverge, its gradient through the teacher
estimated by forward differences in several random directions; the student learns from the images it
makes. Because the generator moves on, the student forgets: after each round it is also trained on
batches of earlier rounds, whose answers were kept and cost no query.

Made for 32 x 32 pixels and millions of queries; at small budgets the batch shrinks (rounds.py). Its gradients are
differences over 1e-5 a pixel: teacher and student must run in true float32, and images may not be rounded to 8 bits.

Differs from the paper: its text was not at hand and is not compared; the defaults are those of the
    released code. Its variant with a few real images is left out.
Differs from the released code:
    the student is in evaluation mode while the gradient is estimated, not in training mode, where
    dropout would drown differences of 1e-3 and batch norm tie the images of a batch together;
    the answers for the generator's own batch are kept for the student's first step, as the released
    code counts them, where it asks the teacher again and does not count that;
    images made for the student are rounded to 8 bits, so that memory and teacher know the same image;
    data, student and generator live in [0, 1], and the student scales its input, where the released ones
    live in [-1, 1]: zero padding is black here and mid-grey there, which is little with batch norm;
    its networks, a LeNet of 20, 50 and 500 and a WRN that enlarges 28 pixels to 32, are not ours: a row
    on Fashion-MNIST does not reproduce its own;
    each batch of replay is drawn anew, where the released code draws the batches of a round without
    repeats among them;
    the rates follow the share of the queries spent, and the budget may end within a round, where the
    released code plans a whole number of rounds;
    the white-box gradient that the released code takes for its log in each round is not taken.
"""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from budgets import Oracle
from methods.generators import UpsamplingGenerator, to_image
from methods.pool import Pool, to_8_bits
from methods.rounds import batch_that_fits
from methods.run import Run
from methods.search import Log, Range

ANSWERS = ("probs",)
DATA = "none"
PROTOCOL = "per_budget"
INPUTS = ("float",)  # 8 bits drown steps of 1e-3, as in dfme.py
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the released src/utils/config.py, whose data set is CIFAR-10."""

    batch_size: Annotated[int, Log(5, 128)] = Field(128, ge=1)
    generator_steps: int = Field(1, ge=1)
    # the first is on the generator's own batch, the last is kept for replay
    student_steps: Annotated[int, Log(2, 10)] = Field(5, ge=2)
    replays: Annotated[int, Range(0, 20)] = Field(10, ge=0)
    directions: Annotated[int, Log(1, 10)] = Field(10, ge=1)
    epsilon: Annotated[float, Log(1e-4, 1e-1)] = Field(1e-3, gt=0)
    latent: int = Field(100, ge=1)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    lr: Annotated[float, Log(1e-3, 0.3)] = Field(0.1, gt=0)
    # 1e-3 in the README's Fashion-MNIST command
    generator_lr: Annotated[float, Log(1e-5, 1e-2)] = Field(1e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: `generator_steps` of (directions + 1) batches, `student_steps` - 1 more batches, `replays` of none."""
    batches_a_round = config.generator_steps * (config.directions + 1) + config.student_steps - 1
    capacity = max(1, oracle.budget.queries // batches_a_round)  # one batch of each round
    batch_size = batch_that_fits(config.batch_size, batches_a_round, oracle.budget.queries)
    generator = maze_generator(config.latent, config.generator_width, oracle.shape).to(run.device)
    student_optimizer, generator_optimizer = (
        torch.optim.SGD(network.parameters(), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay)
        for network, lr in ((student, config.lr), (generator, config.generator_lr))
    )
    memory = Pool(capacity, forgets=True)
    run.track(
        generator=generator,
        student_optimizer=student_optimizer,
        generator_optimizer=generator_optimizer,
        memory=memory,
    )

    def unbounded() -> Tensor:
        noise = torch.randn(batch_size, config.latent, generator=run.rng, device=run.device)
        maps: Tensor = generator(noise)
        return maps

    while True:
        decay = (1 + math.cos(math.pi * oracle.spent / oracle.budget.queries)) / 2
        student_optimizer.param_groups[0]["lr"] = config.lr * decay
        generator_optimizer.param_groups[0]["lr"] = config.generator_lr * decay
        student.eval()
        for _ in range(config.generator_steps):
            maps = unbounded()
            gradient, answers = estimate_gradient(
                oracle, student, maps.detach(), config.directions, config.epsilon, run.rng
            )
            generator_optimizer.zero_grad()
            maps.backward(gradient)
            generator_optimizer.step()
        student.train()
        learn(student, student_optimizer, to_image(maps).detach(), answers)
        for _ in range(config.student_steps - 1):
            images = to_8_bits(to_image(unbounded()))
            answers = oracle(images)
            loss = learn(student, student_optimizer, images, answers)
        memory.add(images, answers)
        for _ in range(config.replays):
            learn(student, student_optimizer, *memory.sample(batch_size, run.rng))
        yield {"loss": loss.item(), "memory": len(memory)}


@torch.no_grad()
def estimate_gradient(
    oracle: Oracle, student: nn.Module, maps: Tensor, directions: int, epsilon: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Forward-difference estimate of the gradient of the generator's loss, minus the mean divergence, and the answers.

    maps: N x C x H x W, before the tanh. For each map x, `directions` random unit vectors u of
    d = C * H * W entries: d / epsilon * (loss(x + epsilon u) - loss(x)) * u, their mean (released code,
    attack_utils.py, zoge_backward). The answers, N x K, are those for the maps themselves.
    Costs N * (directions + 1) queries.
    """
    n, d = len(maps), maps[0].numel()
    u = torch.randn(directions, n, d, generator=rng, device=maps.device)
    u /= u.norm(dim=2, keepdim=True)
    flat = maps.flatten(1)
    images = to_image(torch.cat([flat, (flat + epsilon * u).flatten(0, 1)]).view(-1, *maps.shape[1:]))
    probs = oracle(images)
    loss = -divergence(student(images), probs).view(directions + 1, n)
    slopes = (loss[1:] - loss[0]) * (d / epsilon)
    return (slopes[:, :, None] * u).mean(dim=0).view_as(maps) / n, probs[:n]


def divergence(logits: Tensor, probs: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's prediction from the teacher's, one value for each image."""
    return F.kl_div(F.log_softmax(logits, dim=1), probs, reduction="none").sum(dim=1)


def learn(student: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, answers: Tensor) -> Tensor:
    """One step of the student towards the teacher's answers. Returns the loss before it."""
    loss = divergence(student(images), answers).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def maze_generator(latent: int, width: int, shape: tuple[int, int, int]) -> UpsamplingGenerator:
    """Unbounded maps, to be made images by `to_image`: released code, models/conv3_gen.py (width 64).

    Unlike DFME's, the last batch norm has a scale and a shift to learn.
    """
    return UpsamplingGenerator(latent, width, shape, nn.BatchNorm2d(shape[0]), bias=True)
