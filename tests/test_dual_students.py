"""Dual Students: what its generator maximises, its moving average, and what a round costs."""

import pytest
import torch
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import nn

from methods import dual_students

SMALL = {"batch_size": 5, "student_steps": 2, "average_every": 2, "generator_width": 4, "latent": 8}


def constant_student(*logits: float) -> nn.Module:
    """Gives these logits whatever it sees."""
    student = linear_network(classes=len(logits))
    with torch.no_grad():
        student[1].weight.zero_()
        student[1].bias.copy_(torch.tensor(logits))
    return student


def test_disagreement_is_the_mean_distance_of_the_logits() -> None:
    students = nn.ModuleList([constant_student(1, 2, 0), constant_student(0, 4, 0)])
    assert dual_students.disagreement(students, torch.rand(7, 1, 8, 8)).item() == pytest.approx((1 + 2 + 0) / 3)


def test_against_students_that_stand_still_the_generator_gains() -> None:
    config = dual_students.Config(**SMALL, lr=1e-12, generator_lr=1e-2)
    rounds = dual_students.distill(make_oracle(RecordingTeacher(), 1000), linear_network(), config, make_run())
    gains = [next(rounds)["disagreement"] for _ in range(40)]
    assert sum(gains[-5:]) > 1.1 * sum(gains[:5])


def test_the_average_moves_by_its_share_in_weights_and_running_statistics() -> None:
    average, network = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(10.0)
        network.num_batches_tracked.fill_(7)
    dual_students.move_average(average, network, decay=0.9)
    assert average.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert average.running_mean.item() == pytest.approx(0.9 * 0 + 0.1 * 10)
    assert average.num_batches_tracked.item() == 7
    assert network.weight.item() == 3


def test_the_scored_student_follows_the_first_and_is_its_average_from_then_on() -> None:
    student, run = small_student(), make_run()
    config = dual_students.Config(**{**SMALL, "average_every": 3, "average_decay": 0.75})
    rounds = dual_students.distill(make_oracle(RecordingTeacher(), 1000), student, config, run)
    for played in range(1, 8):
        before = student[4].weight.detach().clone()
        next(rounds)
        first = run.state_dict()["parts"]["students"]["0.4.weight"]
        if played <= 3:
            expected = first
        elif played == 6:
            expected = 0.75 * before + 0.25 * first
        else:
            expected = before
        torch.testing.assert_close(student[4].weight.detach(), expected)


@pytest.mark.parametrize("answers", ["labels", "probs"])
@pytest.mark.parametrize("student_steps", [1, 5])
def test_a_round_costs_its_student_batches_and_nothing_else(answers: str, student_steps: int) -> None:
    teacher = RecordingTeacher()
    config = dual_students.Config(**{**SMALL, "student_steps": student_steps, "generator_steps": 3})
    rounds = dual_students.distill(make_oracle(teacher, 1000, answers), small_student(), config, make_run())
    next(rounds)
    next(rounds)
    assert teacher.calls == [5] * (2 * student_steps)


def test_the_two_students_start_apart_and_both_learn() -> None:
    run = make_run()
    rounds = dual_students.distill(
        make_oracle(RecordingTeacher(), 100), small_student(), dual_students.Config(**SMALL), run
    )
    states = []
    for _ in range(2):
        next(rounds)
        students = run.state_dict()["parts"]["students"]
        states.append([students[f"{index}.4.weight"].clone() for index in (0, 1)])
    assert not torch.equal(states[0][0], states[0][1])
    assert not torch.equal(states[0][0], states[1][0])
    assert not torch.equal(states[0][1], states[1][1])


def test_the_batch_shrinks_so_that_a_round_fits_a_small_budget() -> None:
    teacher = RecordingTeacher()
    config = dual_students.Config(generator_width=4, latent=8)  # five batches of 256 a round by default
    next(dual_students.distill(make_oracle(teacher, 33), small_student(), config, make_run()))
    assert teacher.calls == [6] * 5


@pytest.mark.parametrize("answers", ["labels", "probs"])
@pytest.mark.parametrize("stop_after", [1, 5])
def test_a_resumed_run_ends_as_an_unbroken_one(answers: str, stop_after: int) -> None:
    assert_resuming_changes_nothing("dual_students", 70, answers, stop_after, **SMALL)
