"""The meter: never more than the budget, never an image uncounted, and no way round it."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CLASSES, SHAPE, RecordingTeacher, linear_network, make_oracle
from torch import Tensor, nn

from budgets import BudgetExhausted, Oracle

PIXEL = (1, 1, 1)
TRACKS = [(answers, inputs) for answers in ("labels", "probs") for inputs in ("float", "uint8")]
every_track = pytest.mark.parametrize(("answers", "inputs"), TRACKS)
sizes = st.lists(st.integers(1, 12), max_size=20)
levels = st.lists(st.integers(0, 7), min_size=1, max_size=10)


@dataclass
class Spy:
    """A teacher that keeps what it was sent and what it answered."""

    seen: list[Tensor] = field(default_factory=list)
    answered: list[Tensor] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        first = images.flatten(1)[:, :1]
        self.answered.append(torch.cat([first, 1 - first], dim=1))
        return self.answered[-1]


UNHURRIED = settings(deadline=None, derandomize=True)  # a busy machine is no failure


def random_images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, *PIXEL)


def ask_or_give_up(oracle: Oracle, images: Tensor) -> bool:
    try:
        oracle(images)
    except BudgetExhausted:
        return False
    return True


@UNHURRIED
@given(queries=st.integers(1, 60), batches=sizes)
def test_what_the_teacher_answered_is_what_was_charged_and_never_more_than_the_budget(
    queries: int, batches: list[int]
) -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, queries)
    for size in batches:
        before = oracle.spent
        answered = ask_or_give_up(oracle, random_images(size))
        assert answered == (size <= queries - before)
        assert oracle.spent == before + answered * size
        assert sum(teacher.calls) == oracle.spent <= queries
        assert oracle.remaining == queries - oracle.spent


@UNHURRIED
@given(queries=st.integers(1, 60), batch=st.integers(1, 61))
def test_a_budget_can_be_spent_to_the_last_query_whatever_the_batch_size(queries: int, batch: int) -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, queries)
    while oracle.remaining:
        oracle(random_images(min(batch, oracle.remaining)))
    assert sum(teacher.calls) == oracle.spent == queries
    assert not ask_or_give_up(oracle, random_images(1))


def test_a_batch_over_the_budget_sends_and_charges_nothing_and_a_smaller_one_still_goes_through() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 10)
    oracle(random_images(7))
    with pytest.raises(BudgetExhausted, match="4 images asked, 3 of 10 queries left"):
        oracle(random_images(4, seed=1))
    assert (oracle.spent, oracle.distinct, teacher.calls) == (7, 7, [7])
    oracle(random_images(3, seed=2))
    assert (oracle.spent, oracle.distinct, teacher.calls) == (10, 10, [7, 3])


@UNHURRIED
@given(batches=st.lists(levels, max_size=8), inputs=st.sampled_from(["float", "uint8"]))
def test_distinct_counts_the_different_images_among_those_sent(batches: list[list[int]], inputs: str) -> None:
    oracle = make_oracle(Spy(), 1000, inputs=inputs, shape=PIXEL, classes=2)
    for batch in batches:
        oracle(pixels(*(level / 7 for level in batch)))
    assert oracle.spent == sum(map(len, batches))
    assert oracle.distinct == len({level for batch in batches for level in batch})


def test_an_image_that_was_refused_is_not_among_the_distinct_ones() -> None:
    oracle = make_oracle(Spy(), 2, shape=PIXEL, classes=2)
    assert not ask_or_give_up(oracle, pixels(0.1, 0.2, 0.3))
    assert oracle.distinct == 0


@pytest.mark.parametrize("inputs", ["float", "uint8"])
def test_labels_are_the_argmax_of_the_probabilities_of_the_same_images(inputs: str) -> None:
    images = random_images(50)
    labels = make_oracle(RecordingTeacher(), 50, "labels", inputs)(images)
    probs = make_oracle(RecordingTeacher(), 50, "probs", inputs)(images)
    assert torch.equal(labels, probs.argmax(dim=1))
    assert labels.dtype == torch.int64
    assert probs.shape == (50, CLASSES)
    assert len(labels.unique()) > 1


@every_track
def test_answers_carry_no_gradient_even_from_a_teacher_that_would_give_one(answers: str, inputs: str) -> None:
    network = linear_network()
    oracle = make_oracle(lambda images: network(images).softmax(dim=1), 5, answers, inputs)
    answer = oracle(random_images(5).requires_grad_())
    assert not answer.requires_grad
    assert answer.grad_fn is None


@every_track
def test_the_callers_images_are_not_touched(answers: str, inputs: str) -> None:
    def scribbling_teacher(images: Tensor) -> Tensor:
        images.zero_()
        return torch.full((len(images), CLASSES), 0.25)

    images = random_images(4)
    before = images.clone()
    make_oracle(scribbling_teacher, 4, answers, inputs)(images)
    assert torch.equal(images, before)


@every_track
def test_changing_the_images_afterwards_changes_nothing_that_was_sent(answers: str, inputs: str) -> None:
    spy = Spy()
    oracle = make_oracle(spy, 8, answers, inputs)
    images = random_images(4)
    oracle(images)
    sent = spy.seen[0].clone()
    images.fill_(0.5)
    assert torch.equal(spy.seen[0], sent)
    oracle(images)
    assert oracle.distinct == 5


def test_changing_an_answer_afterwards_changes_nothing_that_the_teacher_keeps() -> None:
    spy = Spy()
    answer = make_oracle(spy, 4, "probs", classes=2)(random_images(4))
    kept = spy.answered[0].clone()
    answer.fill_(9)
    assert torch.equal(spy.answered[0], kept)


@UNHURRIED
@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_an_8_bit_budget_sends_the_nearest_of_256_levels(values: list[float]) -> None:
    spy = Spy()
    make_oracle(spy, 20, inputs="uint8", shape=PIXEL, classes=2)(pixels(*values))
    sent = spy.seen[0].flatten()
    assert torch.equal((sent * 255).round() / 255, sent)
    assert (sent - torch.tensor(values)).abs().max() <= 0.5 / 255 + 1e-6


def test_images_that_are_the_same_in_8_bits_are_one_image_to_an_8_bit_budget_and_two_to_a_float_one() -> None:
    images = pixels(100 / 255, 100.4 / 255, 101 / 255)
    spent_and_distinct = {}
    for inputs in ("uint8", "float"):
        oracle = make_oracle(Spy(), 3, inputs=inputs, shape=PIXEL, classes=2)
        oracle(images)
        spent_and_distinct[inputs] = (oracle.spent, oracle.distinct)
    assert spent_and_distinct == {"uint8": (3, 2), "float": (3, 3)}


def test_a_shift_of_a_thousandth_reaches_a_float_teacher_and_not_an_8_bit_one() -> None:
    differences = {}
    for inputs in ("float", "uint8"):
        spy = Spy()
        make_oracle(spy, 2, inputs=inputs, shape=PIXEL, classes=2)(pixels(0.5, 0.501))
        differences[inputs] = (spy.seen[0][1] - spy.seen[0][0]).item()
    assert differences["float"] == pytest.approx(1e-3, rel=1e-3)
    assert differences["uint8"] == 0


BAD_IMAGES: dict[str, Callable[[], Tensor]] = {
    "not a number": lambda: torch.full((2, *SHAPE), math.nan),
    "one pixel not a number": lambda: random_images(2).index_fill_(0, torch.tensor([1]), math.nan),
    "infinite": lambda: torch.full((2, *SHAPE), math.inf),
    "below 0": lambda: random_images(2) - 1e-3 - random_images(2).min(),
    "above 1": lambda: torch.full((2, *SHAPE), 1 + 1e-3),
    "between -1 and 1": lambda: 2 * random_images(2) - 1,
    "0 to 255": lambda: (255 * random_images(2)).to(torch.uint8),
    "integers": lambda: torch.ones(2, *SHAPE, dtype=torch.int64),
    "truth values": lambda: torch.ones(2, *SHAPE, dtype=torch.bool),
    "one image without a batch": lambda: random_images(1)[0],
    "flat": lambda: random_images(2).flatten(1),
    "another size": lambda: torch.rand(2, 1, 8, 7),
    "another number of channels": lambda: torch.rand(2, 3, 8, 8),
    "no image": lambda: random_images(0),
}


@pytest.mark.parametrize("inputs", ["float", "uint8"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_what_no_image_api_would_take_is_refused_in_one_line_and_costs_nothing(kind: str, inputs: str) -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 10, inputs=inputs)
    with pytest.raises(ValueError, match=r"^images .*wanted") as refusal:
        oracle(BAD_IMAGES[kind]())
    assert "\n" not in str(refusal.value)
    assert (oracle.spent, oracle.distinct, teacher.calls) == (0, 0, [])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_teacher_gets_single_precision_whatever_float_the_method_computes_in(dtype: torch.dtype) -> None:
    spy = Spy()
    make_oracle(spy, 2, shape=PIXEL, classes=2)(pixels(0.25, 1.0).to(dtype))
    assert spy.seen[0].dtype == torch.float32
    assert spy.seen[0].flatten().tolist() == [0.25, 1.0]


def test_images_are_charged_before_they_are_sent() -> None:
    def failing_teacher(_: Tensor) -> Tensor:
        charged.append(oracle.spent)
        raise ConnectionError

    charged: list[int] = []
    oracle = make_oracle(failing_teacher, 10)
    with pytest.raises(ConnectionError):
        oracle(random_images(4))
    assert charged == [4]
    assert (oracle.spent, oracle.remaining, oracle.distinct) == (4, 6, 4)


@UNHURRIED
@given(before=st.lists(levels, max_size=5), after=st.lists(levels, max_size=5))
def test_a_count_carried_over_a_restart_goes_on_as_if_there_had_been_none(
    before: list[list[int]], after: list[list[int]]
) -> None:
    unbroken, resumed = (make_oracle(Spy(), 200, shape=PIXEL, classes=2) for _ in range(2))
    for batch in before:
        unbroken(pixels(*(level / 7 for level in batch)))
    resumed.load_state_dict(copy.deepcopy(unbroken.state_dict()))  # which it takes over, as it is in a file
    for batch in after:
        unbroken(pixels(*(level / 7 for level in batch)))
        resumed(pixels(*(level / 7 for level in batch)))
    assert (resumed.spent, resumed.distinct) == (unbroken.spent, unbroken.distinct)


@pytest.mark.parametrize("spent", [-1, 11])
def test_a_count_that_this_budget_cannot_have_is_refused_and_changes_nothing(spent: int) -> None:
    oracle = make_oracle(RecordingTeacher(), 10)
    oracle(random_images(3))
    with pytest.raises(ValueError, match="wanted 3 to 10"):
        oracle.load_state_dict({"spent": spent, "distinct": torch.zeros(0, dtype=torch.int64)})
    assert (oracle.spent, oracle.distinct) == (3, 3)


def test_no_public_attribute_leads_to_the_teacher() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 10)
    public = {name: getattr(oracle, name) for name in dir(oracle) if not name.startswith("_")}
    foreign = {
        name: value
        for name, value in public.items()
        if isinstance(value, nn.Module) or (callable(value) and getattr(value, "__self__", None) is not oracle)
    }
    assert foreign == {}
    assert set(public) == {
        "budget",
        "classes",
        "distinct",
        "load_state_dict",
        "remaining",
        "shape",
        "spent",
        "state_dict",
    }
    assert not hasattr(oracle, "__dict__")


@pytest.mark.parametrize("name", ["budget", "spent", "remaining", "distinct"])
def test_the_budget_and_the_counts_can_be_read_and_not_written(name: str) -> None:
    oracle = make_oracle(RecordingTeacher(), 10)
    with pytest.raises(AttributeError):
        setattr(oracle, name, 0)
