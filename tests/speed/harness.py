"""What the harness adds to a method's own loop, and what a cell's time goes into."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from speed.ideal_round import CLASSES, SHAPE, Round
from speed.item import Item, Setting
from torch.profiler import ProfilerActivity, profile

from bench.boxes import teachers
from bench.boxes.box import accuracy, black_box
from bench.cells.asked import Asked
from bench.cells.cell import Cell, canonical_config
from bench.cells.exam import Exam
from bench.cells.run import run_cell
from bench.grids import definition
from bench.tasks.data import sources
from bench.tasks.networks import build
from bench.tasks.students import student_of
from bench.tasks.table import task_of
from budgets import Budget, BudgetExhausted, Oracle
from methods import ideal
from methods.run import Run

TASK, NO_DATA = "digits-lenet", Path("no-data")
POINTS = 12
KERNELS = ("convolution", "conv2d", "addmm", "::mm", "batch_norm")


def digits_cell(root: Path, entry: str, queries: int, seed: int = 0) -> Cell:
    """A cell of the grid `digits`, its teacher trained under `root` if there is none."""
    record = teachers.train(task_of(TASK), root, NO_DATA, torch.device("cpu"), lambda _: None)
    asked = definition.load("digits")[1].methods[entry]
    method = asked.method or entry
    return Cell(TASK, method, canonical_config(method, asked.config), Budget(queries), seed, record.hash)


def cell_overhead(setting: Setting) -> Iterator[Item]:
    """A cell as `bench run` runs it, evaluations included, against its method's loop and one evaluation at the end."""
    cell = digits_cell(setting.folder, "ideal-once", setting.size(5_000, 100))

    def run() -> None:
        shutil.rmtree(setting.folder / "cells", ignore_errors=True)
        run_cell(cell, setting.folder, NO_DATA, setting.device)

    ours, plain = setting.medians(run, lambda: bare_loop(cell, setting))
    yield Item("cell of IDEAL on digits, in the harness", setting.unit, ours, plain, f"ratio >= {1 / 1.03:.3f}")


def bare_loop(cell: Cell, setting: Setting) -> float:
    """What the cell does, without the harness; returns the student's accuracy."""
    task, device = task_of(cell.task), setting.device
    source, data = sources.source_of(task.dataset), sources.load(task.dataset, NO_DATA)
    teacher = teachers.load(task, setting.folder, device)
    torch.manual_seed(cell.seed)
    student = student_of(task).to(device)
    oracle = Oracle(black_box(teacher), cell.budget, shape=source.shape, classes=source.classes)
    config = ideal.Config.model_validate_json(cell.config)
    try:
        for _ in ideal.distill(oracle, student, config, Run(device, setting.rng)):
            pass
    except BudgetExhausted:
        pass
    return accuracy(student.eval(), data.test.to(device))


def evaluation(setting: Setting) -> Iterator[Item]:
    """12 evaluations on 10,000 images against a cell of IDEAL with 25,000 queries, 100 rounds, whose time is put
    together from that of a generation and that of a pass over the whole pool."""
    one, rounds, device = Round(setting), 100, setting.device
    images = torch.randint(256, (setting.size(10_000, 100), *SHAPE), dtype=torch.uint8, device=device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    exam = Exam(images, {"accuracy": labels, "agreement": labels})
    student = build("lenet-bn", SHAPE, CLASSES).to(device)
    asked = Asked(black_box(student.eval()), "labels")
    asked(torch.rand(500, *SHAPE, device=device))

    def measure() -> None:
        exam.measure(student)
        asked.measure(student)

    measure()
    once, made, trained = setting.medians(measure, one.generate, one.train)
    cell = rounds * made + (rounds + 1) / 2 * trained
    note = "the cell's time is 100 generations and 50.5 passes over the whole pool"
    yield Item(f"{POINTS} evaluations in a cell of 25,000", setting.unit, POINTS * once, cell, "ratio >= 20", note)


def kernels(setting: Setting) -> Iterator[Item]:
    """The share of a CPU cell's time that is in convolution, linear and batch-norm kernels."""
    if setting.device.type != "cpu":
        return
    one = Round(setting)
    one.generate()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        one.generate()
        one.train()
    spent = [(event.key, event.self_cpu_time_total) for event in profiled.key_averages()]
    within = sum(time for name, time in spent if name.startswith("aten::") and any(part in name for part in KERNELS))
    share = 100 * within / sum(time for _, time in spent)
    largest = sorted((time, name) for name, time in spent if not any(part in name for part in KERNELS))[-3:]
    rest = ", ".join(name.removeprefix("aten::") for _, name in reversed(largest))
    yield Item("convolution, linear and batch-norm kernels in a round", "%", share, None, "ours >= 90", f"next: {rest}")
