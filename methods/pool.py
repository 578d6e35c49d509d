"""The pool: images that were asked about, kept in 8 bits beside their answers, to be learned from again."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from methods.images import as_floats, as_pixels, beside, fetch, home_of


class Pool:
    """Images, 8 bits a channel as they were sent, and the answers kept for them: all, or the last ones alone.

    An image that is in stays as it is, so the runner saves each once, however often it saves the pool.

    room: how many there will be, if that is known. Memory for so many is taken at the first, and a pool that outgrows
        it moves to twice as much. forgets: whether instead the oldest make place for those above `room`.
    added: how many were taken in since the start.
    """

    def __init__(self, room: int = 0, *, forgets: bool = False) -> None:
        self._room, self._forgets = room, forgets
        self._kept: dict[str, Tensor] = {}  # images and answers, the i-th added in place i, or i modulo `room`
        self._size = 0  # places that there are
        self._device = torch.device("cpu")
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self._room) if self._forgets else self.added

    @property
    def bytes_each(self) -> int:
        """What an image takes with its answer; 0 before the first."""
        return sum(_width(kept) for kept in self._kept.values())

    def add(self, images: Tensor, answers: Tensor | None = None) -> None:
        """Append float images on the 8-bit grid (see `to_8_bits`), with or always without answers."""
        rows = {"images": as_pixels(images)} | ({} if answers is None else {"answers": answers})
        self._append({name: part[-self._room :] for name, part in rows.items()} if self._forgets else rows)

    def batches(self, size: int, rng: Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One pass over the pool in random order: float images in [0, 1] and their answers, in `batch_sizes`."""
        order = self._order(rng)
        for index in order.split(batch_sizes(len(order), size)):
            yield self._at(index)

    def sample(self, size: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """`size` float images in [0, 1], or all if there are fewer, drawn without repeats, and their answers."""
        images, answers = self._at(self._order(rng)[:size])
        assert answers is not None, "images are drawn with their answers"
        return images, answers

    def state_dict(self, start: int = 0, stop: int | None = None) -> dict[str, Any]:
        """Copies of what was added from the start-th image to the stop-th, as far as it is still there."""
        start, stop = max(start, self.added - len(self)), self.added if stop is None else stop
        spans = list(self._spans(start, stop))
        return {"start": start} | {
            name: torch.cat([kept[:0], *(kept[span] for span in spans)]) for name, kept in self._kept.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what was added from some image on; those before it stay."""
        self.added = state_dict["start"]
        rows = {name: part for name, part in state_dict.items() if name != "start"}
        if rows:
            self._append(rows)

    def _order(self, rng: Generator) -> Tensor:
        """All places in random order, where they are looked up."""
        order = torch.randperm(len(self), generator=rng, device=rng.device)
        return beside(order, self._kept["images"]) if self._kept else order

    def _at(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        found = {name: fetch(kept, index, self._device) for name, kept in self._kept.items()}
        return as_floats(found["images"]), found.get("answers")

    def _append(self, rows: dict[str, Tensor]) -> None:
        n, done = len(rows["images"]), 0
        self._make_room(self._room if self._forgets else self.added + n, rows)
        for span in self._spans(self.added, self.added + n):
            count = span.stop - span.start
            for name, part in rows.items():
                self._kept[name][span] = part[done : done + count]
            done += count
        self.added += n

    def _make_room(self, wanted: int, rows: dict[str, Tensor]) -> None:
        """Places for so many such rows; each is moved at most once for each doubling, and none if `room` was right."""
        if self._kept and wanted <= self._size:
            return
        self._size, self._device = max(wanted, self._room, 2 * self._size), rows["images"].device
        home = home_of(self._size * sum(_width(part) for part in rows.values()), self._device)
        for name, part in rows.items():
            larger = torch.empty(self._size, *part.shape[1:], dtype=part.dtype, device=home)
            if name in self._kept:
                larger[: self.added] = self._kept[name][: self.added]
            self._kept[name] = larger

    def _spans(self, start: int, stop: int) -> Iterator[slice]:
        """The places of the start-th image to the stop-th: one stretch, or several where a full pool begins anew."""
        while start < stop:
            place = start % self._size
            count = min(stop - start, self._size - place)
            yield slice(place, place + count)
            start += count


def _width(kept: Tensor) -> int:
    """Bytes of one row."""
    return kept.element_size() * kept.shape[1:].numel()


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
