"""How well slopes that are estimated from answers agree with the true ones, for the tests of precision."""

from types import ModuleType

import torch
from torch import Tensor, nn

from bench.boxes.box import black_box
from bench.tasks.networks import build
from budgets import Budget, Oracle
from methods import dfme, maze
from methods.generators import to_image

SHAPE, CLASSES, EPSILON = (1, 28, 28), 10, 1e-3


Pair = tuple[nn.Module, nn.Module]  # teacher, student


def correlation(method: ModuleType, pair: Pair, maps: Tensor, inputs: str = "float") -> float:
    """Of the method's slopes along one random direction for each map with those of the exact loss, in float64.

    pair: with the weights of `networks`.
    """
    estimated, directions = _estimated(method, *pair, maps, inputs)
    teacher, student = (network.double() for network in networks(torch.device("cpu")))
    exact = _exact(method, teacher, student, maps.double().cpu(), directions.double().cpu())
    return torch.corrcoef(torch.stack([estimated.double().cpu(), exact]))[0, 1].item()


def networks(device: torch.device) -> Pair:
    """A teacher that is sure of its answers and a student, with batch norm that has seen images, in eval mode."""
    torch.manual_seed(0)
    teacher, student = (build("lenet-bn", SHAPE, CLASSES) for _ in range(2))
    with torch.no_grad():
        teacher[-1].weight.mul_(10)  # type: ignore[index,union-attr,operator]
        for network in (teacher, student):
            network.train()(torch.rand(200, *SHAPE))
    return teacher.eval().to(device), student.eval().to(device)


def some_maps(n: int, device: torch.device) -> Tensor:
    """What a generator makes before its tanh."""
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)).to(device)


def _estimated(
    method: ModuleType, teacher: nn.Module, student: nn.Module, maps: Tensor, inputs: str
) -> tuple[Tensor, Tensor]:
    """Slopes, one a map, and unit directions n x d: what the method's estimate is made of."""
    oracle = Oracle(black_box(teacher), Budget(4 * len(maps), "probs", inputs), shape=SHAPE, classes=CLASSES)  # type: ignore[arg-type]
    rng = torch.Generator(maps.device).manual_seed(2)
    found = method.estimate_gradient(oracle, student, maps, 1, EPSILON, rng)
    gradient = found[0] if isinstance(found, tuple) else found
    directions = _directions(method, maps)
    return (gradient.flatten(1) * directions).sum(dim=1), directions


def _directions(method: ModuleType, maps: Tensor) -> Tensor:
    n, d = len(maps), maps[0].numel()
    rng = torch.Generator(maps.device).manual_seed(2)
    drawn = torch.randn(*((n, 1, d) if method is dfme else (1, n, d)), generator=rng, device=maps.device).view(n, d)
    return drawn / drawn.norm(dim=1, keepdim=True)


def _exact(method: ModuleType, teacher: nn.Module, student: nn.Module, maps: Tensor, directions: Tensor) -> Tensor:
    """The derivative of the generator's loss along the directions."""
    maps = maps.clone().requires_grad_()
    images = to_image(maps)
    probs, logits = teacher(images).softmax(dim=1), student(images)
    apart = maze.divergence(logits, probs) if method is maze else (logits - dfme.logits_of(probs)).abs().mean(dim=1)
    (gradient,) = torch.autograd.grad(-apart.sum(), maps)
    return (gradient.flatten(1) * directions).sum(dim=1).detach()
