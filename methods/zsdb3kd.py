"""ZSDB3KD: zero-shot knowledge distillation from a decision-based black-box model (Wang, ICML 2021).

https://arxiv.org/abs/2106.03310, code https://github.com/zwang84/zsdb3kd

Noise images are pushed away from the teacher's decision boundary, step by step, until they are typical
of their class. Their distances to the boundaries of the other classes, found from top-1 answers, make
soft labels: the nearer the boundary, the likelier the class. The student is distilled from these.

A sample costs 387,357 queries with the defaults and ten classes (`queries_per_sample`). The budget decides how
many samples there are, which every round tells; one that buys none is not spent.

Differs from the paper: its text was not at hand and is not compared; the defaults are those of the released code.
Differs from the released code:
    every query is counted, those for noise and first directions too, which its limits leave out;
    a search makes a fixed number of queries, so that the price of a sample is known: `push_turns` and `label_turns`
    stand for its limits of 5,000 queries a push and 20,000 a class of a soft label;
    noise is drawn `candidates` times a sample and the most balanced choice kept, where it draws until each class
    has 200 images, without end if noise never meets a class; such a class keeps the logit 0 here;
    first directions are tried once, where it tries until they leave the class; a sample that none takes out stays put;
    the search for another class starts towards its nearest sample, where it tries 201 of them;
    steps of a line search, and of a push, are tried side by side, where it doubles or halves one until it fits; each
    is 1 to 1/128 long, where its go along a mean that is not normalised, 8e-5 or 1.5e-2 long: another search;
    the divergence is summed over a batch, as there, of 512: fewer samples weigh less against the cross-entropy;
    the student is trained for 200 passes, where the released loop makes 201;
    samples are rounded to 8 bits when they are made;
    a pass takes each sample once, where it shuffles anew for each batch;
    the student after the last pass is the result, not the best on the test set.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.boundary import Crossed, Search, nearest
from methods.pool import batch_sizes, to_8_bits
from methods.run import Run
from methods.search import Log, Range

ANSWERS = ("labels", "probs", "rounded")  # of probabilities it looks at the top-1 class only
INPUTS = ("float",)  # it moves by 1e-3 and halves to 2^-20, which 8 bits cannot show
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 1

NOISE_BATCH = 1000  # images of noise asked about in one call


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the released get_pseudo_samples.py, get_soft_labels.py (mode mbd) and train_model_kd.py, for MNIST."""

    batch_size: int = Field(50, ge=1)  # samples searched side by side
    candidates: Annotated[int, Log(2, 20)] = Field(10, ge=1)  # ours
    directions: Annotated[int, Log(1, 20)] = Field(20, ge=1)
    pushes: Annotated[int, Log(1, 40)] = Field(40, ge=1)
    push_step: Annotated[float, Log(0.1, 1.0)] = Field(0.5, gt=0)
    # the fourth, 0.06, is the first at which the released code warns
    push_tries: Annotated[int, Range(1, 6)] = Field(4, ge=1)
    push_turns: Annotated[int, Range(0, 13)] = Field(13, ge=0)
    label_turns: Annotated[int, Range(0, 54)] = Field(54, ge=0)
    search: Search = Search()
    temperature: Annotated[float, Log(1.0, 50.0)] = Field(20.0, gt=0)
    passes: Annotated[int, Log(50, 400)] = Field(200, ge=1)
    train_batch_size: int = Field(512, ge=1)
    lr: Annotated[float, Log(3e-4, 1e-2)] = Field(1e-3, gt=0)  # released: 5e-3 for CIFAR-10


class Samples:
    """The pseudo samples: images on the 8-bit grid, their classes, the logits of their soft labels (0 until known)."""

    images: Tensor
    classes: Tensor
    logits: Tensor

    def state_dict(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in vars(self).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Rounds: choosing noise, pushing each batch of it, soft labels for each batch, then one a pass without a query."""
    samples = Samples()
    optimizer = torch.optim.Adam(student.parameters(), lr=config.lr)
    run.track(samples=samples, optimizer=optimizer)
    if not affordable(oracle.budget.queries, 1, config):
        return
    if run.round == 0:
        samples.images, samples.classes = choose_noise(oracle, config, run.rng)
        samples.logits = torch.zeros(len(samples.images), oracle.classes, device=run.device)
        yield {"samples": len(samples.images)}
    n = len(samples.images)
    if n == 0:
        return
    batches = torch.arange(n, device=run.device).split(config.batch_size)
    for batch in batches[max(run.round - 1, 0) :]:
        for _ in range(config.pushes):
            samples.images[batch] = push(oracle, samples.images[batch], samples.classes[batch], config, run.rng)
        yield {"samples": n}
    for batch in batches[max(run.round - 1 - len(batches), 0) :]:
        samples.logits[batch] = soft_labels(oracle, samples, batch, config, run.rng)
        yield {"samples": n}
    for _ in range(max(run.round - 1 - 2 * len(batches), 0), config.passes):
        yield {"samples": n, "loss": train_pass(student, optimizer, samples, config, run)}


def queries_per_sample(config: Config, classes: int) -> int:
    """The price of pushing a sample and of its distances to all but one of `classes` classes."""
    push_price = config.search.queries(config.directions, config.push_turns) + config.push_tries
    return config.pushes * push_price + (classes - 1) * config.search.queries(1, config.label_turns)


def affordable(queries: int, classes: int, config: Config) -> int:
    """The most samples, of `classes` classes or of as many as there are samples, that `queries` pay for."""
    counts = (*range(1, classes), max(queries // queries_per_sample(config, classes), classes))
    return max((n for n in counts if n * queries_per_sample(config, min(n, classes)) <= queries), default=0)


def choose_noise(oracle: Oracle, config: Config, rng: Generator) -> tuple[Tensor, Tensor]:
    """Noise images and their classes, as many as the rest of the budget can make samples of, the most balanced kept.

    What is too little for one more sample buys more noise, so the samples use the budget up to the last query.
    """
    images = torch.empty(0, *oracle.shape, device=rng.device)
    classes = torch.empty(0, dtype=torch.int64, device=rng.device)
    first = config.candidates * max(oracle.budget.queries // queries_per_sample(config, oracle.classes), 1)
    while True:
        met = max(len(classes.unique()), 1)
        n = affordable(oracle.remaining, met, config)
        rest = oracle.remaining - n * queries_per_sample(config, min(n, met))
        wanted = first - len(images) if len(images) < first else max(n - len(images), rest)
        if min(wanted, oracle.remaining) <= 0:
            return images[:n], classes[:n]
        fresh = noise(min(wanted, oracle.remaining, NOISE_BATCH), oracle.shape, rng)
        images, classes = torch.cat([images, fresh]), torch.cat([classes, top_1(oracle, fresh)])
        kept = most_balanced(classes, oracle.classes)[: max(first, n, oracle.classes)]
        images, classes = images[kept], classes[kept]


def noise(n: int, shape: tuple[int, int, int], rng: Generator) -> Tensor:
    """Images n x C x H x W: uniform in [0.2, 1.2] and Gaussian noise, each of random strength, on the 8-bit grid."""
    bright, rough = torch.rand(2, n, 1, 1, 1, generator=rng, device=rng.device)
    uniform = torch.rand(n, *shape, generator=rng, device=rng.device)
    gaussian = torch.randn(n, *shape, generator=rng, device=rng.device)
    return to_8_bits(((uniform + 0.2) * bright + gaussian * rough).clamp(0, 1))


def most_balanced(classes: Tensor, total: int) -> Tensor:
    """An order of N classes, int64 below `total`: first one of each class, then a second of each, and so on."""
    members = F.one_hot(classes, total)
    return (members.cumsum(dim=0) * members).sum(dim=1).argsort(stable=True)


def top_1(oracle: Oracle, images: Tensor) -> Tensor:
    """The teacher's classes, int64 of N, whatever else the budget reveals."""
    answers = oracle(images)
    return answers if answers.ndim == 1 else answers.argmax(dim=1)


def crossing(oracle: Oracle, images: Tensor, classes: Tensor, *, into: bool) -> Crossed:
    """The boundary of N images, N x C x H x W: out of their `classes`, int64 of N, or `into` those."""

    def crossed(shifts: Tensor) -> Tensor:
        points = (images.flatten(1)[:, None] + shifts).clamp(0, 1)
        labels = top_1(oracle, points.view(-1, *oracle.shape)).view(shifts.shape[:2])
        return (labels == classes[:, None]) == into

    return crossed


def push(oracle: Oracle, images: Tensor, classes: Tensor, config: Config, rng: Generator) -> Tensor:
    """Move images N x C x H x W straight away from the nearest boundary found, as far as they keep their classes."""
    scales = 4 * torch.rand(len(images), config.directions, 1, generator=rng, device=rng.device)
    shifts = scales * torch.randn(*scales.shape[:2], images[0].numel(), generator=rng, device=rng.device)
    crossed = crossing(oracle, images, classes, into=False)
    direction, distance = nearest(crossed, shifts, config.push_turns, config.search, rng)
    steps = config.push_step * 0.5 ** torch.arange(config.push_tries, device=rng.device)
    moved = to_8_bits((images.flatten(1)[:, None] - steps[:, None] * direction[:, None]).clamp(0, 1))
    kept = top_1(oracle, moved.view(-1, *oracle.shape)).view(len(images), -1) == classes[:, None]
    kept &= distance.isfinite()[:, None]
    furthest = moved[torch.arange(len(images), device=rng.device), kept.int().argmax(dim=1)].view_as(images)
    return torch.where(kept.any(dim=1)[:, None, None, None], furthest, images)


def soft_labels(oracle: Oracle, samples: Samples, batch: Tensor, config: Config, rng: Generator) -> Tensor:
    """Logits len(batch) x K: 1 / the distance to each other class that has samples, and their sum for the own class."""
    logits = torch.zeros(len(batch), oracle.classes, device=batch.device)
    for target in samples.classes.unique().tolist():
        rows = (samples.classes[batch] != target).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        images, aims = samples.images[batch[rows]], samples.images[samples.classes == target].flatten(1)
        shifts = aims[torch.cdist(images.flatten(1), aims).argmin(dim=1)] - images.flatten(1)
        crossed = crossing(oracle, images, torch.full_like(rows, target), into=True)
        _, distance = nearest(crossed, shifts[:, None], config.label_turns, config.search, rng)
        logits[rows, target] = 1 / distance
    return logits.scatter(1, samples.classes[batch, None], logits.sum(dim=1, keepdim=True))


def train_pass(student: nn.Module, optimizer: torch.optim.Adam, samples: Samples, config: Config, run: Run) -> float:
    """One pass over the samples, without a query. Returns the mean loss."""
    student.train()
    losses = []
    order = torch.randperm(len(samples.images), generator=run.rng, device=run.device)
    for batch in order.split(batch_sizes(len(order), config.train_batch_size)):
        outputs = student(samples.images[batch])
        loss = distillation_loss(outputs, samples.logits[batch], samples.classes[batch], config.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def distillation_loss(outputs: Tensor, logits: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """The mean cross-entropy to the classes plus the *sum* of the divergences from the soft labels (released code)."""
    softened = F.log_softmax(outputs / temperature, dim=1)
    divergence = F.kl_div(softened, F.softmax(logits / temperature, dim=1), reduction="sum")
    return F.cross_entropy(outputs, classes) + divergence
