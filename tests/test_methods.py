"""What every method must keep to, whatever it does inside."""

import copy
import inspect

import pytest
import torch
from support import RecordingTeacher, distill_to_the_end
from torch import Tensor

from methods import METHODS

# Settings small enough for a test, for the methods whose defaults are made for larger images and budgets.
SMALL: dict[str, dict[str, object]] = {
    "ideal": {"batch_size": 20, "generator_steps": 2, "generator_width": 4, "latent": 8, "crop_padding": 1},
    "dfme": {"batch_size": 10, "generator_width": 4, "latent": 8},
    "maze": {"batch_size": 4, "directions": 2, "student_steps": 3, "replays": 2, "generator_width": 4, "latent": 8},
    "disguide": {"batch_size": 10, "memory": 25, "generator_width": 4, "latent": 8},
    "dual_students": {"batch_size": 10, "average_every": 2, "generator_width": 4, "latent": 8},
    "dfms": {
        "batch_size": 20,
        "gan_passes": 1,
        "gan_images": 40,
        "latent": 8,
        "generator_width": 4,
        "discriminator_width": 4,
        "initial_passes": 2,
        "crop_padding": 1,
    },
    "zsdb3kd": {
        "candidates": 2,
        "directions": 1,
        "pushes": 1,
        "push_tries": 1,
        "push_turns": 0,
        "label_turns": 0,
        "search": {"halvings": 2},
        "passes": 5,
    },
    "qedg": {
        "batch_size": 20,
        "generator_steps": 2,
        "generator_width": 4,
        "latent": 8,
        "crop_padding": 1,
        "passes": 2,
        "final_rounds": 2,
    },
    "dfhl_rs": {
        "batch_size": 10,
        "generator_steps": 2,
        "generator_width": 4,
        "latent": 8,
        "crop_padding": 1,
        "student_steps": 3,
    },
    "dip_kd": {"batch_size": 20, "passes": 3, "contrast_passes": 2},
    "noise": {"recipe": {"min_steps": 5, "passes": 1, "batch_size": 32}},
    "real": {"recipe": {"min_steps": 5, "passes": 1, "batch_size": 32}},
    "knockoff": {"passes": 2},
}
TRACKS = [(name, answers) for name, method in METHODS.items() for answers in method.ANSWERS]


def weights(student: torch.nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in student.state_dict().values()])


@pytest.mark.parametrize(("name", "answers"), TRACKS)
@pytest.mark.parametrize("queries", [97, 200])
def test_a_method_spends_its_budget_to_within_one_batch_and_never_more(name: str, answers: str, queries: int) -> None:
    teacher = RecordingTeacher()
    _, oracle, rounds = distill_to_the_end(name, teacher, queries, answers, **SMALL[name])
    assert rounds >= 1
    assert sum(teacher.calls) == oracle.spent <= queries
    assert queries - oracle.spent < max(teacher.calls)


@pytest.mark.parametrize(("name", "answers"), TRACKS)
def test_the_same_seed_gives_the_same_student_and_another_seed_another(name: str, answers: str) -> None:
    first, again, other = (
        weights(distill_to_the_end(name, RecordingTeacher(), 120, answers, seed=seed, **SMALL[name])[0])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "answers"), TRACKS)
def test_the_teacher_is_left_as_it_was(name: str, answers: str) -> None:
    teacher = RecordingTeacher()
    before = copy.deepcopy(teacher.network.state_dict())
    distill_to_the_end(name, teacher, 100, answers, **SMALL[name])
    assert all(torch.equal(before[key], value) for key, value in teacher.network.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


@pytest.mark.parametrize(("name", "answers"), TRACKS)
def test_a_budget_of_one_query_ends_without_a_spin(name: str, answers: str) -> None:
    _, oracle, _ = distill_to_the_end(name, RecordingTeacher(), 1, answers, **SMALL[name])
    assert oracle.spent <= 1


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_where_it_comes_from_and_what_it_needs(name: str) -> None:
    method = METHODS[name]
    documentation = inspect.getdoc(method) or ""
    assert "Differs from the paper:" in documentation
    assert "Differs from the released code:" in documentation
    assert (method.Config.__doc__ or "").strip()
    assert set(method.ANSWERS) <= {"labels", "probs"}
    assert method.ANSWERS
    assert method.DATA in {"none", "train", "other"}
    assert method.PROTOCOL in {"anytime", "per_budget"}


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_setting"):
        METHODS[name].Config(no_such_setting=1)
