"""Gradients that are estimated from answers are differences over 1e-5 a pixel: they need true float32."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from slopes import correlation, networks, some_maps
from support import CPU
from torch import Tensor, nn

from bench.cells.cell import Cell
from bench.errors import UsageError
from bench.provenance import precision, set_precision
from budgets import Budget
from methods import METHODS, dfme, inputs_of, maze

IMAGES = 200


def in_tf32(values: Tensor) -> Tensor:
    """Rounded to the 10 bits of mantissa that a tensor core reads, with the gradient of float32."""
    bits = values.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    return values + (rounded - values).detach()


def emulate_tf32(network: nn.Module) -> nn.Module:
    """Let the convolutions of the network read inputs and weights as a GPU with TF32 does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = in_tf32(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: (in_tf32(inputs[0]),))
    return network


@pytest.mark.parametrize("method", [dfme, maze])
def test_slopes_are_true_in_float32_and_noise_in_tf32(method: ModuleType) -> None:
    maps = some_maps(IMAGES, CPU)
    assert correlation(method, networks(CPU), maps) > 0.95
    teacher, student = map(emulate_tf32, networks(CPU))
    assert correlation(method, (teacher, student), maps) < 0.5


@pytest.mark.parametrize("method", [dfme, maze])
def test_slopes_are_noise_where_images_are_rounded_to_8_bits_so_such_methods_do_not_send_them(
    method: ModuleType,
) -> None:
    assert correlation(method, networks(CPU), some_maps(IMAGES, CPU), "uint8") < 0.5
    assert inputs_of(method) == ("float",)
    with pytest.raises(UsageError, match="cannot work with uint8 images"):
        Cell("digits-lenet", method.__name__.rpartition(".")[2], "{}", Budget(100, "probs", "uint8"), 0, "a")


def test_every_other_method_can_send_what_a_real_api_takes() -> None:
    assert [name for name in METHODS if "uint8" not in inputs_of(METHODS[name])] == ["dfme", "maze", "zsdb3kd"]


@pytest.fixture
def rounding_allowed() -> Iterator[None]:
    """As torch comes: convolutions may be rounded, and add up in any order."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.deterministic = False
    yield
    set_precision()


@pytest.mark.usefixtures("rounding_allowed")
def test_the_guard_turns_off_what_torch_allows() -> None:
    assert precision() == "tf32"
    set_precision()
    assert precision() == "float32"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
