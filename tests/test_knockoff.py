"""Knockoff Nets: what it asks of the other data set, what it pays, and how it trains."""

import copy
from typing import Any

import pytest
import torch
from support import CPU, RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor

from methods import knockoff
from methods.run import Run


def other_images(n: int = 100) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def asked_of(data: Tensor, queries: int, seed: int = 0) -> Tensor:
    """All images that a run sends, in order."""
    sent, network = [], linear_network()

    def teacher(images: Tensor) -> Tensor:
        sent.append(images)
        return network(images).softmax(dim=1)

    next(knockoff.distill(make_oracle(teacher, queries), small_student(), knockoff.Config(), make_run(seed, data)))
    return torch.cat(sent)


def test_it_asks_about_images_of_the_other_data_set_and_about_none_of_them_twice() -> None:
    data = other_images().mul(255).round().div(255)
    asked = asked_of(data, 90)
    known, sent = ({image.numpy().tobytes() for image in images} for images in (data, asked))
    assert len(sent) == 90
    assert sent <= known


def test_another_seed_chooses_other_images() -> None:
    data = other_images()
    assert not torch.equal(asked_of(data, 20, seed=0), asked_of(data, 20, seed=1))


def test_images_are_sent_as_a_file_of_8_bits_holds_them() -> None:
    levels = asked_of(other_images(), 30) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_more_queries_than_images_are_refused() -> None:
    oracle = make_oracle(RecordingTeacher(), 101)
    rounds = knockoff.distill(oracle, small_student(), knockoff.Config(), make_run(data=other_images(100)))
    with pytest.raises(ValueError, match="101 queries: there are only 100 images"):
        next(rounds)
    assert oracle.spent == 0


def test_the_first_round_costs_the_whole_budget_and_the_others_nothing() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 90)
    config = knockoff.Config(batch_size=40, passes=3)
    spent = [oracle.spent for _ in knockoff.distill(oracle, small_student(), config, make_run(data=other_images()))]
    assert spent == [90, 90, 90]
    assert teacher.calls == [40, 40, 10]


def test_the_rate_falls_tenfold_at_each_of_the_three_shares_of_the_passes() -> None:
    oracle, run = make_oracle(RecordingTeacher(), 20), make_run(data=other_images())
    rounds = knockoff.distill(oracle, small_student(), knockoff.Config(passes=10), run)
    rates = [run.state_dict()["parts"]["optimizer"]["param_groups"][0]["lr"] for _ in rounds]
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5])


@pytest.mark.parametrize("answers", ["labels", "probs"])
def test_the_student_learns_the_answers(answers: str) -> None:
    oracle = make_oracle(RecordingTeacher(), 100, answers)
    rounds = knockoff.distill(oracle, small_student(), knockoff.Config(passes=60), make_run(data=other_images()))
    losses = [figures["loss"] for figures in rounds]
    assert losses[-1] < 0.75 * losses[0]


def test_a_resumed_run_ends_as_an_unbroken_one() -> None:
    config, data = knockoff.Config(passes=6), other_images()
    student, oracle, run = small_student(), make_oracle(RecordingTeacher(), 90), make_run(data=data)
    saved: Any = None
    for _ in knockoff.distill(oracle, student, config, run):
        run.round += 1
        if run.round == 2:
            saved = copy.deepcopy((student.state_dict(), oracle.state_dict(), run.state_dict()))
    resumed, teacher = small_student(seed=7), RecordingTeacher()
    resumed_oracle = make_oracle(teacher, 90)
    resumed.load_state_dict(saved[0])
    resumed_oracle.load_state_dict(saved[1])
    resumed_run = Run(CPU, torch.manual_seed(99), saved=saved[2], data=run.data)
    assert len(list(knockoff.distill(resumed_oracle, resumed, config, resumed_run))) == 4
    assert teacher.calls == []
    for key, value in student.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
