"""Experience replay: images of earlier rounds and their answers, to be learned from again without a query."""

from typing import Any

import torch
from torch import Generator, Tensor


class Replay:
    """The last `capacity` images, 8 bits a channel as they were sent, and the answers kept for them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._added = 0
        self._images = torch.empty(0, dtype=torch.uint8)
        self._answers = torch.empty(0)

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(self, images: Tensor, answers: Tensor) -> None:
        """Store float images on the 8-bit grid (see `to_8_bits`), in a full memory in place of the oldest."""
        images, answers = images[-self.capacity :], answers[-self.capacity :]
        if self._added == 0:
            self._reserve(images, answers)
        slots = torch.arange(self._added, self._added + len(images), device=images.device) % self.capacity
        self._images[slots] = images.mul(255).round().to(torch.uint8)
        self._answers[slots] = answers
        self._added += len(images)

    def sample(self, size: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """`size` float images in [0, 1], or all if there are fewer, drawn without repeats, and their answers."""
        index = torch.randperm(len(self), generator=rng, device=self._images.device)[:size]
        return self._images[index].float().div(255), self._answers[index]

    def _reserve(self, images: Tensor, answers: Tensor) -> None:
        """Room for all at once, so that no round copies what is there."""
        self._images = images.new_empty(self.capacity, *images.shape[1:], dtype=torch.uint8)
        self._answers = answers.new_empty(self.capacity, *answers.shape[1:])

    def state_dict(self) -> dict[str, Any]:
        filled = slice(len(self))
        return {"added": self._added, "images": self._images[filled].clone(), "answers": self._answers[filled].clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        images, answers = state_dict["images"], state_dict["answers"]
        self._reserve(images, answers)
        self._images[: len(images)], self._answers[: len(images)] = images, answers
        self._added = state_dict["added"]
