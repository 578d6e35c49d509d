"""Paired runs of IDEAL: its released loop and ours, on the same teacher, for as many rounds, from the same students.

Called by tests/fidelity.py, which knows where the released code lies.
"""

import contextlib
import io
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.boxes import teachers
from bench.boxes.box import accuracy, black_box
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.table import task_of
from budgets import Budget, Oracle
from methods import ideal
from methods.augment import random_crop, random_flip
from methods.run import Run

TASK = "mnist-lenet"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """How long, how large and how often the loops run; all else is the released default of the README's command."""

    rounds: int = 10
    batch_size: int = 100
    generator_steps: int = 10
    width: int = 64
    seeds: int = 3


class Counted(nn.Module):
    """A teacher that counts the images it is sent."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        logits: Tensor = self.network(images)
        return logits


@dataclass
class Side:
    """What the runs of one side came to, a value for each seed."""

    accuracies: list[float] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


def stand_in_for_kornia() -> SimpleNamespace:
    """Crops and mirrors of each image by itself, as kornia's; the crop of another size makes a view nobody reads."""
    rng = torch.default_generator

    def in_rows(images: Tensor) -> Tensor:
        return images.clone(memory_format=torch.contiguous_format)

    return SimpleNamespace(
        RandomCrop=lambda padding, **_: lambda images: in_rows(random_crop(images, padding, rng)),
        RandomHorizontalFlip=lambda: lambda images: in_rows(random_flip(images, rng)),
        RandomResizedCrop=lambda **_: lambda images: images,
    )


def on_the_cpu(stack: contextlib.ExitStack) -> None:
    """Until the stack closes, `.cuda()` does nothing and data are loaded in this process."""
    stack.enter_context(mock.patch.object(Tensor, "cuda", lambda self: self))
    stack.enter_context(mock.patch.object(nn.Module, "cuda", lambda self: self))

    def loader(dataset: Any, batch_size: int, shuffle: bool, **_: Any) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)

    stack.enter_context(mock.patch("torch.utils.data.DataLoader", loader))


def run_released(code: SimpleNamespace, teacher: Counted, setting: Setting, seed: int) -> nn.Module:
    """The rounds of ideal.py:291-296, made of its own functions, with the settings of the README's MNIST command."""
    with contextlib.ExitStack() as stack:
        on_the_cpu(stack)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        torch.manual_seed(seed)
        student = code.CNN()
        torch.manual_seed(1000 + seed)
        generator = code.Generator_2(nz=256, ngf=setting.width, img_size=28, nc=1)
        made = code.Synthesizer(
            generator, 256, 10, (1, 28, 28), setting.generator_steps, 1e-3, setting.batch_size, folder, "mnist"
        )
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for round_ in range(setting.rounds):
            made.gen_data(student, teacher, round_)
            code.kd_train(made, [student, teacher], optimizer, nn.CrossEntropyLoss())
    return student


def run_ours(teacher: Counted, setting: Setting, seed: int) -> nn.Module:
    """Our method with every view asked about, and a budget that ends with the last round."""
    queries = setting.batch_size * setting.rounds * (setting.rounds + 1) // 2
    oracle = Oracle(black_box(teacher), Budget(queries, "labels", "float"), shape=(1, 28, 28), classes=10)
    torch.manual_seed(seed)
    student = networks.build("lenet-bn", (1, 28, 28), 10)
    config = ideal.Config(
        relabel="every_view",
        batch_size=setting.batch_size,
        generator_steps=setting.generator_steps,
        generator_width=setting.width,
    )
    for _ in ideal.distill(oracle, student, config, Run(CPU, torch.manual_seed(2000 + seed))):
        pass
    return student


def paired_runs(code: SimpleNamespace, data: Path, out: Path, setting: Setting) -> bool:
    """Run both sides for every seed and print what came of it; whether answers are equal and accuracies alike."""
    torch.manual_seed(0)
    task = task_of(TASK)
    record = teachers.train(task, out, data, CPU, lambda share: print(f"teacher: {share:.0%}", flush=True))
    network, dataset = teachers.load(task, out, CPU), sources.load(task.dataset, data)
    print(f"{setting}\nteacher {record.hash}: {record.test_accuracy:.2%}\n\n| seed | side | accuracy % | answers |")
    print("|---|---|---|---|")
    sides = {"released": Side(), "ours": Side()}
    runs: dict[str, Callable[[Counted, int], nn.Module]] = {
        "released": lambda teacher, seed: run_released(code, teacher, setting, seed),
        "ours": lambda teacher, seed: run_ours(teacher, setting, seed),
    }
    for seed in range(setting.seeds):
        for name, side in sides.items():
            teacher = Counted(network)
            student = runs[name](teacher, seed)
            side.accuracies.append(100 * accuracy(student.eval(), dataset.test))
            side.answers.append(teacher.images)
            print(f"| {seed} | {name} | {side.accuracies[-1]:.2f} | {side.answers[-1]:,} |", flush=True)
    return compare(sides["released"], sides["ours"])


def compare(released: Side, ours: Side) -> bool:
    """Print means, standard deviations and Welch's test; False if answers differ or p is below 0.05."""
    test = stats.ttest_ind(ours.accuracies, released.accuracies, equal_var=False)
    interval = test.confidence_interval()
    for name, side in (("released", released), ("ours", ours)):
        spread = statistics.stdev(side.accuracies)
        print(f"{name}: mean {statistics.mean(side.accuracies):.2f}, standard deviation {spread:.2f}")
    print(f"ours - released: 95 % interval {interval.low:+.2f} to {interval.high:+.2f}, Welch's p {test.pvalue:.3f}")
    same = released.answers == ours.answers
    print(f"answers: {'the same' if same else 'NOT the same'} on both sides")
    return same and bool(test.pvalue >= 0.05)
