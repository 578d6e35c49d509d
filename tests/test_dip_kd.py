"""DIP-KD: its images, its contrast, and that both askings are paid for."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from resuming import assert_resuming_changes_nothing
from support import RecordingTeacher, linear_network, make_oracle, make_run, small_student
from torch import Tensor, nn
from torchvision.transforms import ElasticTransform

from methods import dip_kd
from methods.image_priors import Priors, blur, distort, diverge, elastic_shifts, image_priors, semantic_mask
from methods.pool import Pool

SMALL: dict[str, object] = {"batch_size": 8, "passes": 3, "contrast_passes": 2, "contrast_lr": 0.02, "augment": "crop"}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_diverging_drives_away_from_a_half_and_keeps_order_and_ends() -> None:
    values = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert torch.equal(diverge(values), torch.tensor([0.0, 0.125, 0.5, 0.875, 1.0]))
    assert (diverge(torch.linspace(0, 1, 1001)).diff() > 0).all()


def test_a_blurred_dot_is_a_gaussian_and_a_blurred_plane_a_plane() -> None:
    dot = torch.zeros(1, 2, 21, 21)
    dot[0, 1, 10, 10] = 1
    blurred = blur(dot, sigma=2.0)
    assert blurred[0, 0].abs().max() == 0
    assert blurred[0, 1].sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred[0, 1, 10, 12] / blurred[0, 1, 10, 10]).item() == pytest.approx(math.exp(-1 / 2), abs=1e-5)
    assert torch.allclose(blurred[0, 1], blurred[0, 1].T, atol=1e-7)
    assert torch.allclose(blur(torch.full((1, 1, 8, 8), 0.3), sigma=4.0), torch.tensor(0.3))


def test_elastic_shifts_are_those_of_torchvision_and_scale_with_the_image() -> None:
    torch.manual_seed(0)
    theirs = torch.cat([ElasticTransform.get_params([50.0, 50.0], [5.0, 5.0], [32, 32]) for _ in range(200)])
    ours = elastic_shifts(200, 32, 32, 1.0, rng())
    assert ours.shape == theirs.shape
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
    assert elastic_shifts(200, 64, 64, 2.0, rng()).std().item() == pytest.approx(ours.std().item(), rel=0.1)


def test_a_distorted_plane_is_black_outside_only() -> None:
    plane = torch.ones(20, 1, 32, 32)
    cut = distort(plane, 8, 8, 0.0, rng())
    assert cut.shape == (20, 1, 8, 8)
    assert (cut > 0.99).float().mean() > 0.9
    turned = distort(plane, 32, 32, 45.0, rng())
    assert (turned[:, :, 8:24, 8:24] > 0.99).all()
    assert (turned[:, :, 0, 0] < 0.01).any()


def test_masks_are_blobs_near_0_or_1() -> None:
    masks = semantic_mask(100, 32, 32, Priors(), rng())
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert ((masks < 0.1) | (masks > 0.9)).float().mean() > 0.7
    assert 0.4 < masks.mean() < 0.6
    assert masks.diff(dim=3).abs().mean() < 0.05  # neighbours agree, as they do not in noise


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 12, 20)])
def test_image_priors_are_images_of_any_size_and_all_different(shape: tuple[int, int, int]) -> None:
    images = image_priors(30, shape, Priors(), rng())
    assert images.shape == (30, *shape)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.flatten(1).std(dim=1).min() > 0.02
    assert len(images.flatten(1).unique(dim=0)) == 30
    assert not torch.equal(images, image_priors(30, shape, Priors(), rng(1)))


def test_the_contrast_is_lowest_for_views_alike_and_images_apart() -> None:
    anchors = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    positives = torch.tensor([[5.0, 0.0], [1.0, 1.0]])
    others = torch.tensor([[-4.0, 0.0]])
    first = math.log(math.exp(0) + math.exp(-1)) - 1
    second = math.log(math.exp(0) + math.exp(0)) - math.sqrt(1 / 2)
    loss = dip_kd.contrastive_loss(anchors, positives, others)
    assert loss.item() == pytest.approx((first + second) / 2)


def test_features_are_what_enters_the_last_linear_layer() -> None:
    network = small_student().eval()
    assert isinstance(network, nn.Sequential)
    last, images = network[-1], torch.rand(5, 1, 8, 8)
    assert isinstance(last, nn.Linear)
    assert torch.equal(dip_kd.features(network, last, images), network[:-1](images))
    assert not last._forward_pre_hooks


def test_contrast_makes_images_easier_to_tell_apart_and_leaves_the_primer_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: list[float] = []
    contrastive_loss = dip_kd.contrastive_loss

    def record(anchors: Tensor, positives: Tensor, others: Tensor) -> Tensor:
        assert len(anchors) == len(positives) == 16
        assert len(others) == 20  # of the 32 others
        loss = contrastive_loss(anchors, positives, others)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(dip_kd, "contrastive_loss", record)
    pool, images = Pool(), image_priors(48, (1, 8, 8), Priors(), rng())
    pool.add(images)
    primer = small_student().requires_grad_(False).eval()
    before = copy.deepcopy(primer.state_dict())
    config = dip_kd.Config(batch_size=16, contrast_passes=20, contrast_lr=0.01, negatives=20, augment="none")
    changed = dip_kd.contrast(pool, primer, config, make_run())
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.1
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    nearest = torch.cdist(changed.flatten(1), images.flatten(1), p=torch.inf).amin(dim=1)
    assert (nearest > 0.01).all()
    assert all(torch.equal(before[key], value) for key, value in primer.state_dict().items())


def test_the_student_learns_the_labels_and_the_logits_of_the_primer() -> None:
    network, primer = linear_network(1), linear_network(2).requires_grad_(False)
    images, labels = torch.rand(6, 1, 8, 8, generator=rng()).mul(255).round().div(255), torch.arange(6) % 4
    pool = Pool()
    pool.add(images, labels)
    wanted = F.cross_entropy(network(images), labels) + (network(images) - primer(images)).abs().mean()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    config = dip_kd.Config(passes=1, augment="none")
    (figures,) = dip_kd.train(
        network, optimizer, pool, primer, make_oracle(RecordingTeacher(), 1), 0, config, make_run()
    )
    assert figures["loss"] == pytest.approx(wanted.item())


def test_the_learning_rate_falls_at_a_half_and_at_three_quarters() -> None:
    run, rates = make_run(), []
    config = dip_kd.Config(**{**SMALL, "passes": 4})
    for _ in dip_kd.distill(make_oracle(RecordingTeacher(), 16), small_student(), config, run):
        parts = run.state_dict()["parts"]
        rates.append([parts[f"{name}_optimizer"]["param_groups"][0]["lr"] for name in ("primer", "student")])
    assert [primer for primer, _ in rates[:4]] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert [student for _, student in rates[4:]] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_each_image_is_paid_for_before_and_after_it_changes() -> None:
    teacher, config = RecordingTeacher(), dip_kd.Config(**SMALL)
    oracle, student = make_oracle(teacher, 41), small_student()
    before = copy.deepcopy(student.state_dict())
    spent = []
    for _ in dip_kd.distill(oracle, student, config, make_run()):
        spent.append(oracle.spent)
        untouched = all(torch.equal(before[key], value) for key, value in student.state_dict().items())
        assert untouched == (len(spent) <= 3)  # while the primer learns
    assert spent == [20] * 3 + [40] * 3
    assert teacher.calls == [8, 8, 4] * 2
    assert oracle.distinct == 40


def test_without_contrast_each_image_is_paid_for_once() -> None:
    oracle, config = make_oracle(RecordingTeacher(), 41), dip_kd.Config(**{**SMALL, "contrast_passes": 0})
    rounds = list(dip_kd.distill(oracle, small_student(), config, make_run()))
    assert len(rounds) == 6
    assert oracle.spent == oracle.distinct == 41


@pytest.mark.parametrize("contrast_passes", [0, 2])
def test_with_every_view_asked_about_an_image_costs_a_query_for_each_pass_of_both_networks(
    contrast_passes: int,
) -> None:
    teacher = RecordingTeacher()
    oracle = make_oracle(teacher, 125)  # 20 images x 3 passes x 2 networks, and 5 too few for another
    config = dip_kd.Config(**{**SMALL, "relabel": "every_view", "contrast_passes": contrast_passes})
    figures = list(dip_kd.distill(oracle, small_student(), config, make_run()))
    assert [round_["pool"] for round_ in figures] == [20] * 6
    assert oracle.spent == 120
    assert oracle.distinct > 80, "moved by chance by a pixel, an image is seldom asked about twice alike"


def test_labels_that_are_kept_are_kept_for_no_other_view_unless_one_says_so() -> None:
    assert dip_kd.Config().augment == "none"
    assert dip_kd.Config(augment="crop").augment == "crop"
    assert dip_kd.Config(relabel="every_view").augment == "crop_flip"


def test_one_image_is_too_few_to_contrast() -> None:
    oracle = make_oracle(RecordingTeacher(), 3)
    assert not list(dip_kd.distill(oracle, small_student(), dip_kd.Config(**SMALL), make_run()))
    assert oracle.spent == 0


@pytest.mark.parametrize("contrast_passes", [0, 2])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_resumed_run_ends_as_an_unbroken_one(stop_after: int, contrast_passes: int) -> None:
    settings = {**SMALL, "contrast_passes": contrast_passes}
    assert_resuming_changes_nothing("dip_kd", 40, "labels", stop_after, **settings)
