"""A GPU works ahead of Python until Python asks it for something: how often each method does, in each kind of round."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import CLASSES, CPU, SHAPE, RecordingTeacher, digits_cell, linear_network, make_oracle
from syncs import Syncs, rounds_of
from test_methods import SMALL
from torch import Tensor, nn

from bench.boxes.box import black_box
from bench.cells.asked import Asked
from bench.cells.run import run_cell
from methods import METHODS

# Of each call of the oracle: whether the images lie in [0, 1], and whether a box keeps back what was promised.
METER = {"labels": 1, "probs": 2, "round-2": 2, "top-2": 1}

# Of each kind of round after the first, in their order, besides the meter's.
ROUNDS: dict[str, list[dict[str, int]]] = {
    "ideal": [{"read": 1}],  # the figures, as in all rows
    "dfme": [{"read": 1}],
    "maze": [{"read": 1}],
    "disguide": [{"read": 1}],
    "dual_students": [{"read": 1}],
    "dfms": [{"read": 1}],
    # pushes; soft labels, for which it sorts the samples by class; passes
    "zsdb3kd": [{}, {"read": 1, "sized": 7}, {"read": 1}],
    # how many images it is unsure of decides how many it asks about; the last rounds
    "qedg": [{"read": 2}, {"read": 1}],
    "dfhl_rs": [{"read": 1}],
    # before the student's first pass the images are changed, with a network made for it
    "dip_kd": [{"read": 1}, {"read": 1, "sent": 4}, {"read": 1}],
    # the size of priors; by how much batches are moved; the end of the training
    "sketch": [{"read": 1, "sent": 1}, {"read": 2}, {"read": 1}],
    "noise": [{"read": 1}],
    "real": [{"read": 1}],
    "knockoff": [{"read": 1}],
}
RECIPE = {"recipe": {"passes": 3, "min_steps": 1, "batch_size": 32}}
SETTINGS = {**SMALL, "noise": RECIPE, "real": RECIPE, "qedg": {**SMALL["qedg"], "free_flip": 0.0}}


def besides_the_meter(method: str, answers: str, **settings: Any) -> list[dict[str, int]]:
    """What each round after the first waits for; of rounds alike that follow each other, the first."""
    rounds = rounds_of(METHODS[method], {**SETTINGS[method], **settings}, answers, Syncs(), CPU, queries=200)
    found = [dict(count - Counter(read=calls * METER[answers])) for calls, count in rounds[1:]]
    return [count for at, count in enumerate(found) if at == 0 or count != found[at - 1]]


@pytest.mark.parametrize(
    ("method", "answers"),
    [(name, answers) for name in METHODS for answers in METHODS[name].ANSWERS if answers in METER],
)
def test_a_round_waits_for_its_figures_and_for_nothing_that_could_be_left_on_the_device(
    method: str, answers: str
) -> None:
    assert besides_the_meter(method, answers) == ROUNDS[method]


def test_where_qedg_mirrors_for_free_each_step_waits_for_its_draw() -> None:
    plain, mirrored = (
        rounds_of(METHODS["qedg"], {**SETTINGS["qedg"], "free_flip": share}, "labels", Syncs(), CPU, 60)
        for share in (0.0, 1e-9)
    )
    more = [after["read"] - before["read"] for (_, before), (_, after) in zip(plain, mirrored, strict=True)]
    assert more[-2:] == [2 * 60 / 20] * 2  # passes, images, batch


@pytest.mark.parametrize("inputs", ["float", "uint8"])
@pytest.mark.parametrize("answers", METER)
def test_what_a_call_of_the_oracle_waits_for(answers: str, inputs: str) -> None:
    oracle, syncs = make_oracle(RecordingTeacher(), 100, answers, inputs), Syncs()
    for _ in range(3):
        images = torch.rand(5, *SHAPE)
        with syncs.counted():
            oracle(images)
        assert syncs.take() == Counter(read=METER[answers])


@pytest.mark.parametrize(("answers", "reads"), [("labels", 0), ("probs", 0), ("round-2", 0), ("top-2", 1)])
def test_the_sample_of_what_was_asked_is_kept_without_waiting_unless_answers_may_be_empty(
    answers: str, reads: int
) -> None:
    asked, syncs = Asked(black_box(linear_network()), answers), Syncs()
    for _ in range(3):
        images = torch.rand(300, *SHAPE)
        with syncs.counted():
            asked(images)
        found = syncs.take()
        assert (found["read"], found["sent"]) == (reads, 0)


def test_a_round_of_a_whole_cell_waits_for_the_range_of_the_images_and_for_its_figures(trained: Path) -> None:
    counted, syncs = [], Syncs()
    with syncs.counted():
        run_cell(
            digits_cell(trained, "ideal", 300), trained, Path("no-data"), CPU, lambda *_: counted.append(syncs.take())
        )
    assert min(round_["read"] for round_ in counted) == 2  # at some marks the student is examined besides
    assert {round_["sent"] for round_ in counted[1:]} == {0}


WAITS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "item": (lambda x: x[0].item(), "read"),
    "float": (lambda x: float(x.sum()), "read"),
    "if": (lambda x: bool((x > 0).any()), "read"),
    "tolist": (lambda x: x.tolist(), "read"),
    "cpu": (lambda x: x.cpu(), "read"),
    "comparison": (lambda x: torch.equal(x, x), "read"),
    "mask": (lambda x: x[x > 0], "sized"),
    "where": (lambda x: torch.where(x > 0), "sized"),
    "unique": (lambda x: x.unique(), "sized"),
    "list": (lambda x: torch.tensor([1.0], device=x.device), "sent"),
    "like": (lambda x: x.new_tensor([1.0]), "sent"),
    "to": (lambda x: x.to(CPU), "sent"),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_count_sees(name: str) -> None:
    function, kind = WAITS[name]
    values, syncs = torch.tensor([-1.0, 0.0, 1.0]), Syncs()
    with syncs.counted():
        function(values)
    assert syncs.take() == {kind: 1}


def test_the_count_leaves_out_what_a_gpu_does_without_waiting() -> None:
    layer, syncs = nn.Linear(3, CLASSES), Syncs()
    optimizer = torch.optim.Adam(layer.parameters())
    with syncs.counted():
        labels = torch.tensor([0, 1, 2])
        F.cross_entropy(layer(torch.eye(3)[labels.flip(0)]), labels).backward()
        optimizer.step()
        F.one_hot(labels, CLASSES)
        torch.where(labels > 0, labels, 0).to(CPU, non_blocking=True)
    assert not syncs.take()
