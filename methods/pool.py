"""The label-once pool: images asked about once, kept in 8 bits beside their answers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor


class Pool:
    """Images, 8 bits a channel as they were sent, and the answers kept for them."""

    def __init__(self) -> None:
        self._images: list[Tensor] = []
        self._answers: list[Tensor] = []

    def __len__(self) -> int:
        return sum(len(images) for images in self._images)

    def add(self, images: Tensor, answers: Tensor | None = None) -> None:
        """Append float images on the 8-bit grid (see `to_8_bits`), with or always without answers."""
        self._images.append(images.mul(255).round().to(torch.uint8))
        if answers is not None:
            self._answers.append(answers)

    def batches(self, size: int, rng: Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One pass over the pool in random order: float images in [0, 1] and their answers, in `batch_sizes`."""
        images, answers = self._joined()
        order = torch.randperm(len(images), generator=rng, device=images.device)
        for index in order.split(batch_sizes(len(images), size)):
            yield images[index].float().div(255), None if answers is None else answers[index]

    def _joined(self) -> tuple[Tensor, Tensor | None]:
        self._images = [torch.cat(self._images)]
        self._answers = [torch.cat(self._answers)] if self._answers else []
        return self._images[0], self._answers[0] if self._answers else None

    def state_dict(self) -> dict[str, Any]:
        return {"images": list(self._images), "answers": list(self._answers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images, self._answers = list(state_dict["images"]), list(state_dict["answers"])


def batch_sizes(n: int, size: int) -> list[int]:
    """How n images part into batches of `size` and a last, smaller one.

    An image left over alone joins the batch before it: batch norm may not train on one image, and how many are left
    over is chance.
    """
    sizes = [size] * (n // size) + [n % size] * (n % size > 0)
    return [*sizes[:-2], size + 1] if n > size and n % size == 1 else sizes


def to_8_bits(images: Tensor) -> Tensor:
    """Round float images in [0, 1] to the nearest of 256 levels, as an 8-bit image file would."""
    return images.detach().mul(255).round().div(255)
