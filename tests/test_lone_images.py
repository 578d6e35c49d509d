"""One image left over at the end of a pass: batch norm may not train on it alone, so it goes with those before it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support import CPU, RecordingTeacher, make_oracle, make_run
from torch import nn

from bench.boxes import teachers
from bench.boxes.recipes import RECIPES
from bench.tasks.data.sources import Split
from bench.tasks.networks import Normalised
from budgets import Oracle
from methods import dfms, dip_kd, fitting, knockoff, qedg, zsdb3kd
from methods.pool import Pool
from methods.run import Run

N, SIZE = 9, 4  # two batches, and one image


class Counting(nn.Module):
    """A network with batch norm over its features, which remembers how many images each training step had."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.sizes.append(len(images))
        logits: torch.Tensor = self.layers(images)
        return logits


def images_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 4


def pool() -> Pool:
    made = Pool()
    made.add(*images_and_labels())
    return made


def samples() -> zsdb3kd.Samples:
    made = zsdb3kd.Samples()
    made.images, made.classes = images_and_labels()
    made.logits = torch.rand(N, 4)
    return made


def sgd(student: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(student.parameters(), lr=0.01)


def teacher(network: nn.Module) -> None:
    images, labels = images_and_labels()
    split = Split(images.mul(255).to(torch.uint8), labels)
    recipe = replace(RECIPES["mnist"], epochs=1, batch_size=SIZE)
    teachers._fit(Normalised(network, torch.zeros(1, 1, 1), torch.ones(1, 1, 1)), split, recipe, lambda _: None)


def with_run(train: Callable[[nn.Module, Run], object]) -> Callable[[nn.Module], object]:
    return lambda student: train(student, make_run())


def none() -> Oracle:
    """Of which nothing is to be asked."""
    return make_oracle(RecordingTeacher(), 1)


ONCE = fitting.Recipe(batch_size=SIZE, passes=1, min_steps=1)

ONE_PASS: dict[str, Callable[[nn.Module], object]] = {
    "the controls": with_run(
        lambda student, run: list(
            fitting.fit(
                student, sgd(student), pool(), fitting.Recipe(batch_size=SIZE, passes=1, min_steps=1), run, none()
            )
        )
    ),
    "dfms": with_run(
        lambda student, run: dfms.train_on_pool(
            student, sgd(student), pool(), dfms.Config(initial_batch_size=SIZE, crop_padding=1), run
        )
    ),
    "dip_kd": with_run(
        lambda student, run: list(
            dip_kd.train(student, sgd(student), pool(), None, none(), 0, dip_kd.Config(batch_size=SIZE, passes=1), run)
        )
    ),
    "knockoff": with_run(
        lambda student, run: knockoff.train_pass(student, sgd(student), pool(), knockoff.Config(batch_size=SIZE), run)
    ),
    "qedg": with_run(
        lambda student, run: qedg.train_on_pool(
            student, sgd(student), pool(), SIZE, qedg.Config(passes=1, free_flip=0), run
        )
    ),
    "zsdb3kd": with_run(
        lambda student, run: zsdb3kd.train_pass(
            student,
            torch.optim.Adam(student.parameters()),
            samples(),
            zsdb3kd.Config(train_batch_size=SIZE),
            run,
        )
    ),
    "a teacher": teacher,
}


@pytest.mark.parametrize("name", ONE_PASS)
def test_a_pass_trains_on_every_image_once_and_never_on_one_alone(name: str) -> None:
    student = Counting().to(CPU)
    ONE_PASS[name](student)
    assert student.sizes == [SIZE, SIZE + 1]


def test_the_rate_of_the_controls_falls_over_the_steps_there_are() -> None:
    student, run = Counting(), make_run()
    optimizer, rates = sgd(student), []
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    recipe = fitting.Recipe(batch_size=SIZE, passes=2, min_steps=1, lr=1.0)
    list(fitting.fit(student, optimizer, pool(), recipe, run, none()))
    assert rates == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-4)  # a cosine in quarters
