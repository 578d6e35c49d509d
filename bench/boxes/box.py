"""What answers: a teacher, which normalises inside itself; the door to it; and how well any network does on a split."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.tasks.data.sources import Split


class Teacher(nn.Module):
    """A network behind its normalisation: float images N x C x H x W in [0, 1] -> logits N x K."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def black_box(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network as an oracle sees it: images in, probabilities N x K out, no gradient."""

    def ask(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = network(images)
            return logits.softmax(dim=1)

    return ask


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Top-1 classes, int64 of N, of uint8 images N x C x H x W, by a network in eval mode."""
    return torch.cat([network(batch.float().div(255)).argmax(dim=1) for batch in images.split(batch_size)])


def accuracy(network: nn.Module, split: Split) -> float:
    """Share of the split on which the network has the true label."""
    return (predict(network, split.images) == split.labels).double().mean().item()
