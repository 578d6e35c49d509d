"""DFMS: towards data-free model stealing in a hard label setting (Sanyal, Addepalli, Babu, CVPR 2022), synthetic prior.

https://arxiv.org/abs/2204.11022, code https://github.com/val-iisc/Hard-Label-Model-Stealing

A GAN learns to make images like a prior set, here random shapes that the method draws itself. The student is
first trained on the teacher's answers to shapes and generated images. Then the two take turns: the student
learns the answers to fresh images, and the generator turns to images that the student spreads evenly over the classes.

Scales to the task: shapes are sized in shares of the image, the images labelled before the turns are at most
half the budget, and a batch of the turns is at most the other half.

Differs from the paper: its text was not at hand and is not compared; the defaults are those of the released code.
Differs from the released code:
    two of its five stages, both before the turns, are left out: tuning the generator for diversity with weight 10,
    and training the student anew on shapes and what that generator makes; grids call it `dfms-reduced` for it;
    the shapes that the discriminator takes for real are not padded, cut and mirrored, so that about 13 % of their
    area is not black border; views are padded with black, where its tensors in [-1, 1] are padded with mid-grey;
    while the GAN is trained alone the generator steps first, as it does in the turns, where there it is the second;
    the batches of the first images mix shapes and generated ones by chance, where each of its has 64 of both;
    shapes are drawn anew for each batch, rectangles, ellipses and triangles at twice the size averaged 2 x 2, where it
    draws 50,000 images once, circles too, on 100 x 100 pixels, blurs them over 4 x 4 and takes one pixel in three;
    generator and discriminator fit all sides that are multiples of 4 and are smaller than its DCGAN of 32 x 32;
    discriminator and optimizers go on from stage to stage, where each stage starts them anew;
    views are cropped and mirrored in the turns too, where it uses AutoAugment there;
    the learning rate of the turns rises over their first 1/15, where its warm-up of 10 in 150 epochs starts with one
    at the full rate and one at 0;
    probabilities are learnt with the same cross-entropy; its code has labels only;
    40,000 queries for validation are not made: the student after the last turn is the result, not the best of its
    moving averages.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from budgets import Oracle
from methods.augment import Augment, augment
from methods.figures import figures
from methods.generators import Shape, UpsamplingGenerator, ideal_generator
from methods.ideal import reset
from methods.pool import Pool, to_8_bits
from methods.run import Run
from methods.search import Choice, Log
from methods.shapes import random_shapes

ANSWERS = ("labels", "probs", "rounded")
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 1


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: run_synthetic_resnet.sh and the defaults of the programs it calls."""

    batch_size: Annotated[int, Log(16, 256)] = Field(64, ge=1)
    shapes: Annotated[int, Log(4, 64)] = Field(50, ge=1)
    shape_sizes: tuple[float, float] = (0.05, 0.1)  # smallest and largest side, in shares of the image's
    gan_passes: Annotated[int, Log(5, 200)] = Field(200, ge=0)
    gan_images: int = Field(50_000, ge=1)  # in one pass
    latent: int = Field(100, ge=1)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    discriminator_width: int = Field(64, ge=1)
    gan_lr: Annotated[float, Log(5e-5, 2e-3)] = Field(2e-4, gt=0)
    initial_images: int = Field(50_000, ge=2)  # half of them shapes, half generated
    initial_passes: Annotated[int, Log(20, 200)] = Field(200, ge=1)
    initial_batch_size: int = Field(128, ge=1)
    initial_lr: Annotated[float, Log(1e-2, 0.3)] = Field(0.1, gt=0)
    lr: Annotated[float, Log(1e-3, 0.1)] = Field(0.01, gt=0)
    warm_up: float = Field(1 / 15, gt=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    diversity_weight: Annotated[float, Log(10.0, 1000.0)] = Field(500.0, ge=0)
    augment: Annotated[Augment, Choice()] = "crop_flip"  # of the turns, where each view is asked about
    # of the first images, whose labels are kept: on digits and shapes most do not hold for a view
    initial_augment: Annotated[Augment, Choice()] = "crop_flip"
    crop_padding: int = Field(4, ge=0)


@dataclass
class Gan:
    """A generator and a discriminator, each with its optimizer."""

    generator: UpsamplingGenerator
    discriminator: nn.Sequential
    generator_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Rounds: `gan_passes` without a query, `initial_passes` over the first images, then one for each fresh batch."""
    initial = min(config.initial_images, (oracle.budget.queries + 1) // 2)
    gan, pool = make_gan(oracle.shape, config, run), Pool(initial)
    optimizer = torch.optim.SGD(
        student.parameters(), lr=config.initial_lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    run.track(**vars(gan), optimizer=optimizer, pool=pool)
    for _ in range(run.round, config.gan_passes):
        yield train_gan(gan, oracle.shape, config, run)
    while oracle.spent < initial:
        images = initial_images(min(config.batch_size, initial - oracle.spent), gan, oracle.shape, config, run)
        pool.add(images, oracle(images))
    for done in range(max(run.round - config.gan_passes, 0), config.initial_passes):
        optimizer.param_groups[0]["lr"] = config.initial_lr * cosine(done / config.initial_passes)
        yield {"loss": train_on_pool(student, optimizer, pool, config, run)}
    batch_size = min(config.batch_size, max(oracle.budget.queries - initial, 1))
    while True:
        yield take_turns(batch_size, initial, gan, oracle, student, optimizer, config, run)


def make_gan(shape: Shape, config: Config, run: Run) -> Gan:
    """DCGAN's discriminator and, for its generator, the trunk of `methods.generators`; weights from N(0, 0.02)."""
    channels, height, width = shape
    wide = config.discriminator_width
    generator = ideal_generator(config.latent, config.generator_width, shape).to(run.device)
    discriminator = nn.Sequential(
        nn.Conv2d(channels, wide, 4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * wide),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * wide * (height // 4) * (width // 4), 1),
    ).to(run.device)
    optimizers = (
        torch.optim.Adam(network.apply(reset).parameters(), lr=config.gan_lr, betas=(0.5, 0.999))
        for network in (generator, discriminator)
    )
    return Gan(generator, discriminator, *optimizers)


def train_gan(gan: Gan, shape: Shape, config: Config, run: Run) -> dict[str, float]:
    """Stage 1, one pass without a query: the generator learns to make images like the shapes."""
    gan.generator.train()
    for _ in range(max(config.gan_images // config.batch_size, 1)):
        fake = generate(config.batch_size, gan, config, run)
        loss = gan_step(gan, fake, draw(config.batch_size, shape, config, run))
    return {"discriminator_loss": loss.item()}


def gan_step(gan: Gan, fake: Tensor, real: Tensor, penalty: Tensor | float = 0.0) -> Tensor:
    """The generator's step on its adversarial loss plus `penalty` and the discriminator's, whose loss it returns."""
    loss = binary_loss(gan.discriminator(fake), real=True) + penalty
    gan.generator_optimizer.zero_grad()
    loss.backward(inputs=list(gan.generator.parameters()))  # no other weights learn from it
    gan.generator_optimizer.step()
    loss = binary_loss(gan.discriminator(real), real=True) + binary_loss(gan.discriminator(fake.detach()), real=False)
    gan.discriminator_optimizer.zero_grad()
    loss.backward()
    gan.discriminator_optimizer.step()
    return loss.detach()


def initial_images(n: int, gan: Gan, shape: Shape, config: Config, run: Run) -> Tensor:
    """Stage 2: n images, half of them shapes and half generated."""
    gan.generator.eval()
    with torch.no_grad():
        generated = generate(n // 2, gan, config, run)
    return to_8_bits(torch.cat([draw(n - n // 2, shape, config, run), generated]))


def train_on_pool(student: nn.Module, optimizer: torch.optim.SGD, pool: Pool, config: Config, run: Run) -> float:
    """Stage 2: one pass over the first images; the answer to an image is kept for its views. Returns the mean loss."""
    student.train()
    losses = []
    for images, answers in pool.batches(config.initial_batch_size, run.rng):
        assert answers is not None, "the first images are all labelled"
        loss = F.cross_entropy(student(augment(images, config.initial_augment, config.crop_padding, run.rng)), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def take_turns(
    batch_size: int,
    initial: int,
    gan: Gan,
    oracle: Oracle,
    student: nn.Module,
    optimizer: torch.optim.SGD,
    config: Config,
    run: Run,
) -> dict[str, float]:
    """Stage 3: the student learns the answers to views of fresh images, then the generator learns from the student."""
    gan.generator.train()
    fake = generate(batch_size, gan, config, run)
    views = augment(fake.detach(), config.augment, config.crop_padding, run.rng)
    answers = oracle(views)
    share = (oracle.spent - initial) / (oracle.budget.queries - initial)
    optimizer.param_groups[0]["lr"] = config.lr * min(share / config.warm_up, 1) * cosine(share)
    student.train()
    loss = F.cross_entropy(student(views), answers)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    student.eval()
    diversity = diversity_loss(student(fake))
    gan_step(gan, fake, draw(batch_size, oracle.shape, config, run), config.diversity_weight * diversity)
    return figures(loss=loss, diversity_loss=diversity)


def diversity_loss(logits: Tensor) -> Tensor:
    """Sum of p log p for p the mean prediction of the batch: least, -log K, when it is even. logits: N x K."""
    mean = logits.softmax(dim=1).mean(dim=0)
    return (mean * (mean + 1e-5).log()).sum()


def draw(n: int, shape: Shape, config: Config, run: Run) -> Tensor:
    """n fresh images of the prior."""
    return random_shapes(n, shape, config.shapes, config.shape_sizes, run.rng)


def generate(n: int, gan: Gan, config: Config, run: Run) -> Tensor:
    """n fresh images of the generator."""
    images: Tensor = gan.generator(torch.randn(n, config.latent, generator=run.rng, device=run.device))
    return images


def binary_loss(verdicts: Tensor, *, real: bool) -> Tensor:
    """Cross-entropy of the discriminator's logits to all real or all generated."""
    return F.binary_cross_entropy_with_logits(verdicts, torch.full_like(verdicts, float(real)))


def cosine(share: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * share)) / 2
