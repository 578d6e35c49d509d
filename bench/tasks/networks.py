"""Networks for teachers and students, by name: each builds (shape, classes) -> a module from images to logits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class Normalised(nn.Module):
    """A network behind a fixed scaling of its input: float images N x C x H x W in [0, 1] -> logits N x K.

    mean, std: what images are lessened and then divided by, each C x 1 x 1 or a single number.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def lenet5(padding: int) -> Callable[[Shape, int], nn.Module]:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: convolutions of 6 and 16, dense 120 and 84.

    padding: of the first convolution, 2 for 28 pixels and 0 for 32: 61,706 weights either way.
    """

    def build(shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(shape[0], 6, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return _flat_head(shape, classes, layers, dense=(120, 84))

    return build


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


def lenet5_wide(divisor: int) -> Callable[[Shape, int], nn.Module]:
    """ZSDB3KD's LeNet5 (released code, models.py): convolutions of 20 and 50, dense 200, each divided by `divisor`."""

    def build(shape: Shape, classes: int) -> nn.Module:
        first, second, dense = 20 // divisor, 50 // divisor, 200 // divisor
        layers: list[nn.Module] = [nn.Conv2d(shape[0], first, 5), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return _flat_head(shape, classes, layers, dense=(dense,))

    return build


def alexnet_bn(divisor: int) -> Callable[[Shape, int], nn.Module]:
    """ZSDB3KD's AlexNet for 32 px (released code, models.py): five convolutions with batch norm, dense 4096 twice with
    dropout and batch norm, each width divided by `divisor`."""

    def build(shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels = shape[0]
        for number, full in enumerate((64, 192, 384, 256, 256)):
            width = full // divisor
            layers += [nn.Conv2d(channels, width, 3, stride=2 if number == 0 else 1, padding=1)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if number in {0, 1, 4} else []
            channels = width
        return _flat_head(shape, classes, layers, dense=(4096 // divisor,) * 2, dropout=0.5)

    return build


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


def resnet(*blocks: int, bottleneck: bool = False) -> Callable[[Shape, int], nn.Module]:
    """ResNet for 32 px: a 3x3 stem and no first pooling, so the image shrinks 8 times in all.

    torchvision's network with another stem. DFME calls these ResNet-18-8x and ResNet-34-8x. Images of
    64 px meet the same network, as in IDEAL's released code (nets.py), and cost four times as much.
    """

    def build(shape: Shape, classes: int) -> nn.Module:
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

        network: nn.Module = ResNet(Bottleneck if bottleneck else BasicBlock, list(blocks), num_classes=classes)
        network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        return network

    return build


def thin_resnet(blocks: int) -> Callable[[Shape, int], nn.Module]:
    """ResNet of three stages of 16, 32 and 64 channels (He et al. 2016, section 4.2), so many basic blocks each.

    Shortcuts between stages are projections, as in MAZE's released code (models/resnet.py).
    """

    def build(shape: Shape, classes: int) -> nn.Module:
        from torchvision.models.resnet import BasicBlock

        layers: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for into, out in ((16, 16), (16, 32), (32, 64)):
            shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride=2, bias=False), nn.BatchNorm2d(out))
            layers.append(BasicBlock(into, out) if into == out else BasicBlock(into, out, 2, shortcut))
            layers += [BasicBlock(out, out) for _ in range(blocks - 1)]
        return _he(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)))

    return build


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; where the width changes, a 1x1 one as shortcut."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(into), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
        )
        self.shortcut = None if into == out else nn.Conv2d(into, out, 1, stride=stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        active = self.before(maps)
        skipped = maps if self.shortcut is None else self.shortcut(active)
        sum_: Tensor = skipped + self.body(active)
        return sum_


def wide_resnet(depth: int, widen: int) -> Callable[[Shape, int], nn.Module]:
    """WRN-depth-widen (Zagoruyko and Komodakis 2016) without dropout."""

    def build(shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)]
        channels = 16
        for width, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            layers.append(WideBlock(channels, width, stride))
            layers += [WideBlock(width, width, 1) for _ in range((depth - 4) // 6 - 1)]
            channels = width
        head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return _he(nn.Sequential(*layers, *head, nn.Linear(channels, classes)))

    return build


NETWORKS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "lenet5": lenet5(2),
    "lenet5-32": lenet5(0),
    "lenet-bn": lenet_bn,
    "lenet5-wide": lenet5_wide(1),
    "lenet5-wide-half": lenet5_wide(2),
    "lenet5-wide-fifth": lenet5_wide(5),
    "alexnet": alexnet,
    "alexnet-bn": alexnet_bn(1),
    "alexnet-bn-half": alexnet_bn(2),
    "alexnet-bn-quarter": alexnet_bn(4),
    "mlp": mlp,
    "cnn3": cnn3,
    "vgg8": vgg([64], [128], [256], [512], [512]),
    "vgg11": vgg([64], [128], [256] * 2, [512] * 2, [512] * 2),
    "vgg16": vgg([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
    "resnet18": resnet(2, 2, 2, 2),
    "resnet34": resnet(3, 4, 6, 3),
    "resnet50": resnet(3, 4, 6, 3, bottleneck=True),
    "resnet18-8x": resnet(2, 2, 2, 2),
    "resnet34-8x": resnet(3, 4, 6, 3),
    "resnet20": thin_resnet(3),
    "wrn22-2": wide_resnet(22, 2),
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


def _flat_head(
    shape: Shape, classes: int, features: list[nn.Module], dense: Sequence[int] = (), dropout: float = 0.0
) -> nn.Module:
    """The features, flattened, then dense layers with ReLU between, and dropout and batch norm if any, up to logits."""
    body = nn.Sequential(*features, nn.Flatten())
    with torch.no_grad():
        width = body.eval()(torch.zeros(1, *shape)).shape[1]
    layers: list[nn.Module] = []
    for size in dense:
        layers += [nn.Linear(width, size), nn.ReLU()]
        layers += [nn.Dropout(dropout), nn.BatchNorm1d(size)] if dropout else []
        width = size
    return nn.Sequential(*body.train(), *layers, nn.Linear(width, classes))


def _he(network: nn.Module) -> nn.Module:
    """The network with its convolutions drawn anew as He et al. 2015 do, for what leaves each of them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
