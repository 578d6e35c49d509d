"""`bench list`: methods, tasks, grids, networks and adapters."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Annotated

import typer

Listing = tuple[list[str], list[list[object]]]


def methods() -> Listing:
    """Each method: its paper, what answers and images it works with, its protocol, its data, whence its defaults."""
    from methods import METHODS, inputs_of

    def row(name: str, module: ModuleType) -> list[object]:
        terms = " ".join(module.ANSWERS), " ".join(inputs_of(module)), module.PROTOCOL, module.DATA
        return [name, _first_line(module), *terms, _first_line(module.Config)]

    columns = ["method", "paper", "answers", "images", "protocol", "data", "defaults"]
    return columns, [row(name, module) for name, module in METHODS.items()]


def tasks() -> Listing:
    """Each task with its data set, networks and need of a GPU."""
    from bench.tasks.table import TASKS

    return ["task", "data set", "images", "classes", "teacher", "student", "GPU"], [
        [name, task.dataset, *_size(task.dataset), task.teacher, task.student, "yes" if task.gpu else ""]
        for name, task in TASKS.items()
    ]


def grids() -> Listing:
    """Each shipped grid with its size."""
    from bench.grids import definition

    rows: list[list[object]] = []
    for name in definition.shipped():
        _, grid = definition.load(name)
        rows.append([name, grid.description, len(grid.tasks), len(grid.methods)])
    return ["grid", "description", "tasks", "methods"], rows


def networks() -> Listing:
    """Each network with its parameters for one 28-pixel or 32-pixel image and 10 classes."""
    import torch

    from bench.tasks.networks import NETWORKS

    rows: list[list[object]] = []
    for name, build in NETWORKS.items():
        with torch.device("meta"):  # shapes without numbers: nothing is drawn or computed
            built = (build(shape, 10) for shape in ((1, 28, 28), (3, 32, 32)))
            grey, colour = (sum(p.numel() for p in network.parameters()) for network in built)
        rows.append([name, f"{grey:,}", f"{colour:,}"])
    return ["network", "parameters at 1 x 28 x 28", "at 3 x 32 x 32"], rows


def adapters() -> Listing:
    """Each protocol that an endpoint may speak, with what its description says."""
    from bench import strict_yaml
    from bench.boxes.described import ADAPTERS, Endpoint

    rows: list[list[object]] = []
    for file in sorted(ADAPTERS.glob("*.yaml")):
        content = strict_yaml.read(file, "adapter", Endpoint.model_fields)
        rows.append([file.stem, content.get("url", "{base}"), file.read_text().partition("\n")[0].removeprefix("# ")])
    return ["adapter", "URL", "what it is"], rows


def list_(what: Annotated[str, typer.Argument(metavar="methods|tasks|grids|networks|adapters")]) -> None:
    """List what there is."""
    from bench.cli import show
    from bench.cli.work import console_of
    from bench.contract import plugins
    from bench.errors import unknown

    if what not in LISTS:
        raise unknown("list", what, LISTS)
    console = console_of()
    show.remarks(console, plugins.load())
    columns, rows = LISTS[what]()
    console.print(show.listing(columns, rows))


LISTS: dict[str, Callable[[], Listing]] = {
    "methods": methods,
    "tasks": tasks,
    "grids": grids,
    "networks": networks,
    "adapters": adapters,
}


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _size(dataset: str) -> tuple[str, int]:
    from bench.tasks.data.sources import SOURCES

    source = SOURCES[dataset]
    return " x ".join(map(str, source.shape)), source.classes
