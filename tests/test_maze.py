"""MAZE: its estimate is a gradient, its rounds cost what the formula says, and replay costs nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor, nn

from methods import maze
from methods.generators import to_image

SMALL = {"batch_size": 3, "directions": 2, "student_steps": 4, "replays": 5, "generator_width": 4, "latent": 8}


def true_gradient(teacher: nn.Module, student: nn.Module, maps: Tensor) -> Tensor:
    """The gradient of minus the mean divergence, through the teacher as well, which only a test may look into."""
    maps = maps.clone().requires_grad_()
    images = to_image(maps)
    log_probs = F.log_softmax(student(images), dim=1)
    (-F.kl_div(log_probs, teacher(images).softmax(dim=1), reduction="batchmean")).backward()
    assert maps.grad is not None
    return maps.grad


def test_on_one_pixel_the_estimate_is_the_gradient() -> None:
    shape = (1, 1, 1)  # the only unit vectors are 1 and -1, so nothing is left to chance
    teacher, student = linear_network(3, shape=shape), linear_network(4, shape=shape)
    maps = torch.tensor([-1.0, 0.2, 0.5, 2.0]).view(4, 1, 1, 1)
    oracle = make_oracle(RecordingTeacher(teacher), 8, "probs", shape=shape)
    estimate, _ = maze.estimate_gradient(oracle, student, maps, 1, 1e-2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate, true_gradient(teacher, student, maps), rtol=0.05, atol=1e-4)


def test_over_many_directions_the_estimate_tends_to_the_gradient() -> None:
    shape = (1, 2, 2)
    teacher, student = linear_network(3, shape=shape), linear_network(4, shape=shape)
    maps = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    oracle = make_oracle(RecordingTeacher(teacher), 20_002, "probs", shape=shape)
    estimate, _ = maze.estimate_gradient(oracle, student, maps, 10_000, 1e-2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate, true_gradient(teacher, student, maps), rtol=0.1, atol=2e-3)
    assert oracle.remaining == 0


def test_the_estimate_hands_back_the_answers_for_the_images_themselves() -> None:
    teacher = RecordingTeacher()
    maps = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    oracle = make_oracle(teacher, 9, "probs")
    _, answers = maze.estimate_gradient(oracle, small_student(), maps, 2, 1e-3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(answers, teacher(to_image(maps)))


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    probs = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    torch.testing.assert_close(maze.divergence(logits, probs), torch.tensor([0.0, math.log(2)]))


@pytest.mark.parametrize(("generator_steps", "student_steps"), [(1, 4), (2, 2)])
def test_a_round_costs_the_estimates_and_all_student_batches_but_the_first(
    generator_steps: int, student_steps: int
) -> None:
    config = maze.Config(**{**SMALL, "generator_steps": generator_steps, "student_steps": student_steps})
    oracle, run = make_oracle(RecordingTeacher(), 1000, "probs"), make_run()
    next(maze.distill(oracle, small_student(), config, run))
    directions = config.directions
    assert oracle.spent == 3 * (generator_steps * (directions + 1) + student_steps - 1)
    assert oracle.distinct == oracle.spent  # nothing is asked twice, replay asks nothing
    assert len(run.state_dict()["parts"]["memory"]["answers"]) == 3  # the last batch of the round


def test_memory_holds_the_last_batch_as_it_was_sent() -> None:
    sent, network = [], linear_network()

    def teacher(images: Tensor) -> Tensor:
        sent.append(images)
        return network(images).softmax(dim=1)

    run = make_run()
    next(maze.distill(make_oracle(teacher, 100, "probs"), small_student(), maze.Config(**SMALL), run))
    memory = run.state_dict()["parts"]["memory"]
    assert torch.equal(memory["images"] / 255, sent[-1])
    assert torch.equal(memory["answers"], teacher(sent[-1]))


def test_replay_trains_the_student_without_a_query() -> None:
    def student_and_cost(replays: int) -> tuple[Tensor, int]:
        student, oracle = small_student(), make_oracle(RecordingTeacher(), 1000, "probs")
        next(maze.distill(oracle, student, maze.Config(**{**SMALL, "replays": replays}), make_run()))
        return student.state_dict()["4.weight"], oracle.spent

    (without, cost_without), (with_replay, cost_with) = student_and_cost(0), student_and_cost(5)
    assert not torch.equal(without, with_replay)
    assert cost_without == cost_with


def test_the_rates_fall_along_a_cosine_over_the_budget() -> None:
    oracle, run = make_oracle(RecordingTeacher(), 72, "probs"), make_run()  # four rounds of 18
    rounds = maze.distill(oracle, small_student(), maze.Config(**SMALL), run)
    for spent_share in (0, 1 / 4, 2 / 4, 3 / 4):
        next(rounds)
        parts, decay = run.state_dict()["parts"], (1 + math.cos(math.pi * spent_share)) / 2
        assert parts["student_optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1 * decay)
        assert parts["generator_optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-4 * decay)
    assert oracle.remaining == 0


def test_the_batch_shrinks_so_that_a_round_fits_a_small_budget() -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 31, "probs")
    config = maze.Config(generator_width=4, latent=8)  # 15 batches a round by default
    assert next(maze.distill(oracle, small_student(), config, make_run()))["memory"] == 2
    assert oracle.spent == 30
    assert teacher.calls == [22, 2, 2, 2, 2]


def test_a_resumed_run_ends_as_an_unbroken_one() -> None:
    assert_resuming_changes_nothing("maze", 130, "probs", stop_after=3, **SMALL)
