"""Sketch: which images are asked about, what is drawn, and what the student learns."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from resuming import assert_resuming_changes_nothing
from support import SHAPE, RecordingTeacher, bench, make_oracle, make_run, small_student
from test_cli import OFF
from torch import Tensor, nn

from methods import sketch
from methods.sources import SOURCES
from methods.sources.tones import tone

SMALL: dict[str, object] = {"rounds": 4, "candidates": 2, "batch_size": 32, "passes": 1, "min_steps": 10}
SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 17)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run_it(queries: int, **settings: object) -> tuple[RecordingTeacher, nn.Module, list[dict[str, float]]]:
    teacher, student = RecordingTeacher(), small_student()
    config = sketch.Config.model_validate({**SMALL, **settings})
    oracle = make_oracle(teacher, queries)
    figures = list(sketch.distill(oracle, student, config, make_run()))
    assert oracle.spent == oracle.distinct == queries
    return teacher, student, figures


def test_the_lowest_places_fill_the_rarest_classes_and_take_the_highest_values_first() -> None:
    classes = torch.tensor([0, 1, 1, 1, 2, 2])
    value = torch.tensor([0.9, 0.1, 0.8, 0.5, 0.2, 0.7])
    # Places: 4 in class 0; 3, 1 and 2 in class 1, by value; 3 and 2 in class 2.
    kept = sketch.lowest_places(classes, value, torch.tensor([3.0, 0.0, 1.0]), 3)
    assert set(kept.tolist()) == {2, 3, 5}
    assert kept[0] == 2


@pytest.mark.parametrize("n", [1, 7, 60])
def test_labels_are_as_even_as_the_candidates_allow(n: int) -> None:
    classes = torch.randint(4, (80,), generator=rng())
    counts = torch.tensor([5.0, 0.0, 2.0, 9.0])
    kept = sketch.lowest_places(classes, torch.rand(80, generator=rng()), counts, n)
    assert len(kept.unique()) == n
    after, left = counts.clone(), set(range(80)) - set(kept.tolist())
    for k in kept.tolist():
        after[classes[k]] += 1
    for k in kept.tolist():  # no image that was left out would have had a lower place
        assert all(after[classes[k]] <= after[classes[other]] + 1 or classes[k] == classes[other] for other in left)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_draws_images_of_any_size_in_range_each_another(name: str, shape: tuple[int, int, int]) -> None:
    images = SOURCES[name](40, shape, rng())  # type: ignore[index]
    assert images.shape == (40, *shape)
    for part in (images, tone(images, rng())):
        assert part.min() >= 0
        assert part.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 40
    assert torch.equal(images, SOURCES[name](40, shape, rng()))  # type: ignore[index]


@pytest.mark.parametrize("name", ["leaves", "strokes"])
def test_some_of_what_is_drawn_in_colour_is_grey(name: str) -> None:
    images = SOURCES[name](400, (3, 16, 16), rng())  # type: ignore[index]
    spread = (images - images.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3))
    assert 0.1 < (spread < 1e-6).float().mean() < 0.75


def test_a_mirrored_blob_is_its_own_mirror_image_and_half_of_them_are() -> None:
    images = SOURCES["blobs"](400, (1, 28, 28), rng())
    mirrored = torch.isclose(images, images.flip(-1)).flatten(1).all(dim=1)
    assert 0.35 < mirrored.float().mean() < 0.65


def test_each_source_has_its_even_share_of_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, int] = {}

    def counted(name: str) -> Callable[..., Tensor]:
        def source(n: int, *_: object) -> Tensor:
            drawn[name] = drawn.get(name, 0) + n
            return torch.zeros(n, *SHAPE)

        return source

    monkeypatch.setattr(sketch, "SOURCES", {name: counted(name) for name in SOURCES})
    images = sketch.draw(1300, sketch.Config(sources=("noise", "strokes")), SHAPE, rng())
    assert (len(images), drawn) == (1300, {"noise": 650, "strokes": 650})


@given(n=st.integers(0, 10**6), parts=st.integers(1, 40))
def test_even_parts_are_all_there_is_and_differ_by_one_at_most(n: int, parts: int) -> None:
    sizes = sketch.evenly(n, parts)
    assert (len(sizes), sum(sizes)) == (parts, n)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("queries", "sizes"), [(200, [20, 60, 60, 60]), (5, [1, 1, 1, 2]), (2, [1, 1]), (1, [1])], ids=str
)
def test_a_round_asks_about_its_share_of_the_budget(queries: int, sizes: list[int]) -> None:
    assert sketch.sizes_of_rounds(queries, sketch.Config.model_validate(SMALL)) == sizes


def test_the_rate_stays_while_asking_and_then_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    learn = sketch.learn

    def watched(student: nn.Module, optimizer: object, steps: list[sketch.Step], *rest: object) -> Tensor:
        rates.append([step.rate for step in steps])
        return learn(student, optimizer, steps, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sketch, "learn", watched)
    run_it(100, min_steps=25, lr=0.1)
    assert rates[:4] == [[0.1] * 7] * 4
    assert len(rates) == 4 + sketch.PARTS
    last = [rate for part in rates[4:] for rate in part]
    assert len(last) == 25
    assert last[0] == 0.1
    assert last == sorted(last, reverse=True)
    assert last[-1] < 0.001


def test_the_training_to_the_end_has_a_step_for_each_of_its_rounds_at_least() -> None:
    _, _, figures = run_it(5, min_steps=sketch.PARTS, rounds=1)
    assert len(figures) == 1 + sketch.PARTS
    with pytest.raises(ValueError, match="min_steps"):
        sketch.Config(min_steps=sketch.PARTS - 1)


@pytest.mark.parametrize("settings", [{"sources": []}, {"moves": 8}])
def test_settings_that_would_break_a_run_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        sketch.Config.model_validate(settings)


def test_each_image_is_asked_about_once_in_rounds_of_the_budget() -> None:
    teacher, _, figures = run_it(200)
    assert teacher.calls == [20, 60, 60, 60]
    assert len(figures) == 4 + sketch.PARTS
    assert all(0 <= figure["evenness"] <= 1 for figure in figures)


def test_choosing_for_evenness_makes_labels_more_even_than_chance() -> None:
    settings: dict[str, object] = {"rounds": 8, "candidates": 12, "min_steps": 200}
    chance = run_it(600, choose="random", **settings)[2][-1]["evenness"]
    chosen = run_it(600, choose="even", **settings)[2][-1]["evenness"]
    assert chosen > chance


@pytest.mark.parametrize("restart", [True, False])
def test_the_student_starts_from_the_first_weights_once_all_labels_are_there(
    monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    started: list[Tensor] = []
    learn = sketch.learn

    def watched(student: nn.Module, *rest: object) -> Tensor:
        started.append(next(student.parameters()).detach().clone())
        return learn(student, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sketch, "learn", watched)
    run_it(100, restart=restart)
    anew = [k for k, weights in enumerate(started) if torch.equal(weights, started[0])]
    assert anew == ([0, 4] if restart else [0])


@pytest.mark.parametrize("moves", [0, 1])
def test_the_student_meets_moved_images_only_before_the_last_passes_of_the_training_to_the_end(moves: int) -> None:
    student, asked, met = small_student(), list[Tensor](), list[Tensor]()

    def teacher(images: Tensor) -> Tensor:
        asked.append(images)
        return RecordingTeacher()(images)

    student.register_forward_pre_hook(lambda network, inputs: met.append(inputs[0]) if network.training else None)
    config = sketch.Config.model_validate({**SMALL, "moves": moves, "min_steps": 20, "passes": 3})
    ends = [len(met) for _ in sketch.distill(make_oracle(teacher, 60), student, config, make_run())]
    first, last = ends[3], len(met) - 3 * 2  # three passes of two batches are as asked, and so is all while asking
    images, moved, as_asked = torch.cat(asked), torch.cat(met[first:last]), torch.cat(met[:first] + met[last:])
    assert last - first == 14
    views = F.pad(images, [moves] * 4).unfold(2, SHAPE[1], 1).unfold(3, SHAPE[2], 1).permute(0, 2, 3, 1, 4, 5)
    assert far_from(as_asked, images) == 0
    assert far_from(moved, views.reshape(-1, *SHAPE)) == 0
    assert (far_from(moved, images) > 0) == (moves > 0)


def test_where_labels_are_so_many_that_none_is_met_too_often_no_image_is_moved() -> None:
    parts = [sketch.to_the_end(part, 100, 0, sketch.Config(moves=1), make_run()) for part in range(sketch.PARTS)]
    assert {step.offset for part in parts for step in part} == {(0, 0)}


def test_a_moved_image_lies_further_down_and_right_and_black_fills_what_is_left() -> None:
    images = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    assert sketch.moved(images, 1, 0)[0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert sketch.moved(images, 0, -1)[0, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    assert torch.equal(sketch.moved(images, 0, 0), images)


def far_from(images: Tensor, known: Tensor) -> int:
    """How many images are none of the known."""
    return int((torch.cdist(images.flatten(1), known.flatten(1), p=math.inf).amin(dim=1) > 1e-6).sum())


def test_the_average_is_the_mean_of_the_first_steps_and_then_keeps_a_share() -> None:
    student = nn.Linear(1, 1)
    average = sketch.Average(student, keep=0.75)
    for step, mean in enumerate((1.0, 1.5, 2.0, 2.5, 3.125)):  # then 3/4 of 2.5 and 1/4 of 5
        with torch.no_grad():
            student.weight.fill_(1.0 + step)
        average.follow(student)
        assert next(average.network.parameters()).item() == pytest.approx(mean)


def test_the_average_takes_over_what_batch_norm_counts() -> None:
    student = nn.BatchNorm1d(1)
    average = sketch.Average(student, keep=0.5)
    student.get_buffer("running_mean").fill_(3.0)
    average.follow(student)
    average.follow(student)
    assert average.network.get_buffer("running_mean").item() == 3.0


def test_a_resumed_run_is_the_run_that_never_stopped() -> None:
    config = sketch.Config.model_validate(SMALL)
    assert len(sketch.sizes_of_rounds(100, config)) == 4
    for stop_after in (2, 4, 5, 9, 3 + sketch.PARTS):
        assert_resuming_changes_nothing("sketch", 100, "labels", stop_after, **SMALL)


def colour_shapes(root: Path) -> Path:
    """Three classes of images of 32 pixels in colour: a red disc, a green square, blue stripes, on any plain ground."""
    draws = np.random.default_rng(0)
    down, across = np.mgrid[:32, :32]
    for part, n in (("train", 150), ("test", 20)):
        for label, name in enumerate(("discs", "squares", "stripes")):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                y, x = draws.integers(10, 22, 2)
                inside = [
                    (down - y) ** 2 + (across - x) ** 2 < 64,
                    (abs(down - y) < 8) & (abs(across - x) < 8),
                    (down + across + y) % 8 < 4,
                ][label]
                image = np.broadcast_to(draws.integers(0, 90, 3, dtype=np.uint8), (32, 32, 3)).copy()
                image[inside, label] = draws.integers(160, 255)
                Image.fromarray(image).save(root / part / name / f"{i:02}.png")
    return root


@pytest.mark.slow
def test_a_student_of_colour_images_of_32_pixels_learns_more_than_from_noise(tmp_path: Path) -> None:
    task = f"folder:{colour_shapes(tmp_path / 'shapes')}@lenet-bn,lenet-bn"
    grid = tmp_path / "colour.yaml"
    grid.write_text(
        "description: one task\ntasks: [digits-lenet]\nbudgets: [600]\nanswers: [labels]\nseeds: 1\nmethods:\n"
        "  sketch: {config: {min_steps: 150, rounds: 6}}\n"
        "  noise: {config: {recipe: {min_steps: 300, passes: 1}}}\n"
    )
    words = (
        "run",
        "--grid",
        str(grid),
        "--task",
        task,
        "--out",
        str(tmp_path / "runs"),
        "--device",
        "cpu",
        "--jobs",
        "1",
    )
    assert bench(*words, *OFF) == 0
    curves = {file.parent.name: json.loads(file.read_text()) for file in tmp_path.glob("runs/cells/*/curve.json")}
    accuracy = {name.split(".")[-5]: points[-1]["accuracy"] for name, points in curves.items()}
    assert accuracy["sketch"] > max(0.6, accuracy["noise"])
