"""Images in 8 bits: read as the floats they stand for, and kept where there is room for them."""

import pytest
import torch
from support import CPU

from methods import images
from methods.images import HOST, Images, as_pixels, home_of

GPU = torch.device("cuda")


def pixels(n: int = 20) -> torch.Tensor:
    return torch.randint(256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("index", [torch.tensor([3, 3, 0, 19]), slice(2, 9), slice(None), 5], ids=str)
def test_what_is_read_is_bit_for_bit_what_floats_would_have_given(index: torch.Tensor | slice | int) -> None:
    kept = pixels()
    read = Images(kept, CPU)
    assert torch.equal(read[index], kept.float().div(255)[index])
    assert (len(read), read.shape) == (20, kept.shape)


def test_changing_what_was_read_changes_nothing() -> None:
    kept = pixels()
    read = Images(kept, CPU)
    read[:].zero_()
    read[torch.arange(5)].mul_(0.5)
    assert torch.equal(read[:], kept.float().div(255))


def test_all_256_levels_are_the_same_once_they_were_floats() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert torch.equal(as_pixels(Images(levels, CPU)[:]), levels)


@pytest.mark.parametrize(
    ("size", "home"), [(6_000, GPU), (6_001, HOST)], ids=["half of what is free", "more than half of it"]
)
def test_what_would_take_more_than_half_of_a_gpus_free_memory_is_kept_on_the_host(
    monkeypatch: pytest.MonkeyPatch, size: int, home: torch.device
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10_000, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 5_000)  # by torch, of which it uses
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3_000)
    assert home_of(size, GPU) == home
    assert home_of(size, CPU) == CPU
    assert images.SHARE == 2
