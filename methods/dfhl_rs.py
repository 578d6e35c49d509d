"""DFHL-RS: data-free hard-label robustness stealing attack (Yuan, Chen, Huang, Zhang, Zhang, Yu, AAAI 2024).

https://arxiv.org/abs/2312.05924, code https://github.com/LetheSec/DFHL-RS-Attack

Each round a generator and its noise are trained, without the teacher, until the student puts a batch
of images softly into random classes and evenly into all. The images are pooled. From them the student
learns on high-entropy examples: views pushed, by the student's own gradient, to where it is least sure
of the class, which is where its boundary may differ from the teacher's. Made to steal a robust teacher.

`relabel` is the whole accounting question. `every_view` is the released code: each step of the student
makes new high-entropy examples of pooled images and asks the teacher about them, which costs
b * s * E queries for E rounds of b images and s steps. `once` makes one high-entropy example of each
image when the image is made, asks about it and keeps the label: b * E. The student then sees no other view,
unless `augment` says so: a label need not hold for another view than the one it was asked about.

Made for 32 x 32 pixels and 38 million queries: at small budgets the batch shrinks, and with `every_view` the steps of a
round, so that there are rounds enough (rounds.py).

Differs from the paper: the paper could not be read here; the defaults are those of the released code.
Differs from the released code:
    `relabel: once` is ours;
    at small budgets a round has fewer steps than the released 500, which would be the whole of 128,000 queries;
    crops are enlarged by a factor between 0.95 and 1, where its centre crops are of 30 or 31 of 32 pixels;
    pooled images are rounded to 8 bits, where the released code keeps floats;
    strong augmentation is drawn for each image, not for the batch, resamples once and adds noise once;
    the learning rate follows the share of the budget spent, not the share of 300 rounds;
    the labels of the new images, which its other query modes need, are not asked for;
    the student after the last round is the result, not the best on the test set.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.augment import Augment, augment, views_that_hold
from methods.figures import figures
from methods.generators import UpsamplingGenerator, ideal_generator
from methods.pool import Pool, to_8_bits
from methods.rounds import LEAST_ROUNDS, batch_that_fits
from methods.run import Run
from methods.search import Choice, Log, Range

ANSWERS = ("labels",)
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the README's CIFAR-10 command of the released code.

    For CIFAR-100 it has batch_size 512, generator_steps 15, latent_lr 0.015, generator_lr 0.005, smoothing 0.02.
    """

    relabel: Literal["once", "every_view"] = "every_view"
    batch_size: Annotated[int, Log(10, 512)] = Field(256, ge=1)
    generator_steps: Annotated[int, Log(5, 30)] = Field(10, ge=1)
    generator_lr: Annotated[float, Log(5e-4, 2e-2)] = Field(2e-3, gt=0)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    latent: int = Field(256, ge=1)
    latent_lr: Annotated[float, Log(1e-3, 0.1)] = Field(0.01, gt=0)
    smoothing: Annotated[float, Range(0.0, 0.4)] = Field(0.2, ge=0, lt=1)
    balance_weight: Annotated[float, Log(0.1, 10.0)] = Field(3.0, ge=0)
    entropy_steps: Annotated[int, Range(0, 20)] = Field(10, ge=0)
    entropy_lr: Annotated[float, Log(3e-3, 0.3)] = Field(0.03, gt=0)
    augment: Annotated[Augment, Choice()] = "crop_flip"  # none where labels are kept
    crop_padding: int = Field(4, ge=0)
    student_steps: Annotated[int, Log(5, 500)] = Field(500, ge=1)
    lr: Annotated[float, Log(1e-2, 0.3)] = Field(0.1, gt=0)
    lr_end: float = Field(2e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _views(cls, settings: Any) -> Any:
        return views_that_hold(settings, "every_view")


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: a new batch of images, then `student_steps` on the pool."""
    batch_size = batch_that_fits(config.batch_size, 1, oracle.budget.queries)
    most_steps = max(1, oracle.budget.queries // (LEAST_ROUNDS * batch_size))
    generator = ideal_generator(config.latent, config.generator_width, oracle.shape).to(run.device)
    optimizer = torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    pool = Pool(oracle.budget.queries if config.relabel == "once" else 0)
    run.track(generator=generator, optimizer=optimizer, pool=pool)
    while oracle.remaining >= batch_size:
        share = oracle.spent / oracle.budget.queries
        optimizer.param_groups[0]["lr"] = (
            config.lr_end + (config.lr - config.lr_end) * (1 + math.cos(math.pi * share)) / 2
        )
        images, generation_loss = generate(generator, student, batch_size, oracle.classes, config, run)
        steps = config.student_steps
        if config.relabel == "once":
            images = to_8_bits(high_entropy_views(images, student, config, run.rng))
            pool.add(images, oracle(images))
        else:
            pool.add(images)
            steps = min(steps, most_steps, oracle.remaining // batch_size)
        loss = train_on_pool(student, optimizer, pool, oracle, batch_size, steps, config, run)
        yield {**figures(loss=loss, generation_loss=generation_loss), "pool": len(pool)}


def generate(
    generator: UpsamplingGenerator, student: nn.Module, batch_size: int, classes: int, config: Config, run: Run
) -> tuple[Tensor, Tensor]:
    """Train generator and noise, without a query. Returns the batch of lowest loss, in 8 bits, and that loss."""
    student.eval()
    noise = torch.randn(batch_size, config.latent, generator=run.rng, device=run.device, requires_grad=True)
    targets = smooth(
        torch.randint(classes, (batch_size,), generator=run.rng, device=run.device), classes, config.smoothing
    )
    groups: list[dict[str, Any]] = [
        {"params": generator.parameters(), "lr": config.generator_lr},
        {"params": [noise], "lr": config.latent_lr},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.5, 0.999))
    trained = [noise, *generator.parameters()]
    lowest = best = torch.zeros((), device=run.device)
    for step in range(config.generator_steps):
        images = generator(noise)
        logits = student(augment(images, config.augment, config.crop_padding, run.rng))
        loss = F.cross_entropy(logits, targets) + config.balance_weight * imbalance(logits)
        lower = (loss < lowest) | (step == 0)  # decided where the images are, so that nobody waits for the loss
        lowest, best = torch.where(lower, loss.detach(), lowest), torch.where(lower, images.detach(), best)
        optimizer.zero_grad()
        loss.backward(inputs=trained)  # the student's weights have no use for a gradient here
        optimizer.step()
    return to_8_bits(best), lowest


def smooth(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    """Probabilities N x K: 1 - `smoothing` for the target, the rest shared evenly among the other classes."""
    others = smoothing / (classes - 1)
    return F.one_hot(targets, classes) * (1 - smoothing - others) + others


def imbalance(logits: Tensor) -> Tensor:
    """The sum of p log10 p over the batch's mean probabilities: minus the entropy, lowest when classes are even."""
    mean = logits.softmax(dim=1).mean(dim=0).clamp_min(torch.finfo(logits.dtype).tiny)
    return (mean * mean.log10()).sum()


def train_on_pool(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    pool: Pool,
    oracle: Oracle,
    batch_size: int,
    steps: int,
    config: Config,
    run: Run,
) -> Tensor:
    """That many steps on batches of the pool, which is gone through again and again. Returns the mean loss."""
    losses = []
    for images, labels in islice(endless(pool, batch_size, run.rng), steps):
        if labels is None:
            views = high_entropy_views(images, student, config, run.rng)
            labels = oracle(views)
        else:
            views = augment(images, config.augment, config.crop_padding, run.rng)
        student.train()
        loss = F.cross_entropy(student(views), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


def endless(pool: Pool, batch_size: int, rng: Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pass after pass over the pool."""
    while True:
        yield from pool.batches(batch_size, rng)


def high_entropy_views(images: Tensor, student: nn.Module, config: Config, rng: Generator) -> Tensor:
    """Views, augmented and augmented strongly, of which the student is as unsure as can be."""
    views = strong_augment(augment(images, config.augment, config.crop_padding, rng), rng)
    return high_entropy_examples(views, student, config.entropy_steps, config.entropy_lr)


def high_entropy_examples(images: Tensor, student: nn.Module, steps: int, lr: float) -> Tensor:
    """Move each value by `lr` up the student's entropy, `steps` times, within [0, 1] and with no other bound."""
    student.eval()
    examples = images.detach()
    for _ in range(steps):
        log_probs = F.log_softmax(student(examples.requires_grad_()), dim=1)
        (gradient,) = torch.autograd.grad(-(log_probs.exp() * log_probs).sum(), examples)
        examples = (examples.detach() + lr * gradient.sign()).clamp(0, 1)
    return examples


def strong_augment(images: Tensor, rng: Generator) -> Tensor:
    """Each image enlarged by up to 5 %, mirrored either way, turned by -15, 0 or 15 degrees, and a little noise."""
    n, device = len(images), images.device
    zoom = 1 - 0.05 * torch.rand(n, 2, generator=rng, device=device)
    mirror = 1 - 2 * torch.randint(2, (n, 2), generator=rng, device=device)
    angle = math.radians(15) * torch.randint(-1, 2, (n,), generator=rng, device=device)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 2, 2)
    transform = F.pad((zoom * mirror)[:, :, None] * turn, [0, 1])
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    noise = 0.001 * torch.randn(images.shape, generator=rng, device=device)
    return (F.grid_sample(images, grid, align_corners=False) + noise).clamp(0, 1)
