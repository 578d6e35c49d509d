"""Some of the images that a method sends, for the report to show."""

import io
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from results.store import write_bytes

COUNT = 16


class Samples:
    """The teacher, remembering some of the images it was last sent."""

    def __init__(self, teacher: Callable[[Tensor], Tensor]) -> None:
        self._teacher = teacher
        self._latest: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        some = images.detach()[:: max(1, len(images) // COUNT)][:COUNT].clone()
        self._latest = [*self._latest, *some][-COUNT:]
        return self._teacher(images)

    def save(self, path: Path) -> None:
        """Write the images side by side as a PNG; nothing, if the teacher was not asked since the start."""
        if not self._latest:
            return
        strip = torch.cat(self._latest, dim=2).mul(255).round().to(torch.uint8).cpu()
        picture = Image.fromarray(strip[0].numpy() if len(strip) == 1 else strip.permute(1, 2, 0).numpy())
        picture.save(buffer := io.BytesIO(), "PNG")
        write_bytes(path, buffer.getvalue())
