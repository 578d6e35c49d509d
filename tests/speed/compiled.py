"""An experiment, no option of the benchmark: the generator's step of IDEAL as it is, and through torch.compile.

    python tests/speed/compiled.py [--device cuda] [--mode reduce-overhead]

It prints how many kernels a step starts, what a step takes either way, and how far the images are apart after so many
steps: compiled code adds up in another order, so its results are other results. On a GPU `reduce-overhead` plays the
kernels of a network back as one CUDA graph.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.provenance import set_precision
from bench.tasks.networks import build
from methods.augment import augment
from methods.generators import Shape, UpsamplingGenerator, ideal_generator
from methods.ideal import generation_loss

CLASSES = 10
NO_KERNEL = ("view", "expand", "permute", "transpose", "unsqueeze", "squeeze", "detach", "slice", "select", "alias")
NO_KERNEL += ("t", "_unsafe_view", "as_strided", "unbind", "split", "empty", "empty_like", "_reshape_alias")


class Step:
    """A step of the generator towards images that the student puts into given classes. Same seed, same weights."""

    def __init__(self, args: argparse.Namespace, wrap: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> None:
        self._rng = torch.Generator(args.device).manual_seed(0)
        torch.manual_seed(0)
        shape: Shape = (1, 28, 28)
        student = build("lenet-bn", shape, CLASSES).to(args.device).eval()
        generator: UpsamplingGenerator = ideal_generator(256, args.width, shape).to(args.device)
        self._weights = list(generator.parameters())
        self._generator, self._student = wrap(generator), wrap(student)
        self._optimizer = torch.optim.Adam(self._weights, lr=1e-3, betas=(0.5, 0.999))
        self._noise = torch.randn(args.batch, 256, generator=self._rng, device=args.device)
        self._targets = torch.arange(args.batch, device=args.device) % CLASSES

    def __call__(self) -> Tensor:
        images = self._generator(self._noise)
        logits = self._student(augment(images, "crop_flip", 4, self._rng))
        self._optimizer.zero_grad()
        generation_loss(logits, self._targets, 5.0).backward(inputs=self._weights)
        self._optimizer.step()
        return images.detach().clone()  # of a CUDA graph, the next step writes over them


class Kernels(TorchDispatchMode):
    """How many operations come by that start a kernel."""

    started = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN204
        self.started += func.name().partition("::")[2].partition(".")[0] not in NO_KERNEL
        return func(*args, **(kwargs or {}))


def seconds(steps: tuple[Step, ...], args: argparse.Namespace) -> list[float]:
    """The median time of a step of each kind, taken in turn."""
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(args.steps):
        for times, step in zip(taken, steps, strict=True):
            begun = time.perf_counter() if args.device == "cuda" else time.process_time()
            step()
            if args.device == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() if args.device == "cuda" else time.process_time()) - begun)
    return [statistics.median(times) for times in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    set_precision()
    plain = Step(args, lambda network: network)
    with Kernels() as kernels:
        first = plain()
    print(f"a step starts {kernels.started} kernels, those of its optimizer on this device among them")
    try:
        compiled = Step(args, lambda network: torch.compile(network, mode=args.mode, dynamic=False))
        apart = (compiled() - first).abs().max().item()
    except Exception as error:
        print(f"no compiled step here: {type(error).__name__}: {str(error).splitlines()[0]}")
        return
    as_is, through = seconds((plain, compiled), args)
    later = (plain() - compiled()).abs().max().item()
    print(f"as it is {as_is * 1e3:.1f} ms, compiled ({args.mode}) {through * 1e3:.1f} ms: ratio {as_is / through:.2f}")
    print(f"images apart by {apart:.1e} at the first step, by {later:.1e} after {args.steps + 1}")


if __name__ == "__main__":
    main()
