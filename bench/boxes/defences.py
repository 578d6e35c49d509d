"""Teachers that defend themselves: their answers are not quite what they think. `mnist-lenet5+flips-0.9` is a task.

    rounding-D   probabilities rounded to D decimals
    noise-S      noise of standard deviation S added to each probability; the same for the same image
    flips-T      the second class in place of the first, where the first has a probability below T: an unusual image

Each is a function of the image alone, so that an answer is the same whenever it is asked for, and after a restart.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.tasks.table import Task, task_of

SEED = 35_000  # of the numbers that tell images apart
Ask = Callable[[Tensor], Tensor]


def defended(ask: Ask, defence: str) -> Ask:
    """The black box, float images N x C x H x W in [0, 1] -> probabilities N x K, with the defence between, if any."""
    if not defence:
        return ask
    kind, strength = parse(defence)
    change = {"rounding": _rounded, "noise": _noised, "flips": _flipped}[kind]
    return lambda images: change(ask(images), images, strength)


def defended_task(name: str) -> Task:
    """The task of that name; UsageError for an unknown one, and for a defence that there is not."""
    task = task_of(name)
    if task.defence:
        parse(task.defence)
    return task


def parse(defence: str) -> tuple[str, float]:
    """The kind and the strength of a defence; UsageError for none that there is."""
    kind, _, number = defence.partition("-")
    try:
        strength = float(number)
    except ValueError:
        strength = -1.0
    fits = {"rounding": strength in range(7), "noise": 0 < strength <= 1, "flips": 0 < strength <= 1}
    if not fits.get(kind, False):
        raise UsageError(f"defence {defence!r}: wanted rounding-D, noise-S or flips-T, such as noise-0.1")
    return kind, strength


def _rounded(probs: Tensor, images: Tensor, decimals: float) -> Tensor:  # noqa: ARG001 - the shape of all defences
    rounded = probs.round(decimals=int(decimals))
    return rounded / rounded.sum(dim=1, keepdim=True).clamp(min=torch.finfo(probs.dtype).tiny)


def _noised(probs: Tensor, images: Tensor, deviation: float) -> Tensor:
    moved = (probs + deviation * _noise_of(images, probs.shape[1])).clamp(min=0)
    empty = moved.sum(dim=1, keepdim=True) == 0
    return torch.where(empty, probs, moved) / torch.where(empty, 1.0, moved.sum(dim=1, keepdim=True))


def _flipped(probs: Tensor, images: Tensor, threshold: float) -> Tensor:  # noqa: ARG001 - the shape of all defences
    (first, second), places = (found.T for found in probs.topk(2, dim=1))
    swapped = probs.scatter(1, places.T, torch.stack([second, first], dim=1))
    return torch.where((first < threshold)[:, None], swapped, probs)


def _noise_of(images: Tensor, classes: int) -> Tensor:
    """Normal noise N x K, drawn by the image's 8-bit content: whole numbers, so that every machine draws the same."""
    grey = images.mul(255).round().long().flatten(1).cpu()
    factors = torch.randint(1, 2**31, (grey.shape[1], classes), generator=torch.Generator().manual_seed(SEED))
    mixed = (grey[:, :, None] * factors).sum(dim=1) if classes * grey.numel() < 2**27 else _mixed(grey, factors)
    return _normal(_scrambled(mixed)).to(images.device, torch.float32)


def _mixed(grey: Tensor, factors: Tensor) -> Tensor:
    """The same sums, an image at a time, where all at once would not fit into memory."""
    return torch.stack([(row[:, None] * factors).sum(dim=0) for row in grey])


def _scrambled(numbers: Tensor) -> Tensor:
    """Numbers in [0, 1) that look random: shifted, multiplied and cut to 31 bits, twice."""
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0x7FFFFFFF
    return (numbers ^ (numbers >> 15)).double() / 2**31


def _normal(uniform: Tensor) -> Tensor:
    normal: Tensor = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
    return normal
