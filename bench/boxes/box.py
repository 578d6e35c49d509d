"""What answers: the door to a teacher, and how well any network does on a split."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.tasks.data.sources import Split


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
