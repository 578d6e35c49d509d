"""Sketch: draw much, ask little. A method of this benchmark's own, for labels and budgets of 1,000 to 50,000 queries.

Images that are drawn without any data (methods/sources) cost nothing until the teacher is asked about them. So many are
drawn, and the student, which is free to ask, chooses the few that its teacher labels, each once:

1. First a tenth of the budget, at random. Images come from all sources evenly, here and later.
2. Round by round, of many candidates those that make the labels even: an image of the class that the student, averaged
   over its steps, expects has the place that it would take among the labels of this class, and the lowest places are
   asked about; within a class those of which it is least sure.
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
from typing import Annotated, Any, Literal, NamedTuple

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
RESULTS = 4

PARTS = 10  # rounds of the training to the end
AT_ONCE = 500  # images that are drawn and looked at together


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: chosen on validation images of mnist-lenet, mnist-lenet5 and digits-lenet (docs/method.md).

    sources: drawn from evenly. rounds: in which is asked. first: the share of the budget that the first asks about.
    candidates: drawn for each image that is asked about. choose: by the place in the class that is expected (`even`),
    by how unsure the student is (`unsure`), both, or neither. restart: the student starts anew once all labels are
    there. moves: pixels by which a batch is moved at most, before the last `passes` of the training to the end.
    passes, min_steps: of the training to the end, whichever is more; as many steps are made while asking. With fewer
    passes than PARTS, each of which begins one, a few labels may be met in none. average: what a step keeps of the
    averaged student, an even mean of the first steps.
    """

    sources: tuple[Source, ...] = Field(tuple(SOURCES), min_length=1)
    rounds: Annotated[int, Range(4, 32)] = Field(16, ge=1)
    first: Annotated[float, Range(0.05, 0.5)] = Field(0.1, gt=0, le=1)
    candidates: Annotated[int, Log(2, 50)] = Field(16, ge=1)
    choose: Annotated[Literal["random", "even", "unsure", "both"], Choice()] = "both"
    restart: Annotated[bool, Choice()] = True
    moves: Annotated[int, Range(0, 4)] = Field(1, ge=0, le=7)  # the smallest images have 8 pixels a side
    batch_size: Annotated[int, Log(16, 256)] = Field(64, ge=1)
    passes: Annotated[int, Log(PARTS, 100)] = Field(20, ge=1)
    min_steps: int = Field(1500, ge=PARTS)
    lr: Annotated[float, Log(5e-3, 0.2)] = Field(0.02, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    average: float = Field(0.995, ge=0, lt=1)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """Rounds that ask and train, then PARTS that train to the end."""
    queries, classes = oracle.budget.queries, oracle.classes
    asked, labels = Pool(queries), LabelCounts(classes, run.device)
    start, average = copy.deepcopy(student), Average(student, config.average)
    optimizer = torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    run.track(asked=asked, labels=labels, start=start, average=average, optimizer=optimizer)
    sizes = sizes_of_rounds(queries, config)
    asking, as_asked = len(sizes), config.passes * math.ceil(queries / config.batch_size)
    steps = max(config.min_steps, as_asked)
    for done in range(run.round, asking + PARTS):
        if done < asking:
            images = draw(sizes[done] * (config.candidates if done else 1), config, oracle.shape, run.rng)
            if done:
                images = choose(sizes[done], images, average.network, labels.counts, config, run.rng)
            answers = oracle(images)
            asked.add(images, answers)
            labels.add(answers)
            now, follows = [Step(config.lr)] * math.ceil(steps / asking), average
        else:
            if done == asking and config.restart:
                student.load_state_dict(start.state_dict())
                optimizer.state.clear()
            now, follows = to_the_end(done - asking, steps, steps - as_asked, config, run), None
        loss = learn(student, optimizer, now, asked, config, run, follows)
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
    return [size for size in [first, *evenly(queries - first, config.rounds - 1)] if size]


class Step(NamedTuple):
    """The learning rate of a step, and by how many pixels down and right its batch is moved."""

    rate: float
    offset: tuple[int, int] = (0, 0)


def to_the_end(part: int, steps: int, surplus: int, config: Config, run: Run) -> list[Step]:
    """One of the PARTS of `steps` steps: the rate falls to 0 along a cosine, and the first `surplus` of all steps meet
    batches that are moved by at most `moves` pixels."""
    within = range(steps * part // PARTS, steps * (part + 1) // PARTS)
    rates = [config.lr * (1 + math.cos(math.pi * step / steps)) / 2 for step in within]
    moved = min(max(surplus - within.start, 0), len(within)) if config.moves else 0
    offsets = [(0, 0)] * len(within)
    if moved:
        drawn = torch.randint(-config.moves, config.moves + 1, (moved, 2), generator=run.rng, device=run.device)
        offsets[:moved] = [(down, right) for down, right in drawn.tolist()]
    return [Step(rate, offset) for rate, offset in zip(rates, offsets, strict=True)]


def evenly(n: int, parts: int) -> list[int]:
    """n parted in whole numbers that differ by one at most."""
    return [n * (k + 1) // parts - n * k // parts for k in range(parts)]


def draw(n: int, config: Config, shape: Shape, rng: Generator) -> Tensor:
    """n images C x H x W on the 8-bit grid, those of each source together."""
    parts = [
        SOURCES[name](min(AT_ONCE, count - done), shape, rng)
        for name, count in zip(config.sources, evenly(n, len(config.sources)), strict=True)
        for done in range(0, count, AT_ONCE)
    ]
    return to_8_bits(torch.cat([tone(part, rng) for part in parts]))


def choose(n: int, images: Tensor, average: nn.Module, counts: Tensor, config: Config, rng: Generator) -> Tensor:
    """The n of all candidates that are to be asked about. counts: of the labels, K."""
    expected = expectations(average, images)
    value = torch.rand(len(images), generator=rng, device=images.device)
    if config.choose in {"unsure", "both"}:
        two = expected.topk(2, dim=1).values
        value = two[:, 1] - two[:, 0]
    if config.choose in {"even", "both"}:
        return images[lowest_places(expected.argmax(dim=1), value, counts, n)]
    return images[value.topk(n).indices]


def lowest_places(classes: Tensor, value: Tensor, counts: Tensor, n: int) -> Tensor:
    """Which n of N images make their classes most even, given K counts to begin with; those of high value first.

    An image's place is the count that its class has once it and all of its class with a higher value are added. The n
    lowest places fill the classes as water fills basins.
    """
    order = value.argsort(descending=True)
    members = F.one_hot(classes[order], len(counts))
    places = ((counts + members.cumsum(dim=0)) * members).sum(dim=1)
    return order[places.topk(n, largest=False).indices]


@torch.no_grad()
def expectations(network: nn.Module, images: Tensor) -> Tensor:
    """What a network in evaluation mode expects, probabilities N x K."""
    network.eval()
    return torch.cat([network(batch).softmax(dim=1) for batch in images.split(AT_ONCE)])


def evenness(counts: Tensor) -> Tensor:
    """The entropy of K counts, 1 where all are equal."""
    entropy: Tensor = torch.special.entr(F.normalize(counts, p=1, dim=0)).sum()
    return entropy / math.log(len(counts))


def learn(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: list[Step],
    asked: Pool,
    config: Config,
    run: Run,
    average: Average | None,
) -> Tensor:
    """Takes the steps, which the average follows if there is one; returns the mean loss."""
    student.train()
    losses: list[Tensor] = []
    while len(losses) < len(steps):
        batches = asked.batches(config.batch_size, run.rng)
        for step, (images, answers) in zip(steps[len(losses) :], batches, strict=False):
            assert answers is not None, "each image was labelled when it was added"
            loss = F.cross_entropy(student(moved(images, *step.offset)), answers)
            optimizer.param_groups[0]["lr"] = step.rate
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
