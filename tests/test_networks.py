"""Networks: images in, logits out, at the sizes that the papers count."""

import pytest
import torch
from torch import Tensor

from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.networks import NETWORKS, Shape
from bench.tasks.table import TASKS

MNIST: Shape = (1, 28, 28)
CIFAR: Shape = (3, 32, 32)
DIGITS: Shape = (1, 8, 8)
DIGITS_FIT = (
    "lenet-bn",
    "mlp",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet18-8x",
    "resnet34-8x",
    "resnet20",
    "wrn22-2",
)
TOO_SMALL = [
    ("lenet5", DIGITS),
    ("lenet5-wide", DIGITS),
    ("alexnet", DIGITS),
    ("alexnet-bn", DIGITS),
    ("cnn3", DIGITS),
    ("vgg8", MNIST),
    ("vgg11", MNIST),
    ("vgg16", MNIST),
    ("vgg11", DIGITS),
    ("lenet-bn", (1, 3, 3)),
]
FITTING = [(name, shape) for shape in (MNIST, CIFAR) for name in NETWORKS if (name, shape) not in TOO_SMALL]


def size_of(name: str, shape: Shape, classes: int = 10) -> int:
    return sum(parameter.numel() for parameter in networks.build(name, shape, classes).parameters())


@pytest.mark.parametrize(("name", "shape"), [*FITTING, *((name, DIGITS) for name in DIGITS_FIT)])
def test_a_network_maps_its_images_to_one_logit_a_class(name: str, shape: Shape) -> None:
    network = networks.build(name, shape, 7)
    with torch.no_grad():
        logits = network.eval()(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(2), atol=1e-3)  # no softmax or log-softmax inside
    assert not torch.allclose(logits.sum(dim=1), torch.ones(2), atol=1e-3)


@pytest.mark.parametrize(("name", "shape"), FITTING)
def test_images_are_brought_to_channels_last_once_and_stay_so_from_layer_to_layer(name: str, shape: Shape) -> None:
    network, maps = networks.build(name, shape, 7), list[Tensor]()
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: maps.append(output))  # noqa: ARG005
    network(torch.rand(2, *shape))
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps if each.ndim == 4)


@pytest.mark.parametrize(("name", "shape"), TOO_SMALL)
def test_a_network_for_larger_images_is_refused_in_one_line(name: str, shape: Shape) -> None:
    with pytest.raises(ValueError, match=f"network {name} does not fit images of 1 x {shape[1]} x {shape[2]}") as error:
        networks.build(name, shape, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_network_is_in_training_mode_with_untouched_statistics(name: str) -> None:
    network = networks.build(name, CIFAR, 10)
    assert all(module.training for module in network.modules())
    assert all(not value.any() for key, value in network.named_buffers() if key.endswith("running_mean"))
    assert all(value == 0 for key, value in network.named_buffers() if key.endswith("num_batches_tracked"))


@pytest.mark.parametrize("name", ["lenet5", "resnet18"])
def test_the_seed_decides_the_weights(name: str) -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(torch.cat([value.flatten() for value in networks.build(name, MNIST, 10).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_lenet5_has_its_61_706_parameters() -> None:
    assert size_of("lenet5", MNIST) == 61_706


def test_resnet18_for_32_pixels_has_its_11_173_962_parameters() -> None:
    assert size_of("resnet18", CIFAR) == size_of("resnet18-8x", CIFAR) == 11_173_962


def test_lenet_bn_has_the_parameters_of_its_two_convolutions_norms_and_one_dense_layer() -> None:
    first, second = (5 * 5 * 1 + 1) * 16 + 2 * 16, (5 * 5 * 16 + 1) * 32 + 2 * 32
    assert size_of("lenet-bn", MNIST) == first + second + (32 * 7 * 7 + 1) * 10 == 29_034


def test_cnn3_has_the_parameters_of_its_three_convolutions_and_one_dense_layer() -> None:
    convolutions = (9 * 3 + 1) * 256 + (9 * 256 + 1) * 256 + (9 * 256 + 1) * 128
    assert size_of("cnn3", CIFAR) == convolutions + (128 * 4 * 4 + 1) * 10 == 912_778


def test_mlp_has_the_parameters_of_its_three_dense_layers() -> None:
    assert size_of("mlp", MNIST) == (784 + 1) * 512 + (512 + 1) * 128 + (128 + 1) * 10


def test_resnets_of_32_pixels_shrink_the_image_8_times() -> None:
    network = networks.build("resnet18", CIFAR, 10).eval()
    shapes = []
    network.layer4.register_forward_hook(lambda _, __, maps: shapes.append(tuple(maps.shape)))
    with torch.no_grad():
        network(torch.rand(1, *CIFAR))
    assert shapes == [(1, 512, 4, 4)]


def test_resnets_take_images_of_64_pixels_as_they_take_those_of_32() -> None:
    assert size_of("resnet18", (3, 64, 64), 200) == size_of("resnet18", CIFAR, 200)
    assert networks.build("resnet50", (3, 64, 64), 200).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 200)


def test_resnet50_for_32_pixels_has_its_23_520_842_parameters() -> None:
    assert size_of("resnet50", CIFAR) == 23_520_842


def test_resnet20_with_projections_has_its_272_474_parameters() -> None:
    assert size_of("resnet20", CIFAR) == 272_474


def test_wrn22_2_has_the_parameters_of_its_nine_blocks() -> None:
    def block(into: int, out: int) -> int:
        return 2 * into + 9 * into * out + 2 * out + 9 * out * out + (into * out if into != out else 0)

    stages = sum(block(into, out) + 2 * block(out, out) for into, out in ((16, 32), (32, 64), (64, 128)))
    assert size_of("wrn22-2", CIFAR) == 9 * 3 * 16 + stages + 2 * 128 + 128 * 10 + 10 == 1_079_642


def test_lenet5_wide_and_its_fifth_have_the_parameters_of_their_layers() -> None:
    def layers(first: int, second: int, dense: int) -> int:
        convolutions = (25 + 1) * first + (25 * first + 1) * second
        return convolutions + (16 * second + 1) * dense + (dense + 1) * 10

    assert size_of("lenet5-wide", MNIST) == layers(20, 50, 200)
    assert size_of("lenet5-wide-fifth", MNIST) == layers(4, 10, 40)


def test_a_quarter_of_alexnet_has_a_quarter_of_its_widths() -> None:
    def widths(name: str) -> list[int]:
        layers = networks.build(name, CIFAR, 10).modules()
        return [layer.weight.shape[0] for layer in layers if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]

    assert widths("alexnet-bn") == [64, 192, 384, 256, 256, 4096, 4096, 10]
    assert widths("alexnet-bn-quarter") == [16, 48, 96, 64, 64, 1024, 1024, 10]


def test_every_task_has_networks_that_fit_its_images() -> None:
    for task in TASKS.values():
        source = sources.source_of(task.dataset)
        for name in {task.teacher, task.student}:
            assert (name, source.shape) not in TOO_SMALL
            assert name in NETWORKS
