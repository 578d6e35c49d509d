"""A round of IDEAL against a plain version of the released structure: 28 pixels, width 64, 30 steps, 250 images."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from speed import plain_ideal
from speed.item import Item, Setting
from torch import Tensor

from bench.boxes.box import black_box
from bench.tasks.networks import build
from budgets import Budget, Oracle
from methods import ideal
from methods.generators import ideal_generator
from methods.noise import multiscale
from methods.pool import Pool, to_8_bits
from methods.run import Run

SHAPE, CLASSES = (1, 28, 28), 10


class Round:
    """Both versions, with the LeNet of the released code as teacher and student, and a pool of the same images as a
    tensor and as PNG files. What the networks have learnt makes no difference to the time."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._device = setting, setting.device
        self._run = Run(setting.device, setting.rng)
        self._student, self._teacher = (build("lenet-bn", SHAPE, CLASSES).to(setting.device) for _ in range(2))
        self._optimizer = torch.optim.SGD(self._student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self._teacher.eval()
        self.pool_size = setting.size(25_000, 60)
        self.config = ideal.Config(
            batch_size=setting.size(250, 20), generator_steps=setting.size(30, 2), generator_width=setting.size(64, 4)
        )

    def generate(self) -> None:
        """A batch of images, in a pool."""
        config = self.config
        generator = ideal_generator(config.latent, config.generator_width, SHAPE).to(self._device)
        targets = torch.arange(config.batch_size, device=self._device) % CLASSES
        images, loss = ideal.generate(generator, self._student, targets, config, self._run)
        Pool().add(images)
        loss.item()

    def generate_plainly(self) -> None:
        """A batch of images, in files."""
        config = self.config
        generator = plain_ideal.generator_of(config.latent, config.generator_width, SHAPE).to(self._device)
        settings = config.batch_size, config.latent, config.generator_steps, self._run.rng
        plain_ideal.save(plain_ideal.generate(generator, self._student, *settings), self._setting.folder / "generated")

    def train(self) -> None:
        """A pass with the labels that were kept."""
        self._train(self._labelled, self.config)

    def train_on_views(self) -> None:
        """A pass in which every view is asked about, through the meter."""
        config = ideal.Config(**{**self.config.model_dump(), "relabel": "every_view", "augment": "flip"})
        self._train(self._unlabelled, config)

    def train_plainly(self) -> None:
        """A pass over the files in which every view is asked about."""
        networks = self._student, self._teacher, self._optimizer
        plain_ideal.train_on_pool(*networks, self._files, self.config.batch_size, self._device)

    def draw(self) -> None:
        """The batches of a pass with the labels that were kept, and no step of the student."""
        for _ in self._labelled.batches(self.config.batch_size, self._run.rng):
            pass

    def draw_plainly(self) -> None:
        """The views of a pass with the teacher's labels, and no step of the student."""
        for batch in plain_ideal.batches(self._files, self.config.batch_size, self._device):
            plain_ideal.ask(self._teacher, batch.to(self._device))

    def _train(self, pool: Pool, config: ideal.Config) -> None:
        budget = Budget(max(self.pool_size, config.batch_size))
        oracle = Oracle(black_box(self._teacher), budget, shape=SHAPE, classes=CLASSES)
        batch_size = config.batch_size
        ideal.train_on_pool(self._student, self._optimizer, pool, oracle, batch_size, config, self._run).item()

    @cached_property
    def _images(self) -> Tensor:
        made = multiscale(self.pool_size, SHAPE, 5, torch.Generator().manual_seed(0))
        return to_8_bits(made).to(self._device)

    @cached_property
    def _labelled(self) -> Pool:
        pool = Pool()
        pool.add(self._images, torch.randint(CLASSES, (self.pool_size,), device=self._device))
        return pool

    @cached_property
    def _unlabelled(self) -> Pool:
        pool = Pool()
        pool.add(self._images)
        return pool

    @cached_property
    def _files(self) -> Path:
        folder = self._setting.folder / "pool"
        plain_ideal.save(self._images, folder)
        return folder


def ideal_round(setting: Setting) -> Iterator[Item]:
    """Generation, the pass over a large pool, and both."""
    one, gpu = Round(setting), setting.device.type == "cuda"
    size, unit = f"{one.pool_size:,} images", setting.unit
    one.draw_plainly()  # writes the files, and starts a device
    made, made_plainly = setting.medians(one.generate, one.generate_plainly)
    yield Item("IDEAL, generation of a batch", unit, made, made_plainly, "ratio >= 2")
    kept, views, plain = setting.medians(one.train, one.train_on_views, one.train_plainly)
    note = "labels kept; the plain version asks again"
    yield Item(f"IDEAL, pass over {size}", unit, kept, plain, "ratio >= 5", note)
    yield Item(f"IDEAL, pass over {size}, every view asked", unit, views, plain)
    drawn, drawn_plainly = setting.medians(one.draw, one.draw_plainly)
    note = "the rest is the student's own step, which no version can leave out"
    yield Item("IDEAL, the same pass without the student's steps", unit, drawn, drawn_plainly, "", note)
    yield Item("IDEAL, whole round", unit, made + kept, made_plainly + plain, "ratio >= 20" if gpu else "")
