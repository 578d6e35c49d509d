"""How many different images there were: a table of 32-bit marks that is as large as the budget asks for.

An image is known by a 64-bit hash of its bytes. The upper half of the hash says where in the table its mark is looked
for first, the lower half is the mark. Two different images are taken for one only where marks and places agree: with
20 million images the expected number of such mistakes is below 0.02.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

Hashes = NDArray[np.uint64]
ROOM = 1.6  # places an image: fuller tables make longer searches
LARGEST = 2**28  # images; memory is taken as they come


class Distinct:
    """Counts different images among at most `most`, in 6.4 bytes each; OverflowError where the table is full.

    On a GPU the hash is another than on the CPU, so that a count cannot go on on another kind of device.
    """

    def __init__(self, most: int) -> None:
        self._marks = np.zeros(int(ROOM * min(most, LARGEST)) + 16, dtype=np.uint32)  # 0: nothing there yet
        self._count = 0
        self._waiting: list[tuple[Tensor, torch.cuda.Event]] = []

    def add(self, sent: Tensor) -> None:
        """Take in images N x C x H x W by their bytes; those on a GPU are hashed there, and nobody waits for it."""
        if not sent.is_cuda:
            self._insert(hashes(sent))
            return
        copied = hashes_on_device(sent).to("cpu", non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        self._waiting.append((copied, done))

    def __len__(self) -> int:
        for copied, done in self._waiting:
            done.synchronize()
            self._insert(copied.numpy().view(np.uint64))
        self._waiting.clear()
        return self._count

    def state_dict(self) -> dict[str, Any]:
        return {"count": len(self), "marks": torch.from_numpy(self._marks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over that table, not a copy; ValueError for one of another size, which is of another budget."""
        marks = state["marks"].cpu().numpy()
        if marks.shape != self._marks.shape:
            raise ValueError(f"a table of {len(marks):,} places: wanted {len(self._marks):,}, for this budget")
        self._marks, self._count = marks, state["count"]

    def _insert(self, found: Hashes) -> None:
        """Put marks into the first free place from where they belong, all of them a step at a time."""
        found = np.unique(found)
        if self._count + len(found) >= len(self._marks):
            raise OverflowError(f"more than {self._count:,} different images: the table is full")
        size = np.uint64(len(self._marks))
        places = ((found >> np.uint64(32)) * size >> np.uint64(32)).astype(np.int64)
        marks = np.maximum(found.astype(np.uint32), 1)
        while len(places):
            there = self._marks[places]
            free = there == 0
            self._marks[places[free]] = marks[free]
            won = free & (self._marks[places] == marks)  # of several that want one place the last one has it
            self._count += int(won.sum())
            on = ~won & (there != marks)
            places, marks = places[on] + (~free[on]), marks[on]
            places[places == size] = 0


def hashes(sent: Tensor) -> Hashes:
    """A 64-bit hash of each image's bytes, of images on the CPU."""
    pixels = memoryview(sent.detach().contiguous().numpy().reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    width, digest = len(pixels) // len(sent), xxhash.xxh3_64_intdigest
    each = (digest(pixels[at : at + width]) for at in range(0, len(pixels), width))
    return np.fromiter(each, dtype=np.uint64, count=len(sent))


def hashes_on_device(sent: Tensor) -> Tensor:
    """A 64-bit hash of each image, int64 of N, where the images are: random multiples of its words, summed modulo 2^64,
    and the sum scrambled."""
    words = sent.detach().contiguous().flatten(1)
    words = words.view(torch.int32) if words.dtype == torch.float32 else words
    mixed = (words.long() * _factors(words.shape[1], words.device)).sum(dim=1)
    for shift, factor in ((33, -0xAE502812AA7333), (29, -0x3B314601E57A13AD)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return mixed ^ ((mixed >> 32) & 0xFFFFFFFF)


@cache
def _factors(words: int, device: torch.device) -> Tensor:
    """Odd random numbers, one for each word of an image, sent to the device once."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (words,), generator=random).to(device) * 2 + 1
