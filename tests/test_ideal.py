"""IDEAL: what its rounds cost, with labels once and with labels for every view, and what one round makes."""

import math

import pytest
import torch
from support import RecordingTeacher, linear_network, make_oracle, make_run
from torch import Tensor, nn

from budgets import BudgetExhausted, Oracle
from methods import ideal
from methods.generators import ideal_generator

SHAPE = (1, 4, 4)
# A round of 250 images costs the least work: one generator step, one channel, one number of noise.
TINY = {"generator_steps": 1, "generator_width": 1, "latent": 1, "augment_generation": "none", "augment": "none"}


def student(classes: int = 4) -> nn.Module:
    return linear_network(seed=1, classes=classes, shape=SHAPE)


def oracle_of(queries: int) -> tuple[Oracle, RecordingTeacher]:
    teacher = RecordingTeacher(linear_network(shape=SHAPE))
    return make_oracle(teacher, queries, shape=SHAPE), teacher


def rounds_of(oracle: Oracle, **settings: object) -> list[dict[str, float]]:
    config = ideal.Config(**{**TINY, **settings})
    figures: list[dict[str, float]] = []
    try:
        for figure in ideal.distill(oracle, student(), config, make_run()):
            figures.append(figure)  # noqa: PERF402 - the rounds before the end are kept when it is an exception
    except BudgetExhausted:
        pass
    return figures


def test_a_hundred_rounds_of_250_images_labelled_once_cost_25_000_queries() -> None:
    oracle, teacher = oracle_of(25_000)
    rounds = rounds_of(oracle, relabel="once")
    assert len(rounds) == 100
    assert teacher.calls == [250] * 100
    assert oracle.spent == 25_000
    assert oracle.distinct <= 25_000
    assert rounds[-1]["pool"] == 25_000


def test_a_hundred_rounds_of_250_images_labelled_in_every_view_cost_1_262_500_queries() -> None:
    oracle, teacher = oracle_of(1_262_500)
    rounds = rounds_of(oracle, relabel="every_view")
    assert len(rounds) == 100
    assert sum(teacher.calls) == oracle.spent == 1_262_500
    assert rounds[-1]["pool"] == 25_000
    assert oracle.distinct <= 25_000  # without augmentation the same images are asked about again and again


def test_ten_rounds_of_50_cost_2_750_queries_when_every_view_is_labelled() -> None:
    oracle, _ = oracle_of(100_000)
    method = ideal.distill(oracle, student(), ideal.Config(**TINY, relabel="every_view", batch_size=50), make_run())
    costs = []
    for _ in range(10):
        before = oracle.spent
        next(method)
        costs.append(oracle.spent - before)
    assert costs == [50 * n for n in range(1, 11)]
    assert oracle.spent == 2_750


def test_each_further_pass_over_the_pool_is_free_with_labels_kept_and_paid_without() -> None:
    for relabel, cost in (("once", 10), ("every_view", 30)):
        oracle, _ = oracle_of(100)
        config = ideal.Config(**TINY, relabel=relabel, batch_size=10, passes=3)
        next(ideal.distill(oracle, student(), config, make_run()))
        assert oracle.spent == cost


@pytest.mark.parametrize("queries", [2, 249, 250, 251, 499, 750])
@pytest.mark.parametrize("relabel", ["once", "every_view"])
def test_any_budget_ends_the_run_and_is_not_passed(queries: int, relabel: str) -> None:
    oracle, teacher = oracle_of(queries)
    rounds = rounds_of(oracle, relabel=relabel)
    assert len(rounds) >= 1
    assert sum(teacher.calls) == oracle.spent <= queries
    assert queries - oracle.spent < 250


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_of_even_predictions_the_loss_is_log_k_less_the_weighted_information(classes: int) -> None:
    loss = ideal.generation_loss(torch.zeros(3, classes), torch.arange(3) % classes, information_weight=5.0)
    assert loss.item() == pytest.approx(math.log(classes) - 5 * math.log(classes) / classes)


def test_the_generation_loss_is_the_one_computed_by_hand() -> None:
    probs = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    cross_entropy = -(math.log(0.25) + math.log(0.5)) / 2
    information = (0.75 * math.log(0.75) + 0.25 * math.log(0.25) + 2 * 0.5 * math.log(0.5)) / 4
    loss = ideal.generation_loss(probs.log() + 3, torch.tensor([1, 0]), information_weight=2.0)
    assert loss.item() == pytest.approx(cross_entropy + 2 * information)


def test_without_its_weight_the_information_is_left_out() -> None:
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([2])
    expected = nn.functional.cross_entropy(logits, targets).item()
    assert ideal.generation_loss(logits, targets, 0.0).item() == pytest.approx(expected)


def test_reset_draws_all_weights_anew_at_their_published_scale() -> None:
    generator = ideal_generator(latent=32, width=16, shape=(1, 8, 8))
    before = {name: value.clone() for name, value in generator.named_parameters()}
    torch.manual_seed(0)
    generator.apply(ideal.reset)
    norms = {f"{name}.weight" for name, part in generator.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert norms
    for name, value in generator.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
            continue
        assert not torch.equal(value, before[name])
        assert value.mean().item() == pytest.approx(1.0 if name in norms else 0.0, abs=0.02)
        assert value.std().item() == pytest.approx(0.02, rel=0.5)


def test_the_generator_starts_anew_each_round_only_if_it_is_asked_to() -> None:
    config = ideal.Config(**{**TINY, "generator_lr": 1e-12})  # so that training moves nothing
    for reset_generator in (True, False):
        generator = ideal_generator(1, 1, SHAPE)
        before = generator.project.weight.detach().clone()
        chosen = config.model_copy(update={"reset_generator": reset_generator})
        ideal.generate(generator, student(), torch.arange(8) % 4, chosen, make_run())
        assert torch.allclose(generator.project.weight, before, atol=1e-6) == (not reset_generator)


def scripted_losses(
    monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> tuple[list[Tensor], list[Tensor], type[nn.Module]]:
    """Replace the generation loss by a script; returns the targets and the images it will be given, and the student."""
    script, targets_seen, images_seen = iter(losses), [], []

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            images_seen.append(images.detach().clone())
            return images.flatten(1)[:, :4]

    def loss(logits: Tensor, targets: Tensor, _: float) -> Tensor:
        targets_seen.append(targets)
        return logits.mean() * 0.01 - logits.mean().detach() * 0.01 + next(script)

    monkeypatch.setattr(ideal, "generation_loss", loss)
    return targets_seen, images_seen, Watching


def test_the_batch_of_lowest_loss_on_the_way_is_the_one_that_is_kept_in_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen, watching = scripted_losses(monkeypatch, [3.0, 1.0, 2.0, 1.5])
    config = ideal.Config(**{**TINY, "generator_steps": 4, "generator_lr": 0.5, "latent": 4, "generator_width": 4})
    images, lowest = ideal.generate(ideal_generator(4, 4, SHAPE), watching(), torch.arange(6) % 4, config, make_run())
    assert lowest.item() == pytest.approx(1.0)
    assert torch.equal(images, (seen[1] * 255).round() / 255)
    assert not any(torch.equal(images, (seen[step] * 255).round() / 255) for step in (0, 2, 3))
    assert not images.requires_grad


@pytest.mark.parametrize("batch_size", [8, 5, 3])
def test_the_wanted_classes_are_spread_evenly_over_each_batch_and_over_all(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    seen: list[Tensor] = []
    loss = ideal.generation_loss

    def watched(logits: Tensor, targets: Tensor, weight: float) -> Tensor:
        seen.append(targets)
        return loss(logits, targets, weight)

    monkeypatch.setattr(ideal, "generation_loss", watched)
    rounds_of(oracle_of(5 * batch_size)[0], relabel="once", batch_size=batch_size)
    assert [len(targets) for targets in seen] == [batch_size] * 5
    for targets in (*seen, torch.cat(seen)):
        counts = targets.bincount(minlength=4)
        assert counts.max() - counts.min() <= 1


def test_making_images_asks_nothing_and_leaves_the_student_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), student())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = ideal.Config(**{**TINY, "generator_steps": 3})
    images, _ = ideal.generate(ideal_generator(1, 1, SHAPE), network, torch.arange(10) % 4, config, make_run())
    assert images.shape == (10, *SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_training_the_generator_lowers_its_loss() -> None:
    losses = {}
    for steps in (1, 60):
        config = ideal.Config(
            **{**TINY, "generator_steps": steps, "generator_lr": 0.01, "latent": 8, "generator_width": 8}
        )
        torch.manual_seed(0)
        _, losses[steps] = ideal.generate(
            ideal_generator(8, 8, SHAPE), student(), torch.arange(20) % 4, config, make_run()
        )
    assert losses[60] < losses[1] - 0.05


def test_a_batch_is_that_of_a_loop_which_also_computes_the_students_gradients() -> None:
    config = ideal.Config(**{**TINY, "generator_steps": 5, "generator_lr": 0.05, "latent": 4, "generator_width": 4})
    images, lowest = ideal.generate(
        ideal_generator(4, 4, SHAPE), network := student(), torch.arange(6) % 4, config, make_run()
    )
    assert all(weight.grad is None for weight in network.parameters())
    plain_images, plain_lowest = plain_generate(config, student(), 6, 4)
    assert torch.equal(images, plain_images)
    assert lowest.item() == plain_lowest


def plain_generate(config: ideal.Config, network: nn.Module, n: int, classes: int) -> tuple[Tensor, float]:
    generator, run = ideal_generator(4, 4, SHAPE), make_run()
    generator.apply(ideal.reset)
    noise = torch.randn(n, config.latent, generator=run.rng)
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.generator_lr, betas=(0.5, 0.999))
    best, lowest = torch.empty(0), math.inf
    for _ in range(config.generator_steps):
        images = generator(noise)
        loss = ideal.generation_loss(network(images), torch.arange(n) % classes, config.information_weight)
        if loss.item() < lowest:
            best, lowest = images.detach(), loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best.mul(255).round() / 255, lowest
