"""DFME: its estimate is a gradient, its iterations cost what the paper's formula says, its rates fall in time."""

import pytest
import torch
import torch.nn.functional as F
from support import RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor, nn

from budgets import BudgetExhausted
from methods import dfme
from methods.generators import to_image

TINY = {"generator_width": 1, "latent": 1}


def true_gradient(teacher: nn.Module, student: nn.Module, maps: Tensor) -> Tensor:
    """The gradient of minus the mean L1 distance, through the teacher as well, which only a test may look into."""
    maps = maps.clone().requires_grad_()
    images = to_image(maps)
    logits = teacher(images)
    (-F.l1_loss(student(images), logits - logits.mean(dim=1, keepdim=True))).backward()
    assert maps.grad is not None
    return maps.grad


def test_on_one_pixel_the_estimate_is_the_gradient() -> None:
    shape = (1, 1, 1)  # the only unit vectors are 1 and -1, so nothing is left to chance
    teacher, student = linear_network(3, shape=shape), linear_network(4, shape=shape)
    maps = torch.tensor([-1.0, 0.2, 0.5, 2.0]).view(4, 1, 1, 1)
    oracle = make_oracle(RecordingTeacher(teacher), 8, "probs", shape=shape)
    estimate = dfme.estimate_gradient(oracle, student, maps, 1, 1e-2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate, true_gradient(teacher, student, maps), rtol=0.05, atol=1e-4)


def test_over_many_directions_the_estimate_tends_to_the_gradient() -> None:
    shape = (1, 2, 2)
    teacher, student = linear_network(3, shape=shape), linear_network(4, shape=shape)
    maps = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    oracle = make_oracle(RecordingTeacher(teacher), 20_002, "probs", shape=shape)
    estimate = dfme.estimate_gradient(oracle, student, maps, 10_000, 1e-2, torch.Generator().manual_seed(0))
    gradient = true_gradient(teacher, student, maps)
    for estimated, true in zip(estimate.flatten(1), gradient.flatten(1), strict=True):
        assert F.cosine_similarity(estimated, true, dim=0) > 0.99
        assert estimated.norm().item() == pytest.approx(true.norm().item(), rel=0.05)


def test_an_estimate_along_one_direction_is_along_it_and_right_on_average() -> None:
    teacher, student = linear_network(3), linear_network(4)
    maps = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2000, 1, 1, 1)
    oracle = make_oracle(RecordingTeacher(teacher), 4000, "probs")
    estimates = dfme.estimate_gradient(oracle, student, maps, 1, 1e-2, torch.Generator().manual_seed(0)).sum(dim=0)
    gradient = true_gradient(teacher, student, maps[:1])
    assert F.cosine_similarity(estimates.flatten(), gradient.flatten(), dim=0) > 0.95


@pytest.mark.parametrize(("n", "directions"), [(1, 1), (4, 1), (3, 5)])
def test_an_estimate_costs_one_query_a_direction_and_one_more_for_each_image(n: int, directions: int) -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 1000, "probs")
    maps = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    dfme.estimate_gradient(oracle, small_student(), maps, directions, 1e-3, torch.Generator().manual_seed(0))
    assert oracle.spent == sum(teacher.calls) == n * (directions + 1)
    assert oracle.distinct == oracle.spent


def test_estimating_leaves_the_student_and_the_maps_as_they_were() -> None:
    student, maps = small_student(), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before, kept = {name: value.clone() for name, value in student.state_dict().items()}, maps.clone()
    oracle = make_oracle(RecordingTeacher(), 8, "probs")
    estimate = dfme.estimate_gradient(oracle, student, maps, 1, 1e-3, torch.Generator().manual_seed(0))
    assert torch.equal(maps, kept)
    assert estimate.shape == maps.shape
    assert not estimate.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_full_iteration_at_the_defaults_costs_1792_queries() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 100_000, "probs")
    rounds = dfme.distill(oracle, small_student(), dfme.Config(**TINY), make_run())
    next(rounds)
    assert oracle.spent == 256 * (1 * (1 + 1) + 5) == 1_792
    next(rounds)
    assert oracle.spent == sum(teacher.calls) == 2 * 1_792


@pytest.mark.parametrize(("generator_steps", "directions", "student_steps"), [(0, 1, 1), (1, 3, 2), (2, 1, 1)])
def test_an_iteration_costs_what_the_formula_of_the_paper_says(
    generator_steps: int, directions: int, student_steps: int
) -> None:
    oracle = make_oracle(RecordingTeacher(), 1000, "probs")
    config = dfme.Config(
        **TINY,
        batch_size=6,
        generator_steps=generator_steps,
        directions=directions,
        student_steps=student_steps,
    )
    next(dfme.distill(oracle, small_student(), config, make_run()))
    assert oracle.spent == 6 * (generator_steps * (directions + 1) + student_steps)


def test_the_budget_ends_the_run_within_an_iteration() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 7 * 10 + 25, "probs")
    rounds = dfme.distill(oracle, small_student(), dfme.Config(**TINY, batch_size=10), make_run())
    next(rounds)
    with pytest.raises(BudgetExhausted):
        next(rounds)
    assert teacher.calls == [20, *[10] * 5, 20]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_logits_come_back_up_to_a_constant_of_each_image(scale: float) -> None:
    logits = scale * torch.randn(20, 10, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    recovered = dfme.logits_of(logits.softmax(dim=1))
    torch.testing.assert_close(recovered, logits - logits.mean(dim=1, keepdim=True), rtol=1e-3, atol=1e-3)


def test_a_probability_of_zero_gives_finite_logits() -> None:
    logits = dfme.logits_of(torch.tensor([[1.0, 0.0, 0.0]]))
    assert logits.isfinite().all()
    assert logits.sum().item() == pytest.approx(0, abs=1e-4)


def test_both_learning_rates_fall_to_three_tenths_when_10_30_and_50_percent_of_the_budget_are_spent() -> None:
    queries, cost = 280, 2 * (2 + 5)
    oracle, run = make_oracle(RecordingTeacher(), queries, "probs"), make_run()
    config = dfme.Config(**TINY, batch_size=2)
    seen: list[tuple[int, float, float]] = []
    rounds = dfme.distill(oracle, small_student(), config, run)
    while oracle.remaining >= cost:
        before = oracle.spent
        next(rounds)
        parts = run.state_dict()["parts"]
        rates = [parts[name]["param_groups"][0]["lr"] for name in ("student_optimizer", "generator_optimizer")]
        seen.append((before, rates[0], rates[1]))
    for spent, rate, generator_rate in seen:
        falls = (spent >= 28) + (spent >= 84) + (spent >= 140)
        assert rate == pytest.approx(0.1 * 0.3**falls)
        assert generator_rate == pytest.approx(1e-4 * 0.3**falls)
    assert len({rate for _, rate, _ in seen}) == 4


def test_the_generator_learns_from_the_estimate_and_the_student_from_the_answers() -> None:
    run, student = make_run(), small_student()
    before = {name: value.clone() for name, value in student.named_parameters()}
    rounds = dfme.distill(make_oracle(RecordingTeacher(), 1000, "probs"), student, dfme.Config(batch_size=4), run)
    next(rounds)
    first = {name: value.clone() for name, value in run.state_dict()["parts"]["generator"].items()}
    next(rounds)
    second = run.state_dict()["parts"]["generator"]
    assert not torch.equal(first["project.weight"], second["project.weight"])
    assert all(not torch.equal(value, before[name]) for name, value in student.named_parameters())
