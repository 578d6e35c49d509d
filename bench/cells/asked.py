"""What the teacher was asked: the last images, for the report to show, and a fair sample with its answers, on which one
sees whether a student learnt what it paid for."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from budgets.answers import NOTHING, Answers, cut, kind_of, top_1
from results.store import write_bytes

SHOWN = 16
KEPT = 500  # images: the standard error of a share is at most 2.2 points
SEED = 30_000  # of what is kept: the randomness of methods knows nothing of it


class Asked:
    """The teacher, remembering some of what it was asked and answered.

    reveals: as the budget has it; only that is looked at, so that a black box in another process shows the same. Of all
    images sent so far, each is as likely as any other to be among the KEPT.
    """

    def __init__(self, teacher: Callable[[Tensor], Tensor], reveals: Answers = "probs") -> None:
        self._teacher, self._reveals = teacher, reveals
        self._partial = kind_of(reveals) == "partial"  # in which an answer may lack everything
        self._latest: list[Tensor] = []
        self._rng = torch.Generator().manual_seed(SEED)
        self._keys, self._images, self._labels = torch.empty(0), torch.empty(0), torch.empty(0)

    def __call__(self, images: Tensor) -> Tensor:
        """What it answers to float images N x C x H x W in [0, 1]."""
        some = images.detach()[:: max(1, len(images) // SHOWN)][:SHOWN].clone()
        self._latest = [*self._latest, *some][-SHOWN:]
        answers = cut(self._teacher(images), self._reveals)
        self._keep(images.detach(), top_1(answers))
        return answers

    def measure(self, student: nn.Module) -> dict[str, float]:
        """`fitted`: the share of the kept images on which a student in eval mode has the teacher's top-1; `commonest`:
        that of the commonest answer, which a student reaches that has learnt nothing. Nothing, where nothing was ever
        revealed."""
        if not len(self._labels):
            return {}
        with torch.no_grad():
            fitted = (student(self._images).argmax(dim=1) == self._labels).double().mean().item()
        return {"fitted": fitted, "commonest": self._labels.bincount().max().item() / len(self._labels)}

    def save(self, path: Path) -> None:
        """Write the last images side by side as a PNG; nothing, if the teacher was not asked since the start."""
        if not self._latest:
            return
        strip = torch.cat(self._latest, dim=2).mul(255).round().to(torch.uint8).cpu()
        picture = Image.fromarray(strip[0].numpy() if len(strip) == 1 else strip.permute(1, 2, 0).numpy())
        picture.save(buffer := io.BytesIO(), "PNG")
        write_bytes(path, buffer.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """The sample, to be carried over a restart."""
        return {"rng": self._rng.get_state(), "keys": self._keys, "images": self._images, "labels": self._labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rng.set_state(state["rng"].cpu())
        self._keys, self._images, self._labels = state["keys"].cpu(), state["images"], state["labels"]

    def _keep(self, images: Tensor, labels: Tensor) -> None:
        """Give each image of which anything was revealed a random key; those of the highest keys stay. The keys are
        drawn on the CPU, so that what stays is known there, and hardly anything is copied once many were seen."""
        keys = torch.rand(len(images), generator=self._rng)
        if self._partial:  # only then a GPU has to tell how much it revealed
            keys = keys.masked_fill(labels.cpu() == NOTHING, -1.0)
        lowest = self._keys.min() if len(self._keys) == KEPT else torch.tensor(-1.0)
        (new,) = torch.where(keys > lowest)
        if not len(new):
            return
        at = new.to(images.device, non_blocking=True)
        parts = (self._keys, keys[new]), (self._images, images[at]), (self._labels, labels[at])
        all_keys, all_images, all_labels = (torch.cat([old, more]) if len(old) else more for old, more in parts)
        best = all_keys.topk(min(KEPT, len(all_keys))).indices
        there = best.to(images.device, non_blocking=True)
        self._keys, self._images, self._labels = all_keys[best], all_images[there], all_labels[there]
