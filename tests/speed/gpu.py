"""What only a GPU is asked about: its matrix rate, the share of it that ResNet cells reach, and cells per hour.

On a CPU, at small sizes, the same code runs and its figures mean nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from speed.harness import digits_cell
from speed.item import Item, Setting, clock
from speed.runner import run_all
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from bench.boxes.box import black_box
from bench.executors.local import Slot
from bench.provenance import set_precision
from bench.tasks.networks import build
from budgets import Answers, Budget, Oracle
from methods import dfme, ideal
from methods.run import Run

SHAPE, CLASSES = (3, 32, 32), 10


def resnets(setting: Setting) -> Iterator[Item]:
    """The card's rate in products of large matrices, and what rounds of two methods reach between ResNets."""
    rates = {kind: matrix_rate(setting, kind) for kind in ("float32", "tf32", "bfloat16")}
    for kind, rate in rates.items():
        yield Item(f"product of matrices, {kind}", "TFLOP/s", rate)
    batch = setting.size(256, 4)
    methods: dict[ModuleType, tuple[Answers, dict[str, int]]] = {
        ideal: ("labels", {"batch_size": batch, "generator_steps": setting.size(5, 1)}),
        dfme: ("probs", {"batch_size": batch}),
    }
    for method, (answers, settings) in methods.items():
        rate = method_rate(setting, method, answers, settings)
        name = f"{method.__name__.rpartition('.')[2]}, ResNet-34 to ResNet-18 at 32 pixels"
        wanted = "ours >= 40" if setting.device.type == "cuda" else ""
        share, note = 100 * rate / rates["float32"], f"{rate:.3g} TFLOP/s in float32, as cells compute"
        yield Item(name, "% of the float32 rate", share, None, wanted, note)


def matrix_rate(setting: Setting, kind: str) -> float:
    """TFLOP/s of a product of two square matrices, in float32, in TF32, or in bfloat16."""
    side, dtype = setting.size(8192, 128), torch.bfloat16 if kind == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
    with tf32(kind == "tf32"):
        timer = Timer("left @ right", globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
        seconds = timer.blocked_autorange(min_run_time=setting.size(1, 0)).median
    return 2 * side**3 / seconds / 1e12


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TF32 in products of matrices, or not; afterwards as in a cell."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        set_precision()


def method_rate(setting: Setting, method: ModuleType, answers: Answers, settings: dict[str, int]) -> float:
    """TFLOP/s of a few rounds of the method, those of the teacher's answers among them."""
    set_precision()
    names = ("resnet20", "resnet20") if setting.small else ("resnet34-8x", "resnet18-8x")
    teacher, student = (build(name, SHAPE, CLASSES).to(setting.device) for name in names)
    config, batch = method.Config(**settings), settings["batch_size"]
    budget = Budget(10**6 * batch, answers)
    oracle = Oracle(black_box(teacher.eval()), budget, shape=SHAPE, classes=CLASSES)
    rounds = method.distill(oracle, student, config, Run(setting.device, setting.rng))
    next(rounds)
    seconds, flops = list[float](), list[int]()
    # A round of IDEAL is longer than the one before it, so each is counted and its neighbour is timed.
    for _ in range(setting.runs):
        with FlopCounterMode(display=False) as counter:
            next(rounds)
        flops.append(counter.get_total_flops())
        begun = clock()
        next(rounds)
        seconds.append(clock() - begun)
    return sum(flops) / sum(seconds) / 1e12


def cells_per_hour(setting: Setting) -> Iterator[Item]:
    """Small cells, 1, 2, 4 and 8 at once on one device."""
    device = "cpu" if setting.device.type == "cpu" else "cuda:0"
    many = setting.size(16, 2)
    cells = [digits_cell(setting.folder, "ideal-once", setting.size(2_500, 50), seed) for seed in range(many)]
    run_all(cells[:1], setting.folder, [Slot(device, 1)])
    alone = None
    for at_once in (1, 2) if setting.small else (1, 2, 4, 8):
        begun = time.perf_counter()
        run_all(cells, setting.folder, [Slot(device, 1)] * at_once)
        an_hour = 3600 * many / (time.perf_counter() - begun)
        alone = alone or an_hour
        note = f"{an_hour / alone:.2f} x one"
        yield Item(f"cells of digits an hour, {at_once} at once", "cells", an_hour, None, "", note)
