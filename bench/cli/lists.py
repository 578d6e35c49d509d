"""What there is: methods, tasks, grids and networks, as columns and rows."""

import inspect
from collections.abc import Callable

import torch

from bench.grids import definition as grids_
from bench.tasks.data.sources import SOURCES
from bench.tasks.networks import NETWORKS
from bench.tasks.table import TASKS
from methods import METHODS

Listing = tuple[list[str], list[list[object]]]


def methods() -> Listing:
    """Each method: its paper, the answers it learns from, its protocol, what data it needs, whence its defaults."""
    return ["method", "paper", "answers", "protocol", "data", "defaults"], [
        [name, _first_line(module), " ".join(module.ANSWERS), module.PROTOCOL, module.DATA, _first_line(module.Config)]
        for name, module in METHODS.items()
    ]


def tasks() -> Listing:
    """Each task with its data set, networks and need of a GPU."""
    return ["task", "data set", "images", "classes", "teacher", "student", "GPU"], [
        [name, task.dataset, *_size(task.dataset), task.teacher, task.student, "yes" if task.gpu else ""]
        for name, task in TASKS.items()
    ]


def grids() -> Listing:
    """Each shipped grid with its size."""
    rows: list[list[object]] = []
    for name in grids_.shipped():
        _, definition = grids_.load(name)
        rows.append([name, definition.description, len(definition.tasks), len(definition.methods)])
    return ["grid", "description", "tasks", "methods"], rows


def networks() -> Listing:
    """Each network with its parameters for one 28-pixel or 32-pixel image and 10 classes."""
    rows: list[list[object]] = []
    for name, build in NETWORKS.items():
        with torch.device("meta"):  # shapes without numbers: nothing is drawn or computed
            built = (build(shape, 10) for shape in ((1, 28, 28), (3, 32, 32)))
            grey, colour = (sum(p.numel() for p in network.parameters()) for network in built)
        rows.append([name, f"{grey:,}", f"{colour:,}"])
    return ["network", "parameters at 1 x 28 x 28", "at 3 x 32 x 32"], rows


LISTS: dict[str, Callable[[], Listing]] = {"methods": methods, "tasks": tasks, "grids": grids, "networks": networks}


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _size(dataset: str) -> tuple[str, int]:
    source = SOURCES[dataset]
    return " x ".join(map(str, source.shape)), source.classes
