"""What a GPU does not do the same way twice: sums whose order is left to chance, by torch's own list of them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support import CPU
from syncs import rounds_of
from test_networks import CIFAR, FITTING
from test_syncs import SETTINGS
from torch.utils._python_dispatch import TorchDispatchMode

from bench.tasks import networks
from bench.tasks.networks import Shape
from methods import METHODS

# Of the documentation of torch.use_deterministic_algorithms, what this code could come to use. Convolutions are on that
# list too, but cuDNN has others that repeat (bench/provenance.py).
OPERATIONS = {
    *("grid_sampler_2d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "reflection_pad2d_backward"),
    *("replication_pad2d_backward", "embedding_dense_backward", "scatter_add", "scatter_add_", "scatter_reduce"),
    *("index_add", "index_add_", "index_copy", "put_", "histc", "median", "nll_loss2d_forward", "cumsum"),
}

# Method -> what of that it uses; none of the others uses any.
UNREPEATABLE = {"qedg": {"grid_sampler_2d_backward"}}  # its generator learns through a rotation of the images


class Seen(TorchDispatchMode):
    """Notes which of the operations come by, among floats."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        if name in OPERATIONS and args[0].is_floating_point():
            self.names.add(name)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self:
            yield

    def take(self) -> Counter[str]:
        return Counter()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_uses_no_operation_that_does_not_repeat_but_those_that_are_told(method: str) -> None:
    seen = Seen()
    rounds_of(METHODS[method], SETTINGS[method], METHODS[method].ANSWERS[0], seen, CPU, queries=60)
    assert seen.names == UNREPEATABLE.get(method, set())


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shape in FITTING if shape == CIFAR])
def test_no_network_uses_one(name: str, shape: Shape) -> None:
    network, seen = networks.build(name, shape, 7), Seen()
    with seen:
        network(torch.rand(2, *shape)).sum().backward()
    assert not seen.names


def test_one_that_is_used_is_seen() -> None:
    images, seen = torch.rand(1, 1, 4, 4, requires_grad=True), Seen()
    with seen:
        torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear").sum().backward()
        torch.ones(3, dtype=torch.int64).cumsum(dim=0)
    assert seen.names == {"upsample_bilinear2d_backward"}
