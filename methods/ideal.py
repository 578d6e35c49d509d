"""IDEAL: query-efficient data-free learning from black-box models (Zhang, Chen, Lyu, ICLR 2023).

https://openreview.net/forum?id=ConT6H7MWL, code https://github.com/SonyResearch/IDEAL

Each round first makes a batch of images without asking the teacher, by training a fresh generator
until the *student* puts them confidently and evenly into the classes; then it trains the student on
all images made so far with the teacher's labels.

`relabel` is the whole accounting question. The paper's text says that the teacher is asked once for
each sample: `once` labels each image when it is made and keeps the label; the student sees no other
view of it, unless `augment` says so, since a label need not hold for another view. The released code
asks the teacher about every augmented view in every pass: `every_view`, which costs
b * E * (E + 1) / 2 queries for E rounds of b images instead of b * E.

Differs from the paper: its text and tables of settings were not at hand and are not compared; the
    defaults are those of the released code.
Differs from the released code:
    with probabilities the student learns by cross-entropy with them: the released code learns labels only;
    the logarithm of a probability is taken in one step with the softmax, where the released one is NaN
    once a probability is 0, and the rest of that round's generator steps with it;
    a batch need not be a multiple of the classes, where the released code ends with an error: it has no
    working command for 100 or 12 classes;
    images are rounded to 8 bits, not truncated;
    generation goes on as long as the budget lasts, not for 400 rounds, and no image leaves the pool;
    the pool starts empty, where the released code takes in images left by an earlier run;
    the student after the last round is the result, not the best on the test set.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from budgets import Oracle
from methods.augment import Augment, augment, views_that_hold
from methods.figures import figures
from methods.generators import UpsamplingGenerator, ideal_generator
from methods.pool import Pool, to_8_bits
from methods.run import Run
from methods.search import Choice, Log, Range

ANSWERS = ("labels", "probs", "rounded")
DATA = "none"
PROTOCOL = "anytime"
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the README's MNIST command of the released code (`--epochs=100 --batch_size=250`)."""

    relabel: Literal["once", "every_view"] = "once"
    batch_size: Annotated[int, Log(10, 500)] = Field(250, ge=1)
    generator_steps: Annotated[int, Log(5, 50)] = Field(30, ge=1)
    generator_lr: Annotated[float, Log(1e-4, 1e-1)] = Field(1e-3, gt=0)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    latent: int = Field(256, ge=1)
    reset_generator: Annotated[bool, Choice()] = True
    information_weight: Annotated[float, Range(0.0, 10.0)] = Field(5.0, ge=0)
    augment_generation: Annotated[Augment, Choice()] = "crop_flip"
    # released: crop_flip for CIFAR, flip for all others, digits among them; none where labels are kept
    augment: Annotated[Augment, Choice()] = "flip"
    crop_padding: Annotated[int, Range(1, 4)] = Field(4, ge=0)
    passes: Annotated[int, Log(1, 5)] = Field(1, ge=1)
    lr: Annotated[float, Log(1e-3, 0.3)] = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _views(cls, settings: Any) -> Any:
        return views_that_hold(settings)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: a new batch of images, then `passes` over the pool."""
    batch_size = min(config.batch_size, oracle.budget.queries)
    generator = ideal_generator(config.latent, config.generator_width, oracle.shape).to(run.device)
    optimizer = torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    pool = Pool(oracle.budget.queries if config.relabel == "once" else 0)
    run.track(generator=generator, optimizer=optimizer, pool=pool)
    while oracle.remaining >= batch_size:
        targets = torch.arange(len(pool), len(pool) + batch_size, device=run.device) % oracle.classes
        images, generation_loss = generate(generator, student, targets, config, run)
        pool.add(images, oracle(images) if config.relabel == "once" else None)
        for _ in range(config.passes):
            loss = train_on_pool(student, optimizer, pool, oracle, batch_size, config, run)
        yield {**figures(loss=loss, generation_loss=generation_loss), "pool": len(pool)}


def generate(
    generator: UpsamplingGenerator, student: nn.Module, targets: Tensor, config: Config, run: Run
) -> tuple[Tensor, Tensor]:
    """Stage 1, without a query: the batch of lowest generation loss on the way, rounded to 8 bits, and that loss.

    targets: the wanted class of each image, int64 of N.
    """
    if config.reset_generator:
        generator.apply(reset)
    student.eval()
    noise = torch.randn(len(targets), config.latent, generator=run.rng, device=run.device)
    weights = list(generator.parameters())
    optimizer = torch.optim.Adam(weights, lr=config.generator_lr, betas=(0.5, 0.999))
    lowest = best = torch.zeros((), device=run.device)
    for step in range(config.generator_steps):
        images = generator(noise)
        logits = student(augment(images, config.augment_generation, config.crop_padding, run.rng))
        loss = generation_loss(logits, targets, config.information_weight)
        lower = (loss < lowest) | (step == 0)  # decided where the images are, so that nobody waits for the loss
        lowest, best = torch.where(lower, loss.detach(), lowest), torch.where(lower, images.detach(), best)
        optimizer.zero_grad()
        loss.backward(inputs=weights)  # the student's have no use for a gradient here
        optimizer.step()
    return to_8_bits(best), lowest


def generation_loss(logits: Tensor, targets: Tensor, information_weight: float) -> Tensor:
    """Cross-entropy to the wanted classes plus `information_weight` times the mean of p log p over batch and classes.

    logits: N x K, targets: int64 of N. The second term rewards the entropy of each image's own
    prediction (released code, ideal.py); it does not balance the classes of the batch, the targets do.
    """
    log_probs = F.log_softmax(logits, dim=1)
    information = (log_probs.exp() * log_probs).mean()
    return F.nll_loss(log_probs, targets) + information_weight * information


def train_on_pool(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    pool: Pool,
    oracle: Oracle,
    batch_size: int,
    config: Config,
    run: Run,
) -> Tensor:
    """Stage 2: one pass over the whole pool. Returns the mean loss."""
    student.train()
    losses = []
    for images, answers in pool.batches(batch_size, run.rng):
        views = augment(images, config.augment, config.crop_padding, run.rng)
        loss = F.cross_entropy(student(views), oracle(views) if answers is None else answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


def reset(module: nn.Module) -> None:
    """Fresh weights: N(0, 0.02), and N(1, 0.02) for batch norm, biases 0 (released code, utils.py, reset_model)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
