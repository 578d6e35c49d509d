"""The count of different images: that of a plain set, whatever comes in what order, also after a restart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budgets.distinct import Distinct, hashes, hashes_on_device

SHAPE = (1, 2, 2)


def images_of(numbers: list[int]) -> torch.Tensor:
    """An image for each number, another for another number."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, *SHAPE).contiguous()


batches = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=40), min_size=1, max_size=20)


@given(batches=batches, cut=st.integers(0, 20))
def test_the_count_is_that_of_a_set_also_when_it_goes_on_elsewhere(batches: list[list[int]], cut: int) -> None:
    most, seen = sum(map(len, batches)), set[int]()
    counter = Distinct(most)
    for place, batch in enumerate(batches):
        if place == cut:
            other = Distinct(most)
            other.load_state_dict(counter.state_dict())
            counter = other
        counter.add(images_of(batch))
        seen.update(batch)
        assert len(counter) == len(seen)


def test_a_table_that_is_as_full_as_it_may_be_still_counts_right() -> None:
    rng, most = np.random.default_rng(0), 50_000
    counter = Distinct(most)
    every = rng.integers(0, 2**64, most, dtype=np.uint64)
    for batch in np.array_split(np.concatenate([every, rng.permutation(every)]), 300):
        counter._insert(batch)
    assert len(counter) == most


def test_marks_that_belong_at_the_last_places_go_on_at_the_first() -> None:
    counter = Distinct(100)
    counter._insert((np.uint64(2**32 - 1) << np.uint64(32)) + np.arange(1, 90, dtype=np.uint64))
    assert len(counter) == 89


@pytest.mark.parametrize("made", [hashes, hashes_on_device])
def test_images_that_differ_in_one_bit_anywhere_have_other_hashes(made: object) -> None:
    images = torch.zeros(1 + 3 * 32 * 8, 3, 4, 8, dtype=torch.uint8)
    for bit in range(3 * 32 * 8):
        images[bit + 1].view(-1)[bit // 8] ^= 1 << (bit % 8)
    for kind in (images, images.float()):
        found = torch.from_numpy(made(kind).view(np.int64)) if made is hashes else made(kind)  # type: ignore[operator]
        assert len(found.unique()) == len(images)
        again = made(kind.clone())  # type: ignore[operator]
        assert torch.equal(torch.as_tensor(np.asarray(again).view(np.int64)), found)


def test_a_count_of_another_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="a table of 176 places: wanted 336"):
        Distinct(200).load_state_dict(Distinct(100).state_dict())


def test_the_table_of_twenty_million_images_is_small() -> None:
    assert Distinct(20_000_000).state_dict()["marks"].nbytes < 130e6
