"""The figures of a round, fetched from where they are all at once: a GPU has to finish its work for each fetch."""

import torch
from torch import Tensor


def figures(**measured: Tensor) -> dict[str, float]:
    """Tensors of one number each, of one type, as Python's numbers under the same names."""
    values = torch.stack([value.detach() for value in measured.values()])
    return dict(zip(measured, values.tolist(), strict=True))
