"""ZSDB3KD: boundaries whose distance is known, pushes, soft labels worked by hand, and the price of a sample."""

import math
from typing import Any

import pytest
import torch
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, make_oracle, make_run, small_student
from torch import Tensor, nn

from methods import zsdb3kd
from methods.boundary import Search, bisect, nearest
from methods.zsdb3kd import Config

SMALL: dict[str, Any] = {
    "batch_size": 3,
    "candidates": 2,
    "directions": 2,
    "pushes": 2,
    "push_tries": 2,
    "push_turns": 1,
    "label_turns": 1,
    "search": {"halvings": 3, "gradient_samples": 4, "epsilon": 0.2, "line_steps": 2},
    "passes": 3,
}
PLANE = (1, 1, 2)  # images of two pixels, points in a plane


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows).view(-1, *PLANE)


class Corners(nn.Module):
    """Class 1 or 2 where the first or the second pixel is the larger and above 1/2, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        return 1000 * torch.cat([torch.full_like(pixels[:, :1], 0.5), pixels], dim=1)


class HalfSpace(nn.Module):
    """Class 1 where w x > b, else class 0."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, images: Tensor) -> Tensor:
        beyond = images.flatten(1) @ self.w - self.b
        return torch.stack([-beyond, beyond], dim=1) * 1000


class Strip(nn.Module):
    """Of one pixel: class 1 between 0.4 and 0.65, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        inside = (images.flatten(1) > 0.4) & (images.flatten(1) < 0.65)
        return torch.cat([~inside, inside], dim=1).float()


def half_space(dimensions: int, gap: float) -> tuple[HalfSpace, Tensor]:
    """A teacher and a grey image at distance `gap` from its boundary."""
    w = torch.randn(dimensions, generator=rng(3))
    w /= w.norm()
    return HalfSpace(w, (w * 0.5).sum().item() + gap), torch.full((1, 1, 1, dimensions), 0.5)


def samples_of(images: Tensor, classes: list[int]) -> zsdb3kd.Samples:
    samples = zsdb3kd.Samples()
    samples.images, samples.classes = images, torch.tensor(classes)
    return samples


def test_bisection_finds_the_boundary_along_each_direction_and_says_where_there_is_none() -> None:
    teacher, image = half_space(16, 0.1)
    oracle = make_oracle(RecordingTeacher(teacher), 1000, shape=(1, 1, 16), classes=2)
    crossed = zsdb3kd.crossing(oracle, image, torch.tensor([0]), into=False)
    slanted = teacher.w + nn.functional.normalize(torch.randn(16, generator=rng()), dim=0) * 0.5
    slanted /= slanted.norm()
    directions = torch.stack([teacher.w, slanted, -teacher.w])[None]
    found = bisect(crossed, directions, torch.full((1, 3), 0.4), halvings=12)
    expected = torch.tensor([[0.1, 0.1 / (slanted @ teacher.w).item(), math.inf]])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.4 / 2**12)
    assert (found >= expected).all()  # never too short: the point found is across
    assert oracle.spent == 3 * (1 + 12)


def test_turning_against_the_signs_reaches_the_distance_of_a_plane() -> None:
    teacher, image = half_space(16, 0.1)
    oracle = make_oracle(RecordingTeacher(teacher), 1_000_000, shape=(1, 1, 16), classes=2)
    crossed = zsdb3kd.crossing(oracle, image, torch.tensor([0]), into=False)
    sideways = torch.randn(1, 1, 16, generator=rng()) * 0.2 + 0.3 * teacher.w
    search = Search(gradient_samples=100)
    direction, distance = nearest(crossed, sideways, 0, search, rng())
    assert distance.item() > 0.13
    direction, distance = nearest(crossed, sideways, 10, search, rng())
    assert distance.item() == pytest.approx(0.1, rel=0.02)
    assert (direction @ teacher.w).item() > 0.98
    assert oracle.spent == search.queries(1, turns=0) + search.queries(1, turns=10)


def test_an_image_that_nothing_takes_out_of_its_class_has_no_distance() -> None:
    teacher, image = half_space(16, 100.0)
    oracle = make_oracle(RecordingTeacher(teacher), 10_000, shape=(1, 1, 16), classes=2)
    crossed = zsdb3kd.crossing(oracle, image, torch.tensor([0]), into=False)
    _, distance = nearest(crossed, torch.randn(1, 2, 16, generator=rng()), 2, Search(), rng())
    assert distance.item() == math.inf


def test_a_push_leads_straight_away_from_the_boundary() -> None:
    teacher, image = half_space(16, 0.1)
    oracle = make_oracle(RecordingTeacher(teacher), 1_000_000, shape=(1, 1, 16), classes=2)
    config = Config(push_step=0.2, push_turns=10)
    pushed = zsdb3kd.push(oracle, image, torch.tensor([0]), config, rng())
    gap = teacher.b - (pushed.flatten() @ teacher.w).item()
    assert gap == pytest.approx(0.1 + 0.2, abs=0.01)  # to the 8 bits of a pixel
    assert oracle.spent == config.search.queries(20, 10) + 4


def test_a_push_into_another_class_is_halved_until_it_stays() -> None:
    oracle = make_oracle(RecordingTeacher(Strip()), 10_000, shape=(1, 1, 1), classes=2)
    image = torch.full((1, 1, 1, 1), 0.5)
    # The end at 0.4 is nearer than that at 0.65, so the push goes up: by 0.4 and 0.2 out of the strip, by 0.1 not.
    for tries, end in ((3, 0.6), (2, 0.5)):
        config = Config(push_step=0.4, push_tries=tries, push_turns=0)
        pushed = zsdb3kd.push(oracle, image, torch.tensor([1]), config, rng())
        assert pushed.item() == pytest.approx(end)


def test_an_image_that_no_direction_takes_out_of_its_class_stays_where_it_is() -> None:
    teacher, image = half_space(16, 100.0)
    oracle = make_oracle(RecordingTeacher(teacher), 10_000, shape=(1, 1, 16), classes=2)
    config = Config(push_turns=0)
    assert torch.equal(zsdb3kd.push(oracle, image, torch.tensor([0]), config, rng()), image)
    assert oracle.spent == config.search.queries(20, 0) + 4


def test_soft_labels_are_one_over_the_distances_and_their_sum_for_the_own_class() -> None:
    samples = samples_of(points((0.2, 0.2), (0.8, 0.2), (0.2, 0.6)), [0, 1, 2])
    oracle = make_oracle(RecordingTeacher(Corners()), 1000, shape=PLANE, classes=4)  # class 3 is never met
    logits = zsdb3kd.soft_labels(oracle, samples, torch.arange(3), Config(label_turns=0), rng())
    # From (0.8, 0.2) to (0.2, 0.6), class 2 begins at 3/4 of the way, where the second pixel is 1/2; back,
    # class 1 begins where the first pixel is 1/2, half way.
    way = math.hypot(0.6, 0.4)
    expected = torch.tensor(
        [
            [1 / 0.3 + 1 / 0.3, 1 / 0.3, 1 / 0.3, 0],
            [1 / 0.3, 1 / 0.3 + 1 / (0.75 * way), 1 / (0.75 * way), 0],
            [1 / 0.1, 1 / (0.5 * way), 1 / 0.1 + 1 / (0.5 * way), 0],
        ]
    )
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=0)
    assert oracle.spent == 6 * Config().search.queries(1, 0)


def test_the_divergence_is_a_sum_and_the_cross_entropy_a_mean() -> None:
    logits, classes = torch.tensor([[40.0, 0.0]]), torch.tensor([0])
    same = zsdb3kd.distillation_loss(logits, logits, classes, 20.0)
    torch.testing.assert_close(same, nn.functional.cross_entropy(logits, classes))  # no divergence
    outputs = torch.zeros(1, 2)
    p = 1 / (1 + math.exp(-2))  # softmax of 40 / 20 and 0
    divergence = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    for n in (1, 3):
        loss = zsdb3kd.distillation_loss(outputs.expand(n, 2), logits.expand(n, 2), classes.expand(n), 20.0)
        assert loss.item() == pytest.approx(math.log(2) + n * divergence)


def test_the_most_balanced_order_takes_the_classes_in_turns() -> None:
    assert zsdb3kd.most_balanced(torch.tensor([0, 0, 0, 3, 3, 1]), total=4).tolist() == [0, 3, 5, 1, 4, 2]


def test_noise_lies_on_the_8_bit_grid_and_is_of_many_strengths() -> None:
    images = zsdb3kd.noise(50, (1, 8, 8), rng())
    torch.testing.assert_close(images * 255, (images * 255).round(), rtol=0, atol=1e-4)
    assert images.flatten(1).mean(dim=1).std() > 0.1


def test_a_sample_of_the_released_settings_has_the_price_of_the_docstring() -> None:
    step = 200 + 8 * 21  # a gradient and its line search
    push, label = 20 * 21 + 13 * step + 4, 21 + 54 * step
    assert zsdb3kd.queries_per_sample(Config(), 10) == 40 * push + 9 * label == 387_357
    assert f"{387_357:,}" in (zsdb3kd.__doc__ or "")


def test_fewer_samples_than_classes_are_of_fewer_classes() -> None:
    config = Config(**SMALL)
    one, two, three = (zsdb3kd.queries_per_sample(config, classes) for classes in (1, 2, 3))
    assert zsdb3kd.affordable(one - 1, 3, config) == 0
    assert zsdb3kd.affordable(2 * two - 1, 3, config) == 1
    assert zsdb3kd.affordable(2 * two, 3, config) == 2
    assert zsdb3kd.affordable(3 * three, 3, config) == 3
    assert zsdb3kd.affordable(8 * three - 1, 3, config) == 7


@pytest.mark.parametrize("queries", [300, 1001, 2000])
def test_samples_use_the_budget_up_and_each_round_costs_what_the_formula_says(queries: int) -> None:
    config, oracle, run = Config(**SMALL), make_oracle(RecordingTeacher(), queries), make_run()
    rounds = zsdb3kd.distill(oracle, small_student(), config, run)
    n = int(next(rounds)["samples"])
    met = len(run.state_dict()["parts"]["samples"]["classes"].unique())
    assert n >= 1
    assert oracle.remaining == n * zsdb3kd.queries_per_sample(config, met)
    push = config.pushes * (config.search.queries(config.directions, config.push_turns) + config.push_tries)
    label = (met - 1) * config.search.queries(1, config.label_turns)
    for price in (push, label):
        for batch in torch.arange(n).split(config.batch_size):
            before = oracle.spent
            assert next(rounds)["samples"] == n
            assert oracle.spent - before == len(batch) * price
    assert oracle.remaining == 0
    assert len(list(rounds)) == config.passes


def test_a_budget_below_one_sample_is_not_spent_and_leaves_the_student_as_it_is() -> None:
    student, oracle = small_student(), make_oracle(RecordingTeacher(), 500)
    assert list(zsdb3kd.distill(oracle, student, Config(), make_run())) == []
    assert oracle.spent == 0
    assert all(torch.equal(value, small_student().state_dict()[key]) for key, value in student.state_dict().items())


def test_probabilities_are_reduced_to_the_top_class() -> None:
    def student_after(answers: str) -> Tensor:
        student = small_student()
        list(zsdb3kd.distill(make_oracle(RecordingTeacher(), 500, answers), student, Config(**SMALL), make_run()))
        return student.state_dict()["4.weight"]

    assert torch.equal(student_after("labels"), student_after("probs"))


@pytest.mark.parametrize("stop_after", [1, 2, 4, 6])  # after the noise, among pushes, soft labels and passes
def test_a_resumed_run_ends_as_an_unbroken_one(stop_after: int) -> None:
    assert_resuming_changes_nothing("zsdb3kd", 900, "labels", stop_after=stop_after, **SMALL)
