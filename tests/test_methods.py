"""What every method must keep to, whatever it does inside."""

import pytest
import torch
from support import CPU, make_run
from torch import nn

from bench.contract.check import check
from methods import METHODS
from methods.run import Run

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
        "least_kept": 0.25,
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
    "sketch": {"rounds": 4, "candidates": 2, "batch_size": 32, "passes": 1, "min_steps": 10},
    "noise": {"recipe": {"min_steps": 5, "passes": 1, "batch_size": 32}},
    "real": {"recipe": {"min_steps": 5, "passes": 1, "batch_size": 32}},
    "knockoff": {"passes": 2},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_to_the_contract(name: str) -> None:
    assert check(METHODS[name], SMALL[name]) == []


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_setting"):
        METHODS[name].Config(no_such_setting=1)


def test_a_resumed_run_that_is_not_put_back_is_told_what_to_do() -> None:
    run, part = make_run(), nn.Linear(1, 1)
    run.track(part=part)
    run.check_resumed()
    resumed = Run(CPU, torch.manual_seed(9), saved=run.state_dict())
    with pytest.raises(RuntimeError, match=r"with one call of run\.track\(\.\.\.\), before the first query$"):
        resumed.check_resumed()
    resumed.track(part=part)
    resumed.check_resumed()
