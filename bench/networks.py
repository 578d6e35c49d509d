"""Networks for teachers and students, by name: each builds (shape, classes) -> a module from images to logits."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

Shape = tuple[int, int, int]


def lenet5(shape: Shape, classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: convolutions of 6 and 16, dense 120 and 84."""
    return _flat_head(
        shape,
        classes,
        [
            nn.Conv2d(shape[0], 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ],
        dense=(120, 84),
    )


def lenet_bn(shape: Shape, classes: int) -> nn.Module:
    """What IDEAL's released code calls LeNet (nets.py, CNN): convolutions of 16 and 32 with batch norm, one dense."""
    blocks: list[nn.Module] = []
    for into, out in ((shape[0], 16), (16, 32)):
        blocks += [nn.Conv2d(into, out, 5, padding=2), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    return _flat_head(shape, classes, blocks)


def alexnet(shape: Shape, classes: int) -> nn.Module:
    """The AlexNet-like network for small grey images of IDEAL's released code: five convolutions, dense 512."""
    return _flat_head(
        shape,
        classes,
        [
            nn.Conv2d(shape[0], 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.Conv2d(128, 256, 3, padding=1),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(),
        ],
        dense=(512,),
    )


def mlp(shape: Shape, classes: int) -> nn.Module:
    """Dense 512 and 128, as in IDEAL's released code but with logits where that ends in a softmax."""
    return _flat_head(shape, classes, [], dense=(512, 128))


def cnn3(shape: Shape, classes: int) -> nn.Module:
    """The 3-convolution CNN of IDEAL's released code (nets.py, CNNCifar10): 256, 256, 128, without padding."""
    return _flat_head(
        shape,
        classes,
        [
            nn.Conv2d(shape[0], 256, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(256, 256, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(256, 128, 3),
            nn.ReLU(),
        ],
    )


def vgg(*stages: Sequence[int]) -> Callable[[Shape, int], nn.Module]:
    """VGG with batch norm: 3x3 convolutions of the given widths, pooling after each stage, one dense layer."""

    def build(shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels = shape[0]
        for stage in stages:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    return build


def resnet(*blocks: int) -> Callable[[Shape, int], nn.Module]:
    """ResNet of basic blocks for 32 px: a 3x3 stem and no first pooling, so the image shrinks 8 times in all.

    torchvision's network with another stem. DFME calls these ResNet-18-8x and ResNet-34-8x.
    """

    def build(shape: Shape, classes: int) -> nn.Module:
        from torchvision.models.resnet import BasicBlock, ResNet

        network: nn.Module = ResNet(BasicBlock, list(blocks), num_classes=classes)
        network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        return network

    return build


NETWORKS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "lenet5": lenet5,
    "lenet-bn": lenet_bn,
    "alexnet": alexnet,
    "mlp": mlp,
    "cnn3": cnn3,
    "vgg8": vgg([64], [128], [256], [512], [512]),
    "vgg11": vgg([64], [128], [256] * 2, [512] * 2, [512] * 2),
    "vgg16": vgg([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
    "resnet18": resnet(2, 2, 2, 2),
    "resnet34": resnet(3, 4, 6, 3),
    "resnet18-8x": resnet(2, 2, 2, 2),
    "resnet34-8x": resnet(3, 4, 6, 3),
}


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """The network of that name with fresh weights; ValueError where the images are too small for it."""
    try:
        network = NETWORKS[name](shape, classes).eval()
        with torch.no_grad():
            network(torch.zeros(1, *shape))
        # Channels last: convolutions take a third less time on the CPU, and the numbers mean the same.
        return network.train().to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise ValueError(f"network {name} does not fit images of {' x '.join(map(str, shape))}") from error


def _flat_head(shape: Shape, classes: int, features: list[nn.Module], dense: Sequence[int] = ()) -> nn.Module:
    """The features, flattened, then dense layers with ReLU between, ending in logits."""
    body = nn.Sequential(*features, nn.Flatten())
    with torch.no_grad():
        width = body.eval()(torch.zeros(1, *shape)).shape[1]
    layers: list[nn.Module] = []
    for size in dense:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*body.train(), *layers, nn.Linear(width, classes))
