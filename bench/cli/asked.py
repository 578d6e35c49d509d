"""What a command asks for: a grid with all that the command line adds to it, and the runs of it that are meant."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.boxes.described import MARK, Attached, Box, Endpoint, ModelFile, read
from bench.cli.options import Foreign, Selection
from bench.contract import plugins
from bench.contract.plugins import Outside
from bench.errors import UsageError
from bench.globs import parted
from bench.grids import definition
from bench.grids.definition import Entry, Grid
from bench.grids.plan import Planned, runs_of
from bench.grids.select import choose, configure
from bench.tasks import image_folder
from bench.tasks.image_folder import Folder
from budgets.answers import AnswersError, kind_of


@dataclass(frozen=True)
class Asked:
    """name: the grid's. runs: all that the grid has. chosen: those that the filters leave. outside: what a process
    must load to know the grid's methods and tasks. remarks: what a person should know."""

    name: str
    grid: Grid
    runs: list[Planned]
    chosen: list[Planned]
    outside: Outside
    remarks: list[str]


def asked(selection: Selection, foreign: Foreign) -> Asked:
    """What the selection asks for; UsageError for what does not exist.

    Filters choose among the runs of the grid. Plugins, folders of images, answers, seeds and settings change the grid
    itself: what the command line names and the grid has not is added to it.
    """
    outside, remarks = load_outside(foreign.plugin, None)
    name, grid = definition.load(selection.grid)
    box = _box(foreign)
    folders, globs = image_folder.split(selection.task or [])
    folders = [_of_box(folder, box) for folder in folders]
    made = [image_folder.register(folder) for folder in folders]
    outside = [*outside, *folders]
    if attached := _attached(box, foreign, made or definition.narrowed(grid, {"task": globs}).tasks):
        outside, globs, made = [*outside, *attached], [], [item.name for item in attached]
        plugins.load(attached)
        grid = grid.model_copy(update=_terms(attached))
    seeds = definition.parse_seeds(selection.seeds) if selection.seeds is not None else grid.seeds
    answers = [text for text in parted(selection.answers) if "*" not in text]
    check_answers(answers)
    count = 1 if box else selection.teachers or grid.teachers
    extended = {
        "methods": {**_entries(selection, foreign), **grid.methods},
        "tasks": list(dict.fromkeys([*grid.tasks, *made])),
        "answers": list(dict.fromkeys([*grid.answers, *answers])),
        "seeds": sorted({*grid.seeds, *seeds}),
        "teachers": max(grid.teachers, count),
    }
    grid = configure(grid.model_copy(update=extended), selection.settings or [])
    runs = runs_of(grid)
    filters = {
        "task": [*globs, *made],
        "dataset": selection.dataset or [],
        "method": selection.method or [],
        "budget": selection.budget or [],
        "answers": selection.answers or [],
        "teacher": [str(seed) for seed in range(count)],
        "seed": [str(seed) for seed in seeds],
    }
    return Asked(name, grid, runs, choose(runs, filters, selection.exclude or []), outside, remarks)


def _box(foreign: Foreign) -> Box | None:
    """The black box that the command line names, or None."""
    if foreign.teacher and foreign.blackbox:
        raise UsageError("--teacher and --blackbox: wanted one of them")
    options = {"adapter": foreign.adapter, "price": foreign.price, "limit": foreign.limit}
    if lonely := [f"--{name}" for name, value in options.items() if value is not None and not foreign.blackbox]:
        raise UsageError(f"{', '.join(lonely)}: wanted with --blackbox")
    if foreign.teacher:
        return read(foreign.teacher, ModelFile)
    if foreign.blackbox:
        return read(foreign.blackbox, Endpoint, **options)
    return None


def _of_box(folder: Folder, box: Box | None) -> Folder:
    """The folder; one of images without labels with the shape and the classes that the box says it has."""
    if not folder.unlabelled or box is None or box.shape is None or box.classes is None:
        return folder
    return replace(folder, shape=box.shape, classes=box.classes if isinstance(box.classes, int) else len(box.classes))


def _attached(box: Box | None, foreign: Foreign, tasks: list[str]) -> list[Attached]:
    """The tasks with the black box and the student that the command line names; none, if it names neither."""
    return [Attached(task, box, foreign.student or "") for task in tasks if box or foreign.student]


def _terms(attached: list[Attached]) -> dict[str, Any]:
    """What of the grid another black box changes: tasks, one teacher of each, what can be sent."""
    box, tasks = attached[0].box, {"tasks": [item.name for item in attached]}
    if box is None:
        return tasks
    return {**tasks, "teachers": 1, "inputs": [box.inputs]}


def check_answers(given: list[str]) -> None:
    """UsageError for terms that no answer can have."""
    try:
        for answers in given:
            kind_of(answers)
    except AnswersError as error:
        raise UsageError(str(error)) from error


def load_for(task: str, folders: list[str] | None, foreign: Foreign) -> Outside:
    """Load what a task of that name was made of, all but what is ours; returns it as another process can load it."""
    outside, _ = load_outside(foreign.plugin, None)
    box = _box(foreign)
    found = [_of_box(folder, box) for folder in image_folder.split(folders or [])[0]]
    attached = _attached(box, foreign, [task.partition(MARK)[0]])
    plugins.load([*found, *attached])
    return [*outside, *found, *attached]


def load_outside(files: list[Path] | None, tasks: list[str] | None) -> tuple[Outside, list[str]]:
    """Load what extends the methods and the tasks; returns it as another process can load it, and remarks."""
    outside: Outside = [*(file.resolve() for file in files or []), *image_folder.split(tasks or [])[0]]
    return outside, plugins.load(outside)


def _entries(selection: Selection, foreign: Foreign) -> dict[str, Entry]:
    """An entry for each plugin, and for each installed method that is asked for by its name."""
    named = parted(selection.method)
    files = [file.stem for file in foreign.plugin or []]
    return {name: Entry() for name in [*files, *(name for name in plugins.installed() if name in named)]}
