"""The pool: what was sent is what is kept, and an answer never leaves its image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.pool import Pool, batch_sizes, to_8_bits

UNHURRIED = settings(deadline=None, derandomize=True)  # a busy machine is no failure
LEVELS = torch.arange(256)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*levels: int) -> tuple[Tensor, Tensor]:
    """Images of one pixel at these of the 256 levels, and the levels as their answers."""
    return torch.tensor(levels).view(-1, 1, 1, 1) / 255, torch.tensor(levels)


def test_all_256_levels_come_back_exactly_as_they_went_in() -> None:
    pool = Pool()
    images = to_8_bits(LEVELS.view(-1, 1, 1, 1) / 255)
    pool.add(images)
    ((kept, answers),) = pool.batches(256, rng())
    assert answers is None
    assert torch.equal(kept.flatten().sort().values, images.flatten())


@UNHURRIED
@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_rounding_goes_to_the_nearest_level_and_a_second_time_changes_nothing(values: list[float]) -> None:
    images = torch.tensor(values).view(-1, 1, 1, 1)
    rounded = to_8_bits(images)
    assert (rounded - images).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(to_8_bits(rounded), rounded)
    assert torch.isin(rounded, LEVELS / 255).all()


def test_rounded_images_carry_no_gradient() -> None:
    assert not to_8_bits(torch.rand(2, 1, 2, 2, requires_grad=True)).requires_grad


@UNHURRIED
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), size=st.integers(1, 12), seeds=st.integers(0, 99))
def test_in_every_pass_each_image_comes_once_and_its_answer_with_it(sizes: list[int], size: int, seeds: int) -> None:
    pool, start = Pool(), 0
    for n in sizes:
        pool.add(*batch(*range(start, start + n)))
        start += n
    for seed in (seeds, seeds + 1):
        passed = list(pool.batches(size, rng(seed)))
        answers = torch.cat([given for _, given in passed if given is not None])
        assert torch.equal(torch.cat([images for images, _ in passed]).flatten(), answers / 255)
        assert sorted(answers.tolist()) == list(range(start))
        assert [len(images) for images, _ in passed] == batch_sizes(start, size)
    assert len(pool) == start


@UNHURRIED
@given(n=st.integers(0, 60), size=st.integers(1, 12))
def test_batches_are_what_a_plain_split_gives_but_where_one_image_would_be_left_alone(n: int, size: int) -> None:
    plain = [len(part) for part in torch.arange(n).split(size)] if n else []
    if size > 1 and n > 1 and plain[-1] == 1:
        assert batch_sizes(n, size) == [*plain[:-2], size + 1]
    else:
        assert batch_sizes(n, size) == plain


def test_the_order_changes_from_pass_to_pass_and_comes_from_the_generator() -> None:
    pool = Pool()
    pool.add(*batch(*range(50)))
    first, again, other = (torch.cat([images for images, _ in pool.batches(50, rng(seed))]) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_added_after_a_pass_are_in_the_next() -> None:
    pool = Pool()
    pool.add(*batch(1, 2))
    list(pool.batches(10, rng()))
    pool.add(*batch(3))
    ((_, answers),) = pool.batches(10, rng())
    assert answers is not None
    assert sorted(answers.tolist()) == [1, 2, 3]


def test_probabilities_are_kept_as_they_were_answered() -> None:
    pool, probs = Pool(), torch.rand(5, 10, generator=rng()).softmax(dim=1)
    pool.add(batch(*range(5))[0], probs)
    ((images, answers),) = pool.batches(5, rng(1))
    assert answers is not None
    assert torch.equal(answers, probs[(images.flatten() * 255).round().long()])


def test_changing_a_batch_changes_nothing_in_the_pool() -> None:
    pool, (images, answers) = Pool(), batch(7, 8)
    pool.add(images, answers)
    images.fill_(0)
    for batch_images, _ in pool.batches(1, rng()):
        batch_images.fill_(0)
    ((kept, _),) = pool.batches(2, rng())
    assert sorted((kept * 255).round().flatten().tolist()) == [7, 8]


@pytest.mark.parametrize("answered", [True, False])
def test_a_restored_pool_goes_on_where_the_saved_one_was(answered: bool) -> None:
    pool, restored = Pool(), Pool()
    for part in (batch(1, 2, 3), batch(4)):
        pool.add(part[0], part[1] if answered else None)
    saved = pool.state_dict()
    restored.load_state_dict(saved)
    for either in (pool, restored):
        either.add(batch(5)[0], batch(5)[1] if answered else None)
    for (images, answers), (same, same_answers) in zip(pool.batches(2, rng()), restored.batches(2, rng()), strict=True):
        assert torch.equal(images, same)
        assert (answers is None) == (same_answers is None) == (not answered)
    assert len(pool) == len(restored) == 5
    assert len(saved["images"]) == 4  # what was saved does not grow with the pool


def test_an_empty_pool_can_be_saved_and_restored() -> None:
    restored = Pool()
    restored.load_state_dict(Pool().state_dict())
    assert len(restored) == 0


@UNHURRIED
@given(room=st.integers(0, 40), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), size=st.integers(1, 12))
def test_a_pool_is_the_same_however_much_room_it_was_said_to_need(room: int, sizes: list[int], size: int) -> None:
    passes = []
    for pool in (Pool(), Pool(room)):
        for n in sizes:
            pool.add(*batch(*range(len(pool), len(pool) + n)))
        passes.append(torch.cat([answers for _, answers in pool.batches(size, rng()) if answers is not None]).tolist())
    assert passes[0] == passes[1]
    assert sorted(passes[0]) == list(range(sum(sizes)))


def test_a_pass_goes_on_over_what_was_there_while_more_is_added() -> None:
    pool = Pool(3)
    pool.add(*batch(1, 2, 3))
    seen = []
    for images, answers in pool.batches(1, rng()):
        assert answers is not None
        assert torch.equal(images.flatten(), answers / 255)
        seen += answers.tolist()
        pool.add(*batch(4, 5, 6, 7))
    assert sorted(seen) == [1, 2, 3]


def test_a_pass_over_an_empty_pool_is_over_at_once() -> None:
    assert list(Pool().batches(5, rng())) == []
