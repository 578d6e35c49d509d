"""Images kept in 8 bits a channel, a quarter of what floats take, and where they are kept."""

import torch
from torch import Tensor

SHARE = 2  # what is kept on a GPU takes at most one part in so many of the memory that is free there
HOST = torch.device("cpu")


class Images:
    """N images C x H x W that are read as floats in [0, 1], on the device: `images[index]`, which is always a copy.

    kept: uint8. device: where what is read arrives.
    """

    def __init__(self, kept: Tensor, device: torch.device) -> None:
        self._kept = kept.to(home_of(kept.nbytes, device))
        self._device = device

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def shape(self) -> torch.Size:
        """N, C, H, W."""
        return self._kept.shape

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        return as_floats(fetch(self._kept, index, self._device))


def home_of(size: int, device: torch.device) -> torch.device:
    """Where so many bytes are kept that a method on the device reads in batches: there, or on the host where a GPU has
    too little free."""
    if device.type != "cuda":
        return device
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return device if size <= free // SHARE else HOST


def fetch(kept: Tensor, index: Tensor | slice | int, device: torch.device) -> Tensor:
    """`kept[index]` on the device; from the host by way of page-locked memory, so that nobody waits for the copy."""
    found = kept[beside(index, kept) if isinstance(index, Tensor) else index]
    return found if kept.device.type == device.type else found.pin_memory().to(device, non_blocking=True)


def beside(index: Tensor, kept: Tensor) -> Tensor:
    """The index where the images are; where it is there already, nothing is done."""
    return index if index.device.type == kept.device.type else index.to(kept.device)


def as_floats(pixels: Tensor) -> Tensor:
    """Floats in [0, 1] of the 256 levels."""
    return pixels.float().div(255)


def as_pixels(images: Tensor) -> Tensor:
    """uint8, the nearest of 256 levels, of floats in [0, 1]."""
    return images.detach().mul(255).round().to(torch.uint8)
