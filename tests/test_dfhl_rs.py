"""DFHL-RS: its losses, its high-entropy examples, and what either way of labelling costs."""

import math

import pytest
import torch
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor

from methods import dfhl_rs

SMALL: dict[str, object] = {
    "batch_size": 8,
    "generator_steps": 2,
    "generator_width": 4,
    "latent": 8,
    "crop_padding": 1,
    "student_steps": 3,
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def entropies(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits).entropy()


def test_a_smoothed_label_leaves_an_even_share_to_the_other_classes() -> None:
    smoothed = dfhl_rs.smooth(torch.tensor([2, 0]), classes=5, smoothing=0.2)
    assert torch.allclose(smoothed, torch.tensor([[0.05, 0.05, 0.8, 0.05, 0.05], [0.8, 0.05, 0.05, 0.05, 0.05]]))


def test_imbalance_looks_at_the_batch_and_not_at_the_image() -> None:
    sure_of_each = 50 * torch.eye(10)
    sure_of_one = sure_of_each[:1].expand(10, 10)
    assert dfhl_rs.imbalance(sure_of_each).item() == pytest.approx(-1)  # ten even classes, log to base 10
    assert dfhl_rs.imbalance(torch.zeros(3, 10)).item() == pytest.approx(-1)
    assert dfhl_rs.imbalance(sure_of_one).item() == pytest.approx(0, abs=1e-6)


def test_the_imbalance_of_a_student_that_is_wholly_sure_has_a_gradient() -> None:
    logits = (1000 * torch.eye(10)[:1]).requires_grad_()
    dfhl_rs.imbalance(logits).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_high_entropy_examples_climb_the_entropy_of_the_student_step_by_step() -> None:
    student, images = linear_network(), torch.rand(20, 1, 8, 8, generator=rng())
    climb = [
        entropies(student(dfhl_rs.high_entropy_examples(images, student, steps, lr=0.01))).mean().item()
        for steps in range(5)
    ]
    assert climb == sorted(climb)
    assert climb[-1] > climb[0] + 0.1


def test_high_entropy_examples_stay_images_and_within_their_steps() -> None:
    images = torch.rand(20, 1, 8, 8, generator=rng())
    before = images.clone()
    examples = dfhl_rs.high_entropy_examples(images, linear_network(), steps=4, lr=0.03)
    assert torch.equal(images, before)
    assert not examples.requires_grad
    assert examples.min() >= 0
    assert examples.max() <= 1
    assert (examples - images).abs().max().item() == pytest.approx(4 * 0.03, abs=1e-6)


def test_one_step_moves_each_value_by_its_rate_along_the_sign_of_the_gradient() -> None:
    """With logits (s, 0) for the sum s of two pixels, the entropy falls with |s|: a positive s is moved down."""
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    student[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    examples = dfhl_rs.high_entropy_examples(torch.tensor([0.5, 0.25]).view(1, 1, 1, 2), student, steps=1, lr=0.125)
    assert torch.equal(examples.flatten(), torch.tensor([0.375, 0.125]))


def test_high_entropy_examples_leave_no_gradient_in_the_student() -> None:
    student = small_student()
    dfhl_rs.high_entropy_examples(torch.rand(4, 1, 8, 8), student, steps=2, lr=0.03)
    assert all(parameter.grad is None for parameter in student.parameters())


def test_strong_augmentation_mirrors_turns_and_enlarges_but_makes_images() -> None:
    images = torch.rand(30, 3, 8, 8, generator=rng())
    views = dfhl_rs.strong_augment(images, rng(1))
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 1
    evenly = torch.full((30, 1, 8, 8), 0.5)
    centre = dfhl_rs.strong_augment(evenly, rng(1))[:, :, 3:5, 3:5]
    assert torch.allclose(centre, torch.tensor(0.5), atol=0.01)


@pytest.mark.parametrize(
    ("relabel", "rounds", "pool"),
    [("once", 5, 40), ("every_view", 2, 16)],  # 44 queries: b = 8 a round, or b * s = 24, the last cut to 16
)
def test_a_round_costs_a_batch_or_a_batch_for_each_step(
    relabel: str, rounds: int, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dfhl_rs, "LEAST_ROUNDS", 1)  # so few queries would leave a round one step
    config = dfhl_rs.Config(**{**SMALL, "relabel": relabel})
    teacher = RecordingTeacher()
    oracle, costs, pools = make_oracle(teacher, 44), [], []
    for figures in dfhl_rs.distill(oracle, small_student(), config, make_run()):
        costs.append(oracle.spent - sum(costs))
        pools.append(figures["pool"])
    whole = 8 if relabel == "once" else 8 * 3
    assert costs[:-1] == [whole] * (rounds - 1)
    assert costs[-1] == min(whole, 40 - whole * (rounds - 1))
    assert pools[-1] == pool
    assert teacher.calls == [8] * 5


def test_a_label_asked_once_is_the_label_of_the_image_that_is_kept() -> None:
    asked: list[Tensor] = []

    def teacher(images: Tensor) -> Tensor:
        asked.append(images)
        return linear_network()(images).softmax(dim=1).detach()

    run = make_run()
    config = dfhl_rs.Config(**{**SMALL, "relabel": "once"})
    list(dfhl_rs.distill(make_oracle(teacher, 16), small_student(), config, run))
    pool = run.state_dict()["parts"]["pool"]
    kept, labels = pool["images"].float() / 255, pool["answers"]
    assert torch.allclose(kept, torch.cat(asked))
    assert torch.equal(labels, linear_network()(kept).argmax(dim=1))


def test_the_learning_rate_falls_along_a_cosine_of_the_budget() -> None:
    run, config = make_run(), dfhl_rs.Config(**{**SMALL, "relabel": "once", "lr": 0.1, "lr_end": 0.02})
    rates = [
        run.state_dict()["parts"]["optimizer"]["param_groups"][0]["lr"]
        for _ in dfhl_rs.distill(make_oracle(RecordingTeacher(), 32), small_student(), config, run)
    ]
    half = 0.04 * math.sqrt(1 / 2)
    assert rates == pytest.approx([0.1, 0.06 + half, 0.06, 0.06 - half])


@pytest.mark.parametrize("relabel", ["once", "every_view"])
def test_a_resumed_run_ends_as_an_unbroken_one(relabel: str) -> None:
    assert_resuming_changes_nothing("dfhl_rs", 100, "labels", 2, relabel=relabel, **SMALL)
