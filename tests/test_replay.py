"""The replay memory: first in, first out, drawn without repeats, whole after a restart."""

import torch
from torch import Tensor

from methods.pool import Pool


def batch(*levels: int) -> tuple[Tensor, Tensor]:
    """Images of one pixel at these of the 256 levels, and the levels as their answers."""
    return torch.tensor(levels).view(-1, 1, 1, 1) / 255, torch.tensor(levels)


def held(memory: Pool) -> list[int]:
    images, answers = memory.sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(images.flatten(), answers / 255)
    return sorted(answers.tolist())


def test_a_full_memory_forgets_the_oldest_first() -> None:
    memory = Pool(4, forgets=True)
    memory.add(*batch(1, 2, 3))
    assert held(memory) == [1, 2, 3]
    memory.add(*batch(4, 5, 6))
    assert held(memory) == [3, 4, 5, 6]
    assert len(memory) == 4


def test_of_a_batch_larger_than_the_memory_the_last_images_stay() -> None:
    memory = Pool(2, forgets=True)
    memory.add(*batch(1, 2, 3, 4, 5))
    assert held(memory) == [4, 5]


def test_a_sample_has_the_size_asked_for_and_no_image_twice() -> None:
    memory = Pool(10, forgets=True)
    memory.add(*batch(*range(10)))
    for seed in range(5):
        _, answers = memory.sample(4, torch.Generator().manual_seed(seed))
        assert len(set(answers.tolist())) == 4


def test_answers_keep_their_type_and_width() -> None:
    memory = Pool(3, forgets=True)
    probs = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    memory.add(torch.zeros(2, 1, 1, 1), probs)
    _, answers = memory.sample(2, torch.Generator().manual_seed(0))
    assert answers.dtype == torch.float32
    assert answers.shape == (2, 2)


def test_a_restored_memory_goes_on_where_the_saved_one_was() -> None:
    memory, restored = Pool(4, forgets=True), Pool(4, forgets=True)
    memory.add(*batch(1, 2, 3))
    memory.add(*batch(4, 5, 6))
    state = memory.state_dict()
    restored.load_state_dict(state)
    for either in (memory, restored):
        either.add(*batch(7))
    assert held(memory) == held(restored) == [4, 5, 6, 7]
    assert sorted(state["answers"].tolist()) == [3, 4, 5, 6]  # what was saved is a copy


def test_an_empty_memory_can_be_saved_and_restored() -> None:
    restored = Pool(4, forgets=True)
    restored.load_state_dict(Pool(4, forgets=True).state_dict())
    assert len(restored) == 0
    restored.add(*batch(1))
    assert held(restored) == [1]
