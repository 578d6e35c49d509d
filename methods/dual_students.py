"""Dual Students: dual student networks for data-free model stealing (Beetham, Kardan, Mian, Shah, ICLR 2023).

https://arxiv.org/abs/2309.10058, code https://github.com/James-Beetham/dual_students

DFME with a second student in the teacher's place in the generator's loss: the generator looks for
images on which two students, trained alike, disagree, by their own gradients and without a query.
The network that is scored is a moving average of the first student.

Made for 32 x 32 pixels and millions of queries; at small budgets the batch shrinks (rounds.py).

Differs from the paper: its text was not at hand and is not compared; the defaults are those of the
    released code.
Differs from the released code:
    the generator's step shows the students images, as the student's step does, where the released one shows
    them what the generator makes before its tanh (`pre_x`): maps of which a third lies outside [-1, 1];
    in five and four seeds on the digits the two gave the same accuracy, 37.4 and 38.3 % with labels;
    with labels the students learn by cross-entropy, which is its `--loss ce`; the released code leaves
    the choice to the caller of `--no_logits -1`, and its only script is for probabilities;
    until the first average is due, after 10 rounds, the scored student is the first student itself;
    the released code has no score so early;
    images are (tanh + 1) / 2 in [0, 1] and the teacher normalises inside itself, where the released
    generator emits what the teacher's normalisation would have made of an image;
    the generator stays in training mode when it makes images for the students, as in DFME, because
    the statistics that evaluation mode would use are still those it starts from after few rounds;
    the learning rates fall when that share of the queries is spent, not at the nearest epoch;
    the result is the student after the last round, not the best on the test set;
    the batch that the released code sends once per epoch for its log, uncounted, is not sent;
    the moving average of the generator, which nothing there reads, is not kept.
"""

import copy
from collections.abc import Iterator
from itertools import count
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from budgets import Oracle
from methods.disguide import learn, twin_of
from methods.figures import figures
from methods.generators import dfme_generator, to_image
from methods.rounds import batch_that_fits
from methods.run import Run
from methods.search import Log, Range

ANSWERS = ("labels", "probs")  # a probability that is rounded to 0 has no logit
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the released CIFAR-10 script, run_cifar_ds.sh, and the defaults of train.py."""

    batch_size: Annotated[int, Log(5, 256)] = Field(256, ge=1)
    generator_steps: Annotated[int, Log(1, 5)] = Field(1, ge=1)
    student_steps: Annotated[int, Log(1, 10)] = Field(5, ge=1)
    latent: int = Field(256, ge=1)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    # three times DFME's, for probabilities; no script for labels was released: with it students may stay at chance
    lr: Annotated[float, Log(1e-2, 0.5)] = Field(0.3, gt=0)
    generator_lr: Annotated[float, Log(1e-5, 1e-2)] = Field(1e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    lr_steps: tuple[float, ...] = (0.1, 0.3, 0.5)
    lr_scale: float = Field(0.3, gt=0)
    average_every: Annotated[int, Log(1, 20)] = Field(10, ge=1)  # rounds
    average_decay: Annotated[float, Range(0.5, 0.99)] = Field(0.9, ge=0, lt=1)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: `generator_steps` without a query, then `student_steps` of one batch."""
    batch_size = batch_that_fits(config.batch_size, config.student_steps, oracle.budget.queries)
    students = nn.ModuleList([copy.deepcopy(student), twin_of(student, run.rng)])
    generator = dfme_generator(config.latent, config.generator_width, oracle.shape).to(run.device)
    student_optimizer = torch.optim.SGD(
        students.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    weights = list(generator.parameters())
    generator_optimizer = torch.optim.Adam(weights, lr=config.generator_lr)
    run.track(
        students=students,
        generator=generator,
        student_optimizer=student_optimizer,
        generator_optimizer=generator_optimizer,
    )

    def generate() -> Tensor:
        noise = torch.randn(batch_size, config.latent, generator=run.rng, device=run.device)
        return to_image(generator(noise))

    for round_ in count(run.round + 1):
        decay = config.lr_scale ** sum(oracle.spent >= step * oracle.budget.queries for step in config.lr_steps)
        student_optimizer.param_groups[0]["lr"] = config.lr * decay
        generator_optimizer.param_groups[0]["lr"] = config.generator_lr * decay
        students.eval()
        for _ in range(config.generator_steps):
            apart = disagreement(students, generate())
            generator_optimizer.zero_grad()
            (-apart).backward(inputs=weights)  # the students' have no use for a gradient here
            generator_optimizer.step()
        students.train()
        for _ in range(config.student_steps):
            images = generate().detach()
            loss = learn(students, student_optimizer, images, oracle(images))
        if round_ <= config.average_every:
            student.load_state_dict(students[0].state_dict())
        elif round_ % config.average_every == 0:
            move_average(student, students[0], config.average_decay)
        yield figures(loss=loss, disagreement=apart)


def disagreement(students: nn.ModuleList, images: Tensor) -> Tensor:
    """What the generator maximises: the L1 distance of the two students' logits, its mean over images and classes."""
    first, second = (student(images) for student in students)
    return F.l1_loss(first, second)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Let all weights and buffers of the average keep `decay` of their value and take the rest from the network."""
    for kept, current in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(current, 1 - decay)
        else:
            kept.copy_(current)  # batch norm's count of batches
