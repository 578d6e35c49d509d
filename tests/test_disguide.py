"""DisGUIDE: what its generator maximises, its second student, its grey images, and what a round costs."""

import math

import pytest
import torch
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor, nn

from methods import disguide

SMALL = {"batch_size": 5, "memory": 12, "generator_width": 4, "latent": 8}
MARKED, PLAIN = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)


def pixel_student(*probs: float) -> nn.Module:
    """Sees one pixel: predicts these probabilities when it is 1, and all classes alike when it is 0."""
    student = linear_network(classes=len(probs), shape=(1, 1, 1))
    with torch.no_grad():
        student[1].weight.copy_(torch.tensor(probs).log()[:, None])
    return student


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_disagreement_is_the_spread_of_each_probability_between_the_students() -> None:
    students = nn.ModuleList([pixel_student(0.8, 0.2), pixel_student(0.2, 0.8)])
    apart, _ = disguide.disagreement_and_diversity(students, torch.cat([MARKED, PLAIN]))
    # The marked image: |0.8 - 0.2| / sqrt(2) for both classes. The plain one: 0.
    assert apart.item() == pytest.approx(0.6 / math.sqrt(2) / 2, abs=1e-5)


def test_students_that_are_all_but_equally_sure_give_the_generator_a_finite_gradient() -> None:
    sure = nn.ModuleList([pixel_student(1.0, 1e-40), pixel_student(1.0, 2e-40)])
    images = MARKED.clone().requires_grad_()
    apart, diverse = disguide.disagreement_and_diversity(sure, images)
    (apart + diverse).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_diversity_is_the_entropy_of_the_mean_over_students_and_images() -> None:
    sure = nn.ModuleList([pixel_student(0.8, 0.2), pixel_student(0.8, 0.2)])
    apart, diverse = disguide.disagreement_and_diversity(sure, MARKED)
    assert apart.item() == pytest.approx(0)
    assert diverse.item() == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.2), abs=1e-4)
    _, diverse = disguide.disagreement_and_diversity(sure, torch.cat([MARKED, PLAIN]))
    assert diverse.item() == pytest.approx(-0.65 * math.log(0.65) - 0.35 * math.log(0.35), abs=1e-4)
    opposed = nn.ModuleList([pixel_student(0.8, 0.2), pixel_student(0.2, 0.8)])
    _, diverse = disguide.disagreement_and_diversity(opposed, MARKED)
    assert diverse.item() == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize(("figure", "weight"), [("disagreement", 0.0), ("diversity", 100.0)])
def test_against_students_that_stand_still_the_generator_gains(figure: str, weight: float) -> None:
    config = disguide.Config(**SMALL, lr=1e-12, replays=0, generator_lr=1e-2, diversity_weight=weight)
    rounds = disguide.distill(make_oracle(RecordingTeacher(), 1000), linear_network(), config, make_run())
    gains = [next(rounds)[figure] for _ in range(40)]
    assert sum(gains[-5:]) > 1.05 * sum(gains[:5])


def test_students_learn_logits_from_probabilities_and_classes_from_labels() -> None:
    logits = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    probs = torch.tensor([[0.8, 0.2], [0.5, 0.5]])  # logits without their mean: +-log(4) / 2 = +-0.693, and 0
    assert disguide.student_loss(logits, probs).item() == pytest.approx((1 - math.log(2)) / 2, abs=1e-5)
    labels = torch.tensor([0, 1])
    by_hand = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert disguide.student_loss(logits, labels).item() == pytest.approx(by_hand, abs=1e-5)


def test_the_twin_has_other_weights_of_the_same_distribution() -> None:
    student = small_student()
    twin = disguide.twin_of(student, rng())
    for (name, own), theirs in zip(student.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(own.flatten().sort().values, theirs.flatten().sort().values), name
    assert not torch.equal(student[0].weight, twin[0].weight)
    assert not torch.equal(student[4].weight, twin[4].weight)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), small_student().parameters(), strict=True))


def test_the_ensemble_shown_apart_is_the_mean_of_both_predictions() -> None:
    vote = disguide.Vote(nn.ModuleList([pixel_student(0.9, 0.1), pixel_student(0.3, 0.7)]))
    assert torch.allclose(vote(torch.cat([MARKED, PLAIN])), torch.tensor([[0.6, 0.4], [0.5, 0.5]]))


def test_every_eighth_image_is_grey_and_the_others_are_untouched() -> None:
    images = torch.rand(17, 3, 4, 4, generator=rng())
    greyed = disguide.grey_some(images, 8, rng())
    untouched = [k for k in range(17) if k % 8]
    assert torch.equal(greyed[untouched], images[untouched])
    for k in (0, 8, 16):
        assert torch.equal(greyed[k, 0], greyed[k, 1])
        assert torch.equal(greyed[k, 0], greyed[k, 2])
        assert any(torch.equal(greyed[k, 0], channel) for channel in images[k])


def test_only_the_copied_channel_of_a_grey_image_has_a_gradient() -> None:
    images = torch.rand(2, 3, 4, 4, generator=rng(), requires_grad=True)
    disguide.grey_some(images, 2, rng()).sum().backward()
    assert sorted(images.grad[0].amax(dim=(1, 2)).tolist()) == [0, 0, 1]
    assert torch.equal(images.grad[1], torch.ones(3, 4, 4))


@pytest.mark.parametrize(("channels", "every"), [(1, 8), (3, 0)])
def test_images_of_one_channel_and_a_setting_of_zero_are_left_alone(channels: int, every: int) -> None:
    images = torch.rand(9, channels, 4, 4, generator=rng())
    assert torch.equal(disguide.grey_some(images, every, rng()), images)


@pytest.mark.parametrize("answers", ["labels", "probs"])
@pytest.mark.parametrize("student_steps", [1, 3])
def test_a_round_costs_its_student_batches_and_nothing_else(answers: str, student_steps: int) -> None:
    oracle, run = make_oracle(RecordingTeacher(), 1000, answers), make_run()
    config = disguide.Config(**{**SMALL, "student_steps": student_steps, "generator_steps": 2})
    rounds = disguide.distill(oracle, small_student(), config, run)
    for played in (1, 2, 3):
        next(rounds)
        assert oracle.spent == oracle.distinct == played * student_steps * 5  # generator and replay ask nothing
    assert len(run.state_dict()["parts"]["memory"]["answers"]) == min(oracle.spent, 12)


def test_both_students_learn_from_new_images_and_from_replay() -> None:
    def weights(replays: int) -> tuple[Tensor, Tensor]:
        student, run = small_student(), make_run()
        config = disguide.Config(**{**SMALL, "replays": replays})
        next(disguide.distill(make_oracle(RecordingTeacher(), 100), student, config, run))
        return student[4].weight.detach(), run.state_dict()["parts"]["twin"]["4.weight"]

    first, twins = (small_student()[4].weight, disguide.twin_of(small_student(), make_run().rng)[4].weight)
    without, with_replay = weights(0), weights(3)
    for start, once, again in zip((first, twins), without, with_replay, strict=True):
        assert not torch.equal(start, once)
        assert not torch.equal(once, again)


@pytest.mark.parametrize("answers", ["labels", "probs"])
def test_a_resumed_run_ends_as_an_unbroken_one(answers: str) -> None:
    assert_resuming_changes_nothing("disguide", 40, answers, stop_after=4, **SMALL)
