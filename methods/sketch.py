"""Sketch: draw much, ask little. A method of this benchmark's own, for labels and budgets of 1,000 to 50,000 queries.

Images that are drawn without any data (methods/sources) cost nothing until the teacher is asked about them. So many are
drawn, and the student, which is free to ask, chooses the few that its teacher labels, each once:

1. A small even share of every source.
2. Round by round, of many candidates those that make the labels even: an image of the class that the student, averaged
   over its steps, expects has the place that it would take among the labels of this class, and the lowest places are
   asked about; within a class those of which it is least sure. A few steps along its gradient make it less sure of
   them still, before they are. Sources whose candidates it spreads over all classes are drawn from more.
3. The student starts anew and learns all labels to the end. What asked has met the first labels too often, and what has
   learnt few labels long learns more of them badly (Ash and Adams, NeurIPS 2020). Where labels are so few that it meets
   each more than `passes` times, it first meets them with images that are moved by a pixel.

A moved image keeps its label in half to four fifths of all cases, and the student is better for it all the same:
docs/method.md has what was measured, and the reasons for all of this.

Differs from the paper: there is none.
Differs from the released code: this is it.
"""

import copy
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.figures import figures
from methods.generators import Shape
from methods.pool import Pool, to_8_bits
from methods.run import Run
from methods.search import Choice, Log, Range
from methods.sources import SOURCES, Source
from methods.sources.tones import tone

ANSWERS = ("labels", "probs")
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 3

PARTS = 10  # rounds of the training to the end
STILL = (0, 0)  # an image that is not moved
AT_ONCE = 500  # images that are drawn and looked at together


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: chosen on validation images of mnist-lenet, mnist-lenet5 and digits-lenet (docs/method.md).

    rounds: in which is asked. first: the share of the budget that the first asks about, evenly from all sources.
    candidates: drawn for each image that is asked about. choose: by the place in the class that is expected (`even`),
    by how unsure the student is (`unsure`), both, or neither. preference: how far sources are preferred whose
    candidates spread over the classes, 0 for not at all. refine: steps of `refine_step`, in tones from 0 to 1, by which
    each pixel of a chosen image is made less sure, 0 for none. restart: the student starts anew once all labels are
    there. moves: pixels by which a batch is moved at most, before the last `passes` of the training to the end.
    passes, min_steps: of the training to the end, whichever is more; as many steps are made while asking. average: what
    a step keeps of the averaged student, an even mean of the first steps.
    """

    sources: tuple[Source, ...] = tuple(SOURCES)
    rounds: Annotated[int, Range(4, 32)] = Field(16, ge=1)
    first: Annotated[float, Range(0.05, 0.5)] = Field(0.1, gt=0, le=1)
    candidates: Annotated[int, Log(2, 50)] = Field(16, ge=1)
    choose: Annotated[Literal["random", "even", "unsure", "both"], Choice()] = "both"
    preference: Annotated[float, Range(0.0, 20.0)] = Field(10.0, ge=0)
    refine: Annotated[int, Range(0, 10)] = Field(5, ge=0)
    refine_step: float = Field(0.03, gt=0)
    restart: Annotated[bool, Choice()] = True
    moves: Annotated[int, Range(0, 4)] = Field(1, ge=0)
    batch_size: Annotated[int, Log(16, 256)] = Field(64, ge=1)
    passes: Annotated[int, Log(5, 100)] = Field(20, ge=1)
    min_steps: int = Field(1500, ge=1)
    lr: Annotated[float, Log(5e-3, 0.2)] = Field(0.02, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    average: float = Field(0.995, ge=0, lt=1)


class Palette:
    """How much is drawn from each source, which changes with what the student makes of it."""

    def __init__(self, config: Config, shape: Shape, rng: Generator) -> None:
        self._sources = [SOURCES[name] for name in config.sources]
        self._preference, self._shape, self.rng = config.preference, shape, rng
        self.shares = [1 / len(self._sources)] * len(self._sources)

    def draw(self, n: int) -> tuple[Tensor, list[int]]:
        """Images n x C x H x W on the 8-bit grid, those of each source together, and how many each source has."""
        counts = shared_out(n, self.shares)
        parts = [
            source(min(AT_ONCE, count - done), self._shape, self.rng)
            for source, count in zip(self._sources, counts, strict=True)
            for done in range(0, count, AT_ONCE)
        ]
        return to_8_bits(torch.cat([tone(part, self.rng) for part in parts])), counts

    def learn(self, expected: Tensor, counts: list[int]) -> None:
        """Move half way to shares in proportion to exp(preference x evenness), that of the classes of a source's
        candidates. expected: n x K, the student's probabilities of what was drawn."""
        parts = expected.split(counts)
        means = torch.stack([part.mean(dim=0) if len(part) else expected.new_ones(expected.shape[1]) for part in parts])
        wanted = (self._preference * evenness(means)).softmax(dim=0).tolist()
        self.shares = [(old + new) / 2 for old, new in zip(self.shares, wanted, strict=True)]

    def state_dict(self) -> dict[str, list[float]]:
        return {"shares": self.shares}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        self.shares = state_dict["shares"]


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Rounds that ask and train, then PARTS that train to the end."""
    queries, classes = oracle.budget.queries, oracle.classes
    asked, palette, labels = Pool(queries), Palette(config, oracle.shape, run.rng), LabelCounts(classes, run.device)
    start, average = copy.deepcopy(student), Average(student, config.average)
    optimizer = torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    run.track(asked=asked, palette=palette, labels=labels, start=start, average=average, optimizer=optimizer)
    sizes = sizes_of_rounds(queries, config)
    asking, as_asked = len(sizes), config.passes * math.ceil(queries / config.batch_size)
    steps = max(config.min_steps, as_asked)
    for done in range(run.round, asking + PARTS):
        if done < asking:
            if done:
                images = choose(sizes[done], palette, average.network, labels.counts, config)
            else:
                images, _ = palette.draw(sizes[0])
            answers = oracle(images)
            asked.add(images, answers)
            labels.add(answers)
        elif done == asking and config.restart:
            student.load_state_dict(start.state_dict())
            optimizer.state.clear()
        part = done - asking
        rates = rates_of(part, asking, steps, config.lr)
        offsets = offsets_of(part, steps, steps - as_asked, config.moves, run) if part >= 0 else [STILL] * len(rates)
        loss = learn(student, optimizer, rates, offsets, asked, config, run, average if part < 0 else None)
        yield figures(loss=loss, evenness=evenness(labels.counts))


class Average:
    """A student, averaged over its steps: all alike at first, then each step keeps a share of the average."""

    def __init__(self, student: nn.Module, keep: float) -> None:
        self.network, self.keep, self.steps = copy.deepcopy(student), keep, 0

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """One step further; what batch norm has counted is taken over."""
        self.steps += 1
        share = max(1 - self.keep, 1 / self.steps)
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), share)
        for kept, new in zip(self.network.buffers(), student.buffers(), strict=True):
            kept.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.network.load_state_dict(state_dict["network"])
        self.steps = state_dict["steps"]


class LabelCounts:
    """How many of the labels are of each class, K floats."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.counts = torch.zeros(classes, device=device)

    def add(self, answers: Tensor) -> None:
        classes = answers.argmax(dim=1) if answers.is_floating_point() else answers
        self.counts += F.one_hot(classes, len(self.counts)).sum(dim=0)

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        self.counts.copy_(state_dict["counts"])


def sizes_of_rounds(queries: int, config: Config) -> list[int]:
    """How many images each round asks about: a share first, the rest evenly; none asks about nothing."""
    first = math.ceil(config.first * queries) if config.rounds > 1 else queries
    return [size for size in [first, *shared_out(queries - first, [1.0] * (config.rounds - 1))] if size]


def rates_of(part: int, asking: int, steps: int, lr: float) -> list[float]:
    """The learning rates of a round's steps: `lr` while asking (part < 0), then down to 0 along a cosine."""
    if part < 0:
        return [lr] * math.ceil(steps / asking)
    return [lr * (1 + math.cos(math.pi * step / steps)) / 2 for step in steps_of(part, steps)]


def steps_of(part: int, steps: int) -> range:
    """Which steps of the training to the end are in one of its PARTS."""
    return range(steps * part // PARTS, steps * (part + 1) // PARTS)


def offsets_of(part: int, steps: int, surplus: int, moves: int, run: Run) -> list[tuple[int, int]]:
    """By how many pixels down and right the batch of each step of a part is moved: of the first `surplus` of all steps
    by at most `moves`, of the others by none."""
    within = steps_of(part, steps)
    moved = min(max(surplus - within.start, 0), len(within)) if moves else 0
    drawn = torch.randint(-moves, moves + 1, (moved, 2), generator=run.rng, device=run.device).tolist() if moved else []
    return [*((down, right) for down, right in drawn), *[STILL] * (len(within) - moved)]


def shared_out(n: int, weights: list[float]) -> list[int]:
    """n parted in proportion to the weights, in whole numbers."""
    ends = [round(n * sum(weights[: k + 1]) / sum(weights)) for k in range(len(weights))]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def choose(n: int, palette: Palette, average: nn.Module, counts: Tensor, config: Config) -> Tensor:
    """The n of `candidates` times as many images that are to be asked about. counts: of the labels, K."""
    images, drawn = palette.draw(config.candidates * n)
    expected = expectations(average, images)
    palette.learn(expected, drawn)
    value = torch.rand(len(images), generator=palette.rng, device=images.device)
    if config.choose in {"unsure", "both"}:
        value = unsureness(expected)
    if config.choose in {"even", "both"}:
        kept = lowest_places(expected.argmax(dim=1), value, counts, n)
    else:
        kept = value.topk(n).indices
    return refine(images[kept], average, config)


def lowest_places(classes: Tensor, value: Tensor, counts: Tensor, n: int) -> Tensor:
    """Which n of N images make their classes most even, given K counts to begin with; those of high value first.

    An image's place is the count that its class has once it and all of its class with a higher value are added. The n
    lowest places fill the classes as water fills basins.
    """
    order = value.argsort(descending=True)
    members = F.one_hot(classes[order], len(counts))
    places = ((counts + members.cumsum(dim=0)) * members).sum(dim=1)
    return order[places.topk(n, largest=False).indices]


def unsureness(expected: Tensor) -> Tensor:
    """How near the second of N x K probabilities comes to the first, N numbers from -1 to 0."""
    two = expected.topk(2, dim=1).values
    return two[:, 1] - two[:, 0]


def refine(images: Tensor, network: nn.Module, config: Config) -> Tensor:
    """Images N x C x H x W, moved to where a network in evaluation mode is less sure which of two classes it sees.

    Each step adds `refine_step` times the sign of the gradient (Madry et al., ICLR 2018), here of the unsureness. On
    the 8-bit grid again.
    """
    network.eval()
    parts = []
    for part in images.split(AT_ONCE):
        for _ in range(config.refine):
            unsure = unsureness(network(part.requires_grad_()).softmax(dim=1))
            (slope,) = torch.autograd.grad(unsure.sum(), part)
            part = (part.detach() + config.refine_step * slope.sign()).clamp(0, 1)
        parts.append(part)
    return to_8_bits(torch.cat(parts))


@torch.no_grad()
def expectations(network: nn.Module, images: Tensor) -> Tensor:
    """What a network in evaluation mode expects, probabilities N x K."""
    network.eval()
    return torch.cat([network(batch).softmax(dim=1) for batch in images.split(AT_ONCE)])


def evenness(counts: Tensor) -> Tensor:
    """The entropy of K counts, or of each row of N x K, 1 where all are equal."""
    entropy: Tensor = torch.special.entr(F.normalize(counts, p=1, dim=-1)).sum(dim=-1)
    return entropy / math.log(counts.shape[-1])


def learn(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    offsets: list[tuple[int, int]],
    asked: Pool,
    config: Config,
    run: Run,
    average: Average | None,
) -> Tensor:
    """A step for each rate and offset, which the average follows if there is one; returns the mean loss."""
    student.train()
    losses: list[Tensor] = []
    while len(losses) < len(rates):
        left = list(zip(rates, offsets, strict=True))[len(losses) :]
        for (images, answers), (rate, offset) in zip(asked.batches(config.batch_size, run.rng), left, strict=False):
            assert answers is not None, "each image was labelled when it was added"
            loss = F.cross_entropy(student(moved(images, *offset)), answers)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if average is not None:
                average.follow(student)
    return torch.stack(losses).mean()


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """Images N x C x H x W, all moved by so many pixels, black where nothing was; up and left are below 0."""
    return F.pad(images, [right, -right, down, -down])
