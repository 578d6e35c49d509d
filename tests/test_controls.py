"""Controls: noise images and real ones, each labelled once, and the schedule that all of them share."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHAPE, RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor

from methods import fitting, noise, real
from methods.fitting import Recipe, fit, optimizer_of
from methods.pool import Pool

UNHURRIED = settings(deadline=None, derandomize=True, max_examples=40)  # a busy machine is no failure
QUICK = {"passes": 1, "min_steps": 1, "batch_size": 32}
shapes = st.tuples(st.integers(1, 3), st.integers(2, 33), st.integers(2, 33))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def finish(rounds: Iterator[object]) -> int:
    return sum(1 for _ in rounds)


@UNHURRIED
@given(shape=shapes, kind=st.sampled_from(["uniform", "multiscale"]), scales=st.integers(2, 8), seed=st.integers(0, 99))
def test_noise_images_have_the_shape_asked_for_and_lie_in_0_to_1(
    shape: tuple[int, int, int], kind: str, scales: int, seed: int
) -> None:
    images = noise.draw(5, shape, noise.Config(kind=kind, scales=scales), rng(seed))
    assert images.shape == (5, *shape)
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1


@UNHURRIED
@given(shape=shapes, scales=st.integers(2, 8), seed=st.integers(0, 99))
def test_every_multiscale_image_reaches_from_0_to_1(shape: tuple[int, int, int], scales: int, seed: int) -> None:
    low, high = noise.multiscale(5, shape, scales, rng(seed)).flatten(1).aminmax(dim=1)
    assert torch.equal(low, torch.zeros(5))
    assert torch.allclose(high, torch.ones(5))


def correlation_of_neighbours(images: Tensor) -> float:
    centred = images - images.flatten(1).mean(dim=1)[:, None, None, None]
    products = (centred[..., :-1] * centred[..., 1:]).mean()
    return (products / centred.square().mean()).item()


def test_neighbouring_pixels_agree_in_multiscale_noise_and_not_in_uniform_noise() -> None:
    shape = (1, 32, 32)
    assert correlation_of_neighbours(noise.multiscale(200, shape, 6, rng())) > 0.5
    uniform = noise.draw(200, shape, noise.Config(), rng())
    assert abs(correlation_of_neighbours(uniform)) < 0.05
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)


def test_no_two_multiscale_images_are_the_same() -> None:
    images = noise.multiscale(50, (1, 8, 8), 6, rng())
    assert len(images.flatten(1).unique(dim=0)) == 50


def test_one_scale_alone_is_refused_because_a_single_grey_stretched_to_0_to_1_is_no_image() -> None:
    with pytest.raises(ValueError, match="scales"):
        noise.Config(kind="multiscale", scales=1)


@pytest.mark.parametrize("queries", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("kind", ["uniform", "multiscale"])
def test_noise_spends_the_whole_budget_and_asks_about_no_image_twice(queries: int, kind: str) -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, queries)
    finish(noise.distill(oracle, small_student(), noise.Config(kind=kind, recipe=Recipe(**QUICK)), make_run()))
    assert sum(teacher.calls) == oracle.spent == oracle.distinct == queries


def test_what_noise_keeps_in_its_pool_is_what_it_sent() -> None:
    seen: list[Tensor] = []

    def teacher(images: Tensor) -> Tensor:
        seen.append(images)
        return linear_network()(images).softmax(dim=1).detach()

    run = make_run()
    oracle = make_oracle(teacher, 40)
    finish(noise.distill(oracle, small_student(), noise.Config(recipe=Recipe(**QUICK)), run))
    kept = run.state_dict()["parts"]["pool"]["images"].float().div(255)
    assert torch.equal(kept, torch.cat(seen))


@pytest.mark.parametrize("queries", [1, 32, 50])
def test_real_asks_about_that_many_training_images_and_each_at_most_once(queries: int) -> None:
    images = torch.rand(50, *SHAPE, generator=rng())
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, queries)
    config = real.Config(recipe=Recipe(**QUICK))
    finish(real.distill(oracle, small_student(), config, make_run(data=images)))
    assert sum(teacher.calls) == oracle.spent == oracle.distinct == queries


def test_real_sends_training_images_alone_and_others_with_another_seed() -> None:
    images = torch.arange(50).float().div(255).view(50, 1, 1, 1).expand(50, *SHAPE)
    chosen = []
    for seed in (0, 1):
        run = make_run(seed, data=images)
        oracle = make_oracle(RecordingTeacher(), 20)
        finish(real.distill(oracle, small_student(), real.Config(recipe=Recipe(**QUICK)), run))
        sent = run.state_dict()["parts"]["pool"]["images"]
        chosen.append(set(sent[:, 0, 0, 0].tolist()))
    assert all(len(levels) == 20 and levels <= set(range(50)) for levels in chosen)
    assert chosen[0] != chosen[1]


def test_a_budget_above_the_number_of_training_images_is_not_used_up() -> None:
    oracle = make_oracle(RecordingTeacher(), 70)
    run = make_run(data=torch.rand(50, *SHAPE, generator=rng()))
    finish(real.distill(oracle, small_student(), real.Config(recipe=Recipe(**QUICK)), run))
    assert oracle.spent == oracle.distinct == 50


def labelled_pool(n: int) -> Pool:
    pool, images = Pool(), torch.rand(n, *SHAPE, generator=rng())
    pool.add(images, linear_network()(images).argmax(dim=1))
    return pool


def rates_of(pool: Pool, recipe: Recipe) -> list[float]:
    """The learning rate of every step of a fit."""
    student, rates = small_student(), []
    optimizer = optimizer_of(student, recipe)
    optimizer.register_step_pre_hook(lambda chosen, *_: rates.append(chosen.param_groups[0]["lr"]))
    finish(fit(student, optimizer, pool, recipe, make_run(), make_oracle(RecordingTeacher(), 1)))
    return rates


def test_the_rate_rises_over_the_first_twentieth_and_then_falls_to_nearly_nothing() -> None:
    rates = rates_of(labelled_pool(50), Recipe(batch_size=16, passes=20, min_steps=1, lr=0.05))
    assert len(rates) == 20 * 4
    assert rates[0] == pytest.approx(0.05 / 4, rel=0.01)
    assert rates[3] == max(rates) == pytest.approx(0.05, rel=0.01)
    assert all(before < after for before, after in pairwise(rates[:4]))
    assert all(after < before for before, after in pairwise(rates[3:]))
    assert rates[40] == pytest.approx(0.025)
    assert rates[-1] < 0.05 * 1e-3


@pytest.mark.parametrize(
    ("images", "passes", "min_steps", "steps"),
    [(1, 2, 10, 10), (16, 2, 10, 10), (50, 2, 10, 12), (50, 5, 10, 20), (50, 2, 1, 8)],
)
def test_a_fit_takes_at_least_the_passes_and_at_least_the_steps_it_is_told(
    images: int, passes: int, min_steps: int, steps: int
) -> None:
    assert len(rates_of(labelled_pool(images), Recipe(batch_size=16, passes=passes, min_steps=min_steps))) == steps


def test_a_constant_rate_stays_as_it_is() -> None:
    recipe = Recipe(batch_size=16, passes=3, min_steps=1, lr=0.01, schedule="constant")
    assert set(rates_of(labelled_pool(50), recipe)) == {0.01}


def test_noise_of_which_every_view_is_asked_about_costs_a_query_for_each_pass() -> None:
    recipe = Recipe(batch_size=8, passes=5, min_steps=1, augment="crop", crop_padding=2)
    oracle, run = make_oracle(RecordingTeacher(), 103), make_run()
    figures = list(noise.distill(oracle, small_student(), noise.Config(relabel="every_view", recipe=recipe), run))
    assert [round_["pool"] for round_ in figures] == [20] * 5
    assert oracle.spent == 100
    assert oracle.distinct > 90


def test_noise_of_which_every_view_is_asked_about_has_its_rate_fall_over_the_passes_that_are_paid_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = []
    monkeypatch.setattr(fitting, "rate", lambda recipe, step, total: steps.append((step, total)) or recipe.lr)
    config = noise.Config(relabel="every_view", recipe=Recipe(batch_size=8, passes=5, min_steps=1000))
    list(noise.distill(make_oracle(RecordingTeacher(), 100), small_student(), config, make_run()))
    assert steps == [(step, 15) for step in range(15)]


def test_noise_of_which_not_one_view_can_be_paid_for_asks_nothing() -> None:
    oracle = make_oracle(RecordingTeacher(), 4)
    config = noise.Config(relabel="every_view", recipe=Recipe(passes=5))
    assert list(noise.distill(oracle, small_student(), config, make_run())) == []
    assert oracle.spent == 0


@pytest.mark.parametrize("kind", ["uniform", "multiscale", "shapes"])
def test_each_kind_of_noise_fills_its_range_and_repeats_nothing(kind: str) -> None:
    images = noise.draw(50, (3, 12, 20), noise.Config(kind=kind), rng())
    assert images.shape == (50, 3, 12, 20)
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 50


def test_layers_enlarged_to_the_nearest_are_flat_and_a_scale_of_one_pixel_can_be_left_out() -> None:
    flat = noise.multiscale(4, (1, 8, 8), 6, rng(), "nearest", pixels=False)  # squares of 2 x 2 at the finest
    assert torch.equal(flat[..., ::2], flat[..., 1::2])
    fine = noise.multiscale(4, (1, 8, 8), 6, rng(), "nearest")
    assert not torch.equal(fine[..., ::2], fine[..., 1::2])


def test_a_fit_learns_its_pool() -> None:
    student, pool, recipe = small_student(), labelled_pool(200), Recipe(passes=10, min_steps=150, batch_size=32)
    rounds = fit(student, optimizer_of(student, recipe), pool, recipe, make_run(), make_oracle(RecordingTeacher(), 1))
    losses = [figures["loss"] for figures in rounds]
    assert losses[-1] < 0.5 * losses[0]


def test_a_fit_leaves_the_pool_as_it_is_and_asks_nothing() -> None:
    pool, recipe, student = labelled_pool(20), Recipe(**QUICK), small_student()
    before, oracle = pool.state_dict()["images"], make_oracle(RecordingTeacher(), 1)
    finish(fit(student, optimizer_of(student, recipe), pool, recipe, make_run(), oracle))
    assert oracle.spent == 0
    assert torch.equal(pool.state_dict()["images"], before)


def test_the_answers_of_both_tracks_can_be_learned_from() -> None:
    for answers in ("labels", "probs"):
        oracle, recipe = make_oracle(RecordingTeacher(), 40, answers), Recipe(batch_size=8, passes=30, min_steps=1)
        losses = [r["loss"] for r in noise.distill(oracle, small_student(), noise.Config(recipe=recipe), make_run())]
        assert len(losses) == 30
        assert losses[-1] < losses[0]
