"""DFME: data-free model extraction (Truong, Maini, Walls, Papernot, CVPR 2021).

https://arxiv.org/abs/2011.14779, code https://github.com/cake-lab/datafree-model-extraction

A generator looks for images on which student and teacher disagree, its gradient through the teacher
estimated by forward differences; the student learns to agree on the images it makes.

Made for 32 x 32 pixels and millions of queries; at small budgets the batch shrinks (rounds.py). Its gradients are
differences over 1e-5 a pixel: teacher and student must run in true float32, and images may not be rounded to 8 bits.

Differs from the paper: the generator's learning rate is 1e-4, as in the released CIFAR-10 script;
    the paper's text is quoted with 5e-4.
Differs from the released code:
    images are (tanh + 1) / 2 in [0, 1] and the teacher normalises inside itself, where the released
    generator emits what the teacher's normalisation would have made of an image: on CIFAR-10 its tanh
    reaches tones from 0.29 to 0.69 only, so ours have 2.5 times the contrast for the teacher, and the
    student is tested on images of the scale that it was trained on. This may move accuracy either way;
    the learning rates fall when that share of the queries is spent, not at the nearest epoch;
    the budget ends the run within an iteration, where the released code overruns it by up to one;
    the student after the last iteration is the result, not the best on the test set;
    the estimate is not divided by the number of classes a second time, which Adam does not feel;
    the white-box gradient that the released code takes once per epoch for its log is not taken.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from budgets import Oracle
from methods.generators import dfme_generator, to_image
from methods.rounds import batch_that_fits
from methods.run import Run
from methods.search import Log, Range

ANSWERS = ("probs",)
DATA = "none"
PROTOCOL = "per_budget"
INPUTS = ("float",)  # 8 bits drown steps of 1e-3: the slopes correlate by 0.1 with the true ones
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the released CIFAR-10 script, run_cifar_dfme.sh and the defaults of train.py."""

    batch_size: Annotated[int, Log(5, 256)] = Field(256, ge=1)
    generator_steps: Annotated[int, Range(0, 2)] = Field(1, ge=0)
    student_steps: Annotated[int, Log(1, 10)] = Field(5, ge=1)
    directions: Annotated[int, Log(1, 4)] = Field(1, ge=1)
    epsilon: Annotated[float, Log(1e-4, 1e-1)] = Field(1e-3, gt=0)
    latent: int = Field(256, ge=1)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    lr: Annotated[float, Log(1e-2, 0.5)] = Field(0.1, gt=0)
    generator_lr: Annotated[float, Log(1e-5, 1e-2)] = Field(1e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    lr_steps: tuple[float, ...] = (0.1, 0.3, 0.5)
    lr_scale: float = Field(0.3, gt=0)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: `generator_steps` of (directions + 1) batches, then `student_steps` of one batch."""
    batches_a_round = config.generator_steps * (config.directions + 1) + config.student_steps
    batch_size = batch_that_fits(config.batch_size, batches_a_round, oracle.budget.queries)
    generator = dfme_generator(config.latent, config.generator_width, oracle.shape).to(run.device)
    student_optimizer = torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=config.generator_lr)
    run.track(generator=generator, student_optimizer=student_optimizer, generator_optimizer=generator_optimizer)

    def unbounded() -> Tensor:
        noise = torch.randn(batch_size, config.latent, generator=run.rng, device=run.device)
        maps: Tensor = generator(noise)
        return maps

    while True:
        decay = config.lr_scale ** sum(oracle.spent >= step * oracle.budget.queries for step in config.lr_steps)
        student_optimizer.param_groups[0]["lr"] = config.lr * decay
        generator_optimizer.param_groups[0]["lr"] = config.generator_lr * decay
        for _ in range(config.generator_steps):
            maps = unbounded()
            gradient = estimate_gradient(oracle, student, maps.detach(), config.directions, config.epsilon, run.rng)
            generator_optimizer.zero_grad()
            maps.backward(gradient)
            generator_optimizer.step()
        student.train()
        for _ in range(config.student_steps):
            images = to_image(unbounded()).detach()
            loss = F.l1_loss(student(images), logits_of(oracle(images)))
            student_optimizer.zero_grad()
            loss.backward()
            student_optimizer.step()
        yield {"loss": loss.item()}


@torch.no_grad()
def estimate_gradient(
    oracle: Oracle, student: nn.Module, maps: Tensor, directions: int, epsilon: float, rng: torch.Generator
) -> Tensor:
    """Forward-difference estimate of the gradient of the generator's loss, minus the mean L1 distance of the logits.

    maps: N x C x H x W, before the tanh. For each map, `directions` random unit vectors u of
    d = C * H * W entries: d / epsilon * (loss(x + epsilon u) - loss(x)) * u, their mean (paper, equation 5,
    m = directions), as in the released approximate_gradients.py. Costs N * (directions + 1) queries.
    """
    n, d = len(maps), maps[0].numel()
    u = torch.randn(n, directions, d, generator=rng, device=maps.device)
    u /= u.norm(dim=2, keepdim=True)
    shifts = torch.cat([epsilon * u, torch.zeros_like(u[:, :1])], dim=1)
    images = to_image((maps.flatten(1)[:, None] + shifts).view(-1, *maps.shape[1:]))
    student.eval()
    loss: Tensor = -(student(images) - logits_of(oracle(images))).abs().mean(dim=1).view(n, directions + 1)
    slopes = (loss[:, :-1] - loss[:, -1:]) * (d / epsilon)
    return (slopes[:, :, None] * u).mean(dim=1).view_as(maps) / n


def logits_of(probs: Tensor) -> Tensor:
    """The logits behind probabilities N x K, shifted so that each image's have mean 0 (paper, section 4.3)."""
    logs = probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
    return logs - logs.mean(dim=1, keepdim=True)
