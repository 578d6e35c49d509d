"""DisGUIDE: disagreement-guided data-free model extraction (Rosenthal, Enouen, Pham, Tan, AAAI 2023).

https://doi.org/10.1609/aaai.v37i8.26150, code https://github.com/lin-tan/disguide

Two students learn from the same images and answers. Where they disagree at least one is wrong, so a
generator that seeks their disagreement, and many classes, finds images worth asking about by the
students' own gradients; only the images they learn from cost queries. Answers are kept and replayed.

The scored student is one network. Its twin, of the same architecture with weights of its own, is
made here. The vote of both, which the paper reports, is shown apart as `ensemble`.

Made for 32 x 32 pixels and millions of queries; at small budgets the batch shrinks (rounds.py).

Differs from the paper: its text was not at hand and is not compared; the defaults are those of the
    released code.
Differs from the released code:
    the result is one student after the last round, not the vote of both at their best on the test set
        (that vote, after the last round, is shown apart);
    images are (tanh + 1) / 2 in [0, 1], where the released code has tanh in [-1, 1] and teachers for it;
    images made for the students are rounded to 8 bits, so that memory and teacher know the same image;
    the generator stays in training mode when it makes images for the students, as in DFME, because
    the statistics that evaluation mode would use are still those it starts from after few rounds;
    the learning rates fall when that share of the queries is spent, not at the nearest epoch;
    images of one channel are never greyed, where the released code takes all to have three.
"""

import copy
import math
from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.dfme import logits_of
from methods.figures import figures
from methods.generators import dfme_generator, to_image
from methods.pool import Pool, to_8_bits
from methods.rounds import batch_that_fits
from methods.run import Run
from methods.search import Choice, Log, Range

ANSWERS = ("labels", "probs")  # a probability that is rounded to 0 has no logit
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the released CIFAR-10 script, run_cifar-10.sh, and the defaults of cli_parser.py."""

    batch_size: Annotated[int, Log(10, 256)] = Field(256, ge=1)
    generator_steps: Annotated[int, Log(1, 5)] = Field(1, ge=1)
    student_steps: Annotated[int, Log(1, 5)] = Field(1, ge=1)
    replays: Annotated[int, Range(0, 12)] = Field(3, ge=0)
    memory: int = Field(1_000_000, ge=1)  # images; the oldest leave first
    diversity_weight: Annotated[float, Log(0.01, 1.0)] = Field(0.2, ge=0)  # 0.04 in run_cifar-100.sh
    grey_every: Annotated[int, Choice((0, 2, 8))] = Field(8, ge=0)  # 0: no image is greyed
    latent: int = Field(256, ge=1)
    generator_width: Annotated[int, Log(8, 64)] = Field(64, ge=1)
    lr: Annotated[float, Log(3e-3, 0.3)] = Field(0.03, gt=0)
    generator_lr: Annotated[float, Log(1e-5, 1e-2)] = Field(1e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    lr_steps: tuple[float, ...] = (0.4, 0.8)
    lr_scale: float = Field(0.3, gt=0)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: `generator_steps` without a query, `student_steps` of one batch, `replays` without a query."""
    batch_size = batch_that_fits(config.batch_size, config.student_steps, oracle.budget.queries)
    students = nn.ModuleList([student, twin_of(student, run.rng)])
    generator = dfme_generator(config.latent, config.generator_width, oracle.shape).to(run.device)
    student_optimizer = torch.optim.SGD(
        students.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=config.generator_lr)
    memory = Pool(min(config.memory, oracle.budget.queries), forgets=True)
    run.track(
        twin=students[1],
        generator=generator,
        student_optimizer=student_optimizer,
        generator_optimizer=generator_optimizer,
        memory=memory,
    )
    run.show(ensemble=Vote(students))

    def generate() -> Tensor:
        noise = torch.randn(batch_size, config.latent, generator=run.rng, device=run.device)
        return grey_some(to_image(generator(noise)), config.grey_every, run.rng)

    while True:
        decay = config.lr_scale ** sum(oracle.spent >= step * oracle.budget.queries for step in config.lr_steps)
        student_optimizer.param_groups[0]["lr"] = config.lr * decay
        generator_optimizer.param_groups[0]["lr"] = config.generator_lr * decay
        students.eval()
        for _ in range(config.generator_steps):
            apart, diverse = disagreement_and_diversity(students, generate())
            generator_optimizer.zero_grad()
            (-apart - config.diversity_weight * diverse).backward(inputs=list(generator.parameters()))
            generator_optimizer.step()
        students.train()
        for _ in range(config.student_steps):
            images = to_8_bits(generate())
            answers = oracle(images)
            memory.add(images, answers)
            loss = learn(students, student_optimizer, images, answers)
        for _ in range(config.replays):
            learn(students, student_optimizer, *memory.sample(batch_size, run.rng))
        yield figures(loss=loss, disagreement=apart, diversity=diverse)


class Vote(nn.Module):
    """The mean of the students' probabilities, N x K (released code, train.py, test_ensemble)."""

    def __init__(self, students: nn.ModuleList) -> None:
        super().__init__()
        self.students = students

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([F.softmax(student(images), dim=1) for student in self.students]).mean(dim=0)


def disagreement_and_diversity(students: nn.ModuleList, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the generator maximises: how far the students' predictions lie apart, and the entropy of their mean.

    The first is the standard deviation of each probability over the students, its mean over images and
    classes; the second takes the mean prediction over students and images (released code, train.py,
    disguide_gen_loss). For two students the deviation is |p - q| / sqrt(2), written so because the
    gradient of `std` is infinite where both are all but equally sure.
    """
    probs = torch.stack([F.softmax(student(images), dim=1) for student in students])
    mean = (probs + 1e-6).mean(dim=(0, 1))
    return (probs[0] - probs[1]).abs().mean() / math.sqrt(2), -(mean * mean.log()).sum()


def learn(students: nn.ModuleList, optimizer: torch.optim.Optimizer, images: Tensor, answers: Tensor) -> Tensor:
    """One step of each student towards the teacher's answers. Returns the mean of their losses before it."""
    losses = torch.stack([student_loss(student(images), answers) for student in students])
    optimizer.zero_grad()
    losses.sum().backward()
    optimizer.step()
    return losses.detach().mean()


def student_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """L1 distance to the teacher's logits where it gave probabilities, cross-entropy where it gave labels."""
    if answers.is_floating_point():
        return F.l1_loss(logits, logits_of(answers))
    return F.cross_entropy(logits, answers)


@torch.no_grad()
def twin_of(student: nn.Module, rng: Generator) -> nn.Module:
    """A network of the same architecture with other first weights, from the same distribution.

    The entries of each tensor are shuffled: where an initialiser, whichever it was, drew them
    independently, that is another draw.
    """
    twin = copy.deepcopy(student)
    for weights in twin.parameters():
        order = torch.randperm(weights.numel(), generator=rng, device=weights.device)
        weights.copy_(weights.flatten()[order].view_as(weights))
    return twin


def grey_some(images: Tensor, every: int, rng: Generator) -> Tensor:
    """Make each `every`-th image grey: one channel, drawn for the batch, in place of all.

    The copies carry no gradient, the channel itself does (released code, network/gan.py, img_to_grayscale).
    """
    n, channels = images.shape[:2]
    if every == 0 or channels == 1:
        return images
    chosen = torch.randint(channels, (1,), generator=rng, device=images.device)
    copied = torch.arange(channels, device=images.device) != chosen
    greyed = torch.arange(n, device=images.device) % every == 0
    grey = images.index_select(1, chosen).detach()
    return torch.where(greyed[:, None, None, None] & copied[:, None, None], grey, images)
