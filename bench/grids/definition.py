"""A grid as it is written: a YAML file that names tasks, methods, budgets and seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from bench import strict_yaml
from bench.boxes.defences import defended_task
from bench.boxes.described import Answers
from bench.errors import UsageError, one_line, unknown
from bench.globs import matches, matching, parted
from bench.tasks.table import task_of
from budgets import Inputs, parse_queries

SHIPPED = Path(__file__).with_name("shipped")
SEEDS = 1_000  # grids have those below; of trials and of held-out images they lie above


def _parse_budgets(budgets: Any) -> Any:
    return sorted({parse_queries(budget) for budget in budgets}) if isinstance(budgets, list) else budgets


Queries = Annotated[list[int], BeforeValidator(_parse_budgets)]


class Entry(BaseModel, frozen=True, extra="forbid"):
    """A named way to run a method. method: the name in METHODS, if the entry's own name is another.

    answers: the tracks it enters, if not all that the grid has and the method can use. config: settings; in
    a file also the path of a YAML that bench tune wrote, relative to the grid's.
    tasks: globs of the tasks or data sets it enters. budgets: its own, if not those of the grid. where: such a glob ->
    settings that go before `config` there.
    """

    method: str = ""
    config: dict[str, Any] = {}
    answers: list[Answers] = []
    tasks: list[str] = ["*"]
    budgets: Queries = []
    where: dict[str, dict[str, Any]] = {}


class Grid(BaseModel, frozen=True, extra="forbid"):
    """The file as written: every method meets every task, teacher, seed, budget, and the answers and inputs it can use.

    teachers: how many of each task, of the same recipe and other seeds.

    no_ranking: why its tables rank nothing, if they must not, such as settings that were tried on test images.
    """

    description: str
    tasks: list[str] = Field(min_length=1)
    methods: dict[str, Entry] = Field(min_length=1)
    budgets: Queries = Field(min_length=1)
    answers: list[Answers] = ["labels", "probs"]
    inputs: list[Inputs] = ["float"]
    seeds: list[int] = Field(min_length=1)
    teachers: int = Field(1, ge=1, le=SEEDS)
    per_budget: bool = False
    exclude: list[dict[str, str]] = []
    no_ranking: str = ""

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_names(cls, methods: Any) -> Any:
        return {name: entry or {} for name, entry in methods.items()} if isinstance(methods, dict) else methods

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, seeds: Any) -> Any:
        return parse_seeds(seeds)


class Part(BaseModel, frozen=True, extra="forbid"):
    """A file that stands for another grid: what the filters, axis -> globs, leave of it.

    tasks, budgets, seeds, teachers: in place of those of the other grid; entries with budgets of their own keep these.
    exclude: as well as what that leaves out.
    """

    description: str
    of: str
    filters: dict[Literal["task", "dataset", "method", "budget"], list[str]] = {}
    tasks: list[str] = []
    budgets: Queries = []
    seeds: list[int] = []
    teachers: int | None = Field(None, ge=1, le=SEEDS)
    exclude: list[dict[str, str]] = []

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, seeds: Any) -> Any:
        return parse_seeds(seeds)


def load(name: str, above: tuple[str, ...] = ()) -> tuple[str, Grid]:
    """The grid of that name among those shipped, or of that file. Returns its short name as well.

    above: the parts that it is asked for by.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = SHIPPED / f"{name}.yaml"
        if not path.exists():
            raise unknown("grid", name, shipped())
    content = strict_yaml.read(path, "grid", Grid.model_fields)
    if "of" not in content:
        methods = _with_tuned(content.get("methods"), path.parent)
        return path.stem, _checked(parse({**content, "methods": methods}, f"grid {path}"))
    try:
        part = Part(**content)
    except ValidationError as error:
        raise UsageError(f"grid {path}: {one_line(error, Part.model_fields)}") from error
    return path.stem, _part(part, (*above, name), path.parent)


def parse(content: dict[str, Any], origin: str) -> Grid:
    """The grid that a mapping describes; UsageError that starts with `origin`, where it comes from."""
    try:
        return Grid(**content)
    except ValidationError as error:
        raise UsageError(f"{origin}: {one_line(error, Grid.model_fields)}") from error


def _part(part: Part, above: tuple[str, ...], folder: Path) -> Grid:
    """The part as a grid; UsageError for a filter that fits nothing, an unknown task, and for a part of itself.

    folder: that of its file, which a file that it is of is looked for from.
    """
    of = str(folder / part.of) if part.of.endswith((".yaml", ".yml")) else part.of
    if of in above:
        raise UsageError(f"grid {above[-1]} is a part of itself: {' of '.join((*above, of))}")
    _, whole = load(of, above)
    filters: Mapping[str, list[str]] = {str(axis): globs for axis, globs in part.filters.items()}
    named = {"tasks": part.tasks, "budgets": part.budgets, "seeds": part.seeds, "teachers": part.teachers}
    replaced = {key: values for key, values in named.items() if values}
    for task in part.tasks:
        defended_task(task)
    without = {"description": part.description, "exclude": [*whole.exclude, *part.exclude]}
    return narrowed(whole, filters).model_copy(update={**without, **replaced})


def narrowed(grid: Grid, filters: Mapping[str, list[str]]) -> Grid:
    """The grid with only the tasks, methods and budgets that the filters (axis -> globs, or several with commas) leave.

    UsageError where one fits nothing.
    """
    wanted = {axis: parted(texts) for axis, texts in filters.items()}
    tasks, methods = grid.tasks, grid.methods
    if globs := wanted.get("task"):
        tasks = matching("task", tasks, globs, lambda task: (task,))
    if globs := wanted.get("dataset"):
        tasks = matching("dataset", tasks, globs, lambda task: (task_of(task).dataset,))
    if globs := wanted.get("method"):
        labels = matching("method", list(methods), globs, lambda label: (label, methods[label].method))
        methods = {label: methods[label] for label in labels}
    left = grid.model_copy(update={"tasks": tasks, "methods": methods})
    return _of_budgets(left, globs) if (globs := wanted.get("budget")) else left


def _of_budgets(grid: Grid, globs: list[str]) -> Grid:
    """The grid at the budgets that the globs leave, own ones of entries too; without entries that have none left."""
    every = sorted({*grid.budgets, *(queries for entry in grid.methods.values() for queries in entry.budgets)})
    kept = matching("budget", every, globs, lambda queries: (str(queries),))
    budgets, methods = [queries for queries in grid.budgets if queries in kept], {}
    for label, entry in grid.methods.items():
        own = [queries for queries in entry.budgets if queries in kept]
        if own or (budgets and not entry.budgets):
            methods[label] = entry.model_copy(update={"budgets": own})
    return grid.model_copy(update={"methods": methods, "budgets": budgets or kept})


def _checked(grid: Grid) -> Grid:
    """The grid; UsageError where an entry names a task that the grid has not."""
    names = {name for task in grid.tasks for name in (task, defended_task(task).dataset)}
    for entry in grid.methods.values():
        for glob in (*entry.tasks, *entry.where):
            if not matches("task", glob, *names):
                raise unknown("task", glob, names)
    return grid


def shipped() -> list[str]:
    """The names of the grids that come with the harness."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def parse_seeds(given: Any) -> Any:
    """`3` or `"3"` means seeds 0, 1 and 2; `"4,7"` or a list means those."""
    seeds = given
    if isinstance(seeds, str) and "," in seeds:
        seeds = [int(seed) if seed.strip().isdecimal() else seed for seed in seeds.split(",")]
    if isinstance(seeds, str) and seeds.strip().isdecimal():
        seeds = int(seeds)
    count = isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1
    listed = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds) and seeds
    if not count and not listed:
        raise UsageError(f"seeds {given!r}: wanted how many, 1 or more, or a list such as 0,1,2")
    if (seeds if count else max(seeds) + 1) > SEEDS:
        raise UsageError(f"seeds {str(given)[:40]}: wanted those below {SEEDS:,}")
    return list(range(seeds)) if count else sorted(set(seeds))


def _with_tuned(methods: Any, folder: Path) -> Any:
    """The methods with `config: FILE`, relative to the grid, replaced by the settings in that file of bench tune."""
    if not isinstance(methods, dict):
        return methods
    read = dict(methods)
    for label, entry in methods.items():
        if isinstance(entry, dict) and isinstance(entry.get("config"), str):
            read[label] = {**entry, "config": _tuned(folder / entry["config"], entry.get("method") or label)}
    return read


def _tuned(path: Path, method: str) -> dict[str, Any]:
    """The settings in a file that bench tune wrote for the method."""
    content = strict_yaml.read(path, "tuned settings", ("method", "config"))
    if not isinstance(content.get("config"), dict):
        raise UsageError(f"tuned settings {path}: wanted a mapping with method and config, as bench tune writes")
    if content.get("method") != method:
        raise UsageError(f"tuned settings {path} are for method {content.get('method')}, not for {method}")
    return dict(content["config"])
