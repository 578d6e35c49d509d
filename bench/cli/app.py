"""The commands, and the only place that prints."""

import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.executors.jobs import Job
    from bench.executors.local import Slot
    from bench.executors.prepare import Outside
    from bench.grids.definition import Grid, Planned
    from bench.tuning.outcome import Outcome
    from bench.tuning.study import Places, Study, Terms

# torch, pandas, mlflow and seaborn take seconds to import: each command imports what it needs.

app = typer.Typer(
    name="bench",
    help="How good a student can each method train with Q queries to a black box and no data?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

GridName = Annotated[str, typer.Option("--grid", help="A shipped grid or a YAML file.")]
TASK_HELP = "Only these tasks; globs, repeatable or with commas. folder:PATH makes one of a folder of images."
Tasks = Annotated[list[str] | None, typer.Option("--task", help=TASK_HELP)]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", help="Only tasks on these data sets.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="Only these entries or methods.")]
Budgets = Annotated[list[str] | None, typer.Option("--budget", help="Only these budgets, such as 2.5k.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="How many seeds, or which: 5, or 3,4.")]
Excludes = Annotated[list[str] | None, typer.Option("--exclude", help="Leave out AXIS=GLOB.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="METHOD.KEY=VALUE for every entry of that name.")]
Data = Annotated[Path, typer.Option("--data", envvar="BENCH_DATA", help="Folder of the data sets.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run, or its folder.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with a method of your own.")]
Tracking = Annotated[str | None, typer.Option("--mlflow", help="Tracking URI, or 'off'; default: under --out.")]


@app.command()
def run(
    grid: GridName = "digits",
    task: Tasks = None,
    dataset: Datasets = None,
    method: Methods = None,
    budget: Budgets = None,
    seeds: Seeds = None,
    exclude: Excludes = None,
    settings: Settings = None,
    plugin: Plugins = None,
    data: Data = Path("data"),
    out: Out = Path("runs"),
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; default: the grid's.")] = None,
    device: Device = "auto",
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes on the CPU; default: cores.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="Which GPUs, such as 0,1; default: all.")] = None,
    per_gpu: Annotated[int, typer.Option("--per-gpu", min=1, help="Processes on each GPU.")] = 1,
    download: Annotated[bool, typer.Option("--download", help="Download missing data sets first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, and stop.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run stale cells again too.")] = False,
    keep_students: Annotated[bool, typer.Option("--keep-students", help="Keep final students as models.")] = False,
    mlflow: Tracking = None,
) -> None:
    """Run a grid, or what of it is missing, and report it."""
    outside = _outside(plugin, task)
    filters = {"task": task, "dataset": dataset, "method": method, "budget": budget}
    grid_name, chosen = _grid(grid, filters, seeds, exclude, settings, plugin)
    console = _console()
    where = _slots(device, jobs, gpus, per_gpu)
    if download and not dry_run:
        _download(chosen, data)
    planned = _plan(chosen, out, data, device)
    _show_plan(console, grid_name, planned, out, where[0].device, full=dry_run)
    if dry_run:
        return
    if all(item.reason for item in planned):
        raise UsageError(f"nothing can run here: {planned[0].reason}")
    from bench.executors import prepare
    from bench.mirror import Follower, default_uri

    folder = out / (name or grid_name)
    _must_be_writable(folder)
    _decode(console, prepare.data_sets(planned), data, outside, where, out)
    teachers = prepare.teacher_jobs(prepare.untrained(planned, out), out, data, outside)
    failed = _work(console, "teachers", teachers, where, out, lambda: None)
    if teachers:
        planned = _plan(chosen, out, data, device)
    prepare.write_run(folder, name or grid_name, chosen, planned, out, where[0].device)
    mirror = Follower(folder, mlflow or default_uri(out), lambda line: console.print(line, style="yellow"))
    wanted = [item for item in planned if item.state not in ({"done"} if rerun else {"done", "stale"})]
    cells = (item.cell for item in wanted if item.cell)
    jobs_of_cells = prepare.cell_jobs(cells, out, data, outside, keep_student=keep_students)
    failed += _work(console, "cells", jobs_of_cells, where, out, mirror.tick)
    _report(console, folder)
    mirror.finish()
    raise typer.Exit(1 if failed else 0)


@app.command()
def plan(
    grid: GridName = "digits",
    task: Tasks = None,
    dataset: Datasets = None,
    method: Methods = None,
    budget: Budgets = None,
    seeds: Seeds = None,
    exclude: Excludes = None,
    settings: Settings = None,
    plugin: Plugins = None,
    data: Data = Path("data"),
    out: Out = Path("runs"),
    device: Device = "auto",
) -> None:
    """Show what `run` would do."""
    _outside(plugin, task)
    filters = {"task": task, "dataset": dataset, "method": method, "budget": budget}
    grid_name, chosen = _grid(grid, filters, seeds, exclude, settings, plugin)
    where = _slots(device, None, None, 1)
    _show_plan(_console(), grid_name, _plan(chosen, out, data, device), out, where[0].device, full=True)


@app.command()
def teachers(
    task: Tasks = None,
    data: Data = Path("data"),
    out: Out = Path("runs"),
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and stop.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Measure those there are again; train none.")] = False,
    weights: Annotated[Path | None, typer.Option("--weights", help="A state dict to use as the teacher.")] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="What these weights subtract: 0.5 or 0.5,0.4,0.4.")] = None,
    std: Annotated[str | None, typer.Option("--std", help="What they divide by; default: the training set's.")] = None,
) -> None:
    """Train the teachers that are missing, and list all."""
    from bench.boxes import listing
    from bench.boxes.weights import install, normalisation
    from bench.cli import show
    from bench.executors import prepare
    from bench.tasks import image_folder

    outside = _outside(None, task)
    made, globs = image_folder.split(task or [])
    chosen = listing.choose([*globs, *map(image_folder.register, made)])
    console, where, gpu = _console(), _slots(device, None, None, 1), _has_gpu(device)
    failed = 0
    if not (check or dry_run):
        _must_be_writable(out)
    if weights is not None:
        install(chosen, weights, out, data, normalisation(mean, std))
    elif not (check or dry_run):
        missing = listing.trainable(chosen, out, data, gpu=gpu)
        _decode(console, {task.dataset for task in missing.values()}, data, outside, where, out)
        failed = _work(console, "teachers", prepare.teacher_jobs(missing, out, data, outside), where, out, lambda: None)
    lines = listing.lines(chosen, out, data, gpu=gpu, check_on=where[0].device if check else None)
    console.print(show.listing(listing.COLUMNS, (line.cells() for line in lines)))
    raise typer.Exit(1 if failed or any(line.wrong for line in lines) else 0)


@app.command()
def status(run: RunName, out: Out = Path("runs")) -> None:
    """Count a run's cells by state, and give the reasons of those that failed or cannot run."""
    from bench.cli import show
    from results import curves

    cells = curves.cells(_run_folder(run, out))
    console = _console()
    counts = cells["state"].value_counts()
    console.print(f"{run}: {len(cells)} runs ({', '.join(f'{n} {state}' for state, n in counts.items())})")
    reasons = cells.groupby(["state", "reason"]).size().reset_index(name="runs")
    if len(reasons):
        console.print(show.listing(["state", "reason", "runs"], reasons.itertuples(index=False)))


@app.command()
def report(run: RunName, out: Out = Path("runs")) -> None:
    """Write a run's page, tables and figures anew from what is done."""
    _report(_console(), _run_folder(run, out))


@app.command()
def sync(run: RunName, out: Out = Path("runs"), mlflow: Tracking = None) -> None:
    """Bring MLflow up to what is on disk."""
    from bench.mirror import Mirror, TrackingError, default_uri

    folder = _run_folder(run, out)
    uri = mlflow or default_uri(out)
    try:
        mirror = Mirror(folder, uri)
        added = mirror.sync()
        mirror.log_report()
    except TrackingError as error:
        raise UsageError(f"MLflow at {uri}: {error}") from error
    _console().print(f"MLflow at {uri}: {added} cells added")


@app.command("list")
def list_(what: Annotated[str, typer.Argument(metavar="methods|tasks|grids|networks")]) -> None:
    """List what there is."""
    from bench.cli import lists, show
    from bench.errors import unknown

    if what not in lists.LISTS:
        raise unknown("list", what, lists.LISTS)
    columns, rows = lists.LISTS[what]()
    _console().print(show.listing(columns, rows))


@app.command()
def check(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A Python file, or the name of a method.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, to make it small.")] = None,
) -> None:
    """Hold a method to the contract, on a small teacher, and say what is wrong with it."""
    import yaml

    from bench.contract import check, plugins
    from bench.errors import unknown
    from methods import METHODS

    file = Path(method)
    plugins.load([file] if file.suffix == ".py" else ())
    name = file.stem if file.suffix == ".py" else method
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    chosen = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in settings or [])}
    complaints = check.check(METHODS[name], chosen)
    for complaint in complaints:
        _console().print(f"{name}: {complaint}", markup=False)
    if not complaints:
        _console().print(f"{name} keeps to the contract")
    raise typer.Exit(1 if complaints else 0)


@app.command()
def tune(
    method: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="A method; or give --grid.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="The task; of a grid, only these.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Queries of a trial; of a grid: its largest.")] = None,
    answers: Annotated[str | None, typer.Option("--answers", help="labels or probs.")] = None,
    grid: Annotated[str | None, typer.Option("--grid", help="Tune every method of a grid for every task.")] = None,
    trials: Annotated[int, typer.Option("--trials", help="Trials in all; those there are count.")] = 30,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help="agreement with the teacher on held-out queries; transfer: accuracy on the validation split of "
            "--proxy; validation: of the task itself (needs data).",
        ),
    ] = "agreement",
    proxy: Annotated[str | None, typer.Option("--proxy", help="The task on which transfer tries settings.")] = None,
    held_out: Annotated[int, typer.Option("--held-out", help="Queries that judge agreement; charged.")] = 500,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of a trial, whose mean counts.")] = 1,
    final_seeds: Annotated[
        int, typer.Option("--final-seeds", help="Fresh seeds of the last measurement; 0: none.")
    ] = 5,
    sampler: Annotated[str, typer.Option("--sampler", help="tpe, gp or random.")] = "tpe",
    against: Annotated[
        list[str] | None, typer.Option("--against", help="Trade off against queries, seconds; no pruning then.")
    ] = None,
    prune: Annotated[bool, typer.Option(help="End poor trials at curve points; `anytime` methods only.")] = True,
    storage: Annotated[
        str | None, typer.Option("--storage", help="A database for several machines; or a journal.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the study.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, not searched; METHOD.KEY of a grid.")
    ] = None,
    plugin: Plugins = None,
    data: Data = Path("data"),
    out: Out = Path("runs"),
    device: Device = "auto",
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Workers on the CPU; default: cores.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="Which GPUs, such as 0,1; default: all.")] = None,
    per_gpu: Annotated[int, typer.Option("--per-gpu", min=1, help="Workers on each GPU.")] = 1,
    mlflow: Tracking = None,
) -> None:
    """Search for a method's settings: nothing is chosen on test data, and every query of the search is counted."""
    if trials < 1 or final_seeds < 0:
        raise UsageError(f"trials {trials}, final seeds {final_seeds}: wanted 1 or more, and 0 or more")
    outside = _outside(plugin, task)
    from bench.cli import show
    from bench.mirror import default_uri
    from bench.tuning import study as studies

    costs = [cost for text in against or [] for cost in text.split(",")]
    terms = studies.Terms(objective, proxy, held_out, seeds, sampler, tuple(costs), prune)  # type: ignore[arg-type]
    chosen, settings = _to_tune(method, task, budget, answers, grid, settings or [])
    where = _slots(device, jobs, gpus, per_gpu)
    _must_be_writable(out)
    console = _console()
    places = studies.Places(out.resolve(), data.resolve(), storage, outside)
    items = _planned_studies(console, chosen, terms, where, places, device)
    if name and len(items) > 1:
        raise UsageError(f"name {name}: wanted for one study, but there are {len(items)}")
    uri = mlflow or default_uri(out)
    rows = []
    for item in items:
        study = studies.study_of(item, terms, studies.fixed_keys(item, settings), name, places)
        rows.append(_study(console, study, trials, final_seeds, places, where, uri))
        if len(items) == 1 and rows[0].bad_input:
            raise UsageError(f"{study.name}: {rows[0].reason}")
    console.print(show.tuned(rows))
    raise typer.Exit(1 if any(row.reason for row in rows) else 0)


def main() -> None:
    """Exit codes: 0 all done, 1 a cell failed, 2 bad input, 3 a fault of the harness, 130 interrupted."""
    try:
        app()
    except UsageError as error:
        _fail(2, f"bench: {error}")
    except Exception:
        _fail(3, f"{traceback.format_exc()}bench: this is a fault of the harness; what was done so far is kept")


def _fail(code: int, message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def _grid(
    name: str,
    filters: dict[str, list[str] | None],
    seeds: str | None,
    exclude: list[str] | None,
    settings: list[str] | None,
    plugins: list[Path] | None,
) -> tuple[str, "Grid"]:
    """The grid as filtered and set on the command line, with what comes from outside, and its name."""
    from bench.grids import definition
    from bench.tasks import image_folder

    grid_name, chosen = definition.load(name)
    entries = {file.stem: definition.Entry() for file in plugins or []}
    chosen = chosen.model_copy(update={"methods": {**entries, **chosen.methods}})
    made, globs = image_folder.split(filters["task"] or [])
    chosen = definition.select(
        chosen, {axis: globs or [] for axis, globs in {**filters, "task": globs}.items()}, exclude or []
    )
    if made:
        chosen = chosen.model_copy(
            update={"tasks": [*(chosen.tasks if globs else []), *map(image_folder.register, made)]}
        )
    if seeds is not None:
        chosen = chosen.model_copy(update={"seeds": definition.parse_seeds(seeds)})
    return grid_name, definition.configure(chosen, settings or [])


def _to_tune(
    method: str | None,
    task: list[str] | None,
    budget: str | None,
    answers: str | None,
    grid_name: str | None,
    settings: list[str],
) -> tuple["Grid", list[str]]:
    """What to tune as a grid, that of one method if it is named, and the settings as METHOD.KEY=VALUE."""
    from bench.errors import unknown
    from bench.grids import definition
    from bench.tasks import image_folder
    from methods import METHODS

    if (method is None) == (grid_name is None):
        raise UsageError("wanted a method or a grid: bench tune METHOD --task T --budget Q, or bench tune --grid G")
    if grid_name:
        filters = {"task": task, "budget": [budget] if budget else None}
        return _grid(grid_name, filters, "1", None, settings, [])[1], settings
    if method not in METHODS:
        raise unknown("method", str(method), METHODS)
    if not task or not budget:
        raise UsageError(f"tune {method}: wanted --task and --budget")
    kinds, (made, names) = METHODS[method].ANSWERS, image_folder.split(task)
    content = {
        "tasks": [*names, *map(image_folder.register, made)],
        "methods": {method: None},
        "budgets": [budget],
        "answers": [answers or kinds[0]],
    }
    settings = [f"{method}.{setting}" for setting in settings]
    return definition.configure(
        definition.parse({"description": "tuned", "seeds": 1, **content}, "tune"), settings
    ), settings


def _planned_studies(
    console: "Console", chosen: "Grid", terms: "Terms", where: "list[Slot]", places: "Places", device: str
) -> "list[Planned]":
    """One planned run for each study, with all teachers trained; UsageError where one cannot run here."""
    from bench.executors import prepare

    tasks = list(dict.fromkeys([*chosen.tasks, *(terms.tried_on(task) for task in chosen.tasks)]))
    out, data = places.root, places.data
    every = _plan(chosen.model_copy(update={"tasks": tasks}), out, data, device)
    if reason := next((item.reason for item in every if item.reason), None):
        raise UsageError(f"cannot run here: {reason}")
    _decode(console, prepare.data_sets(every), data, places.outside, where, out)
    jobs = prepare.teacher_jobs(prepare.untrained(every, out), out, data, places.outside)
    _work(console, "teachers", jobs, where, out, lambda: None)
    planned = sorted(_plan(chosen, out, data, device), key=lambda item: item.budget.queries)
    return list({(item.label, item.task, item.budget.answers, item.budget.inputs): item for item in planned}.values())


def _study(
    console: "Console",
    study: "Study",
    trials: int,
    final_seeds: int,
    places: "Places",
    where: "list[Slot]",
    mlflow: str,
) -> "Outcome":
    """Bring a study to so many trials, write what comes of it, and measure its best settings."""
    from bench.cli import show
    from bench.executors import prepare
    from bench.tuning import outcome as outcomes
    from bench.tuning import study as studies
    from bench.tuning.worker import workers

    searched = studies.open_study(study, places)
    jobs = workers(study, searched, trials, places, len(where))
    console.print(show.study(study, outcomes.ended(searched), trials), markup=False)
    _work(console, "workers", jobs, where, places.root, lambda: None)
    if outcomes.best(searched) is None:
        return outcomes.nothing(study, searched)
    files = outcomes.write(study, searched, places, sys.argv[1:])
    cells = outcomes.final_cells(study, searched, places, final_seeds)
    measurements = prepare.cell_jobs(cells, places.root, places.data, places.outside)
    _work(console, "runs", measurements, where, places.root, lambda: None)
    outcome = outcomes.outcome(study, searched, places, cells, complete=studies.finished(searched, trials))
    outcomes.mirror(study, searched, places, files, mlflow, lambda line: console.print(line, style="yellow"))
    console.print(f"{study.name}:\n{show.paths(files)}", markup=False)
    return outcome


def _outside(files: list[Path] | None, tasks: list[str] | None) -> "Outside":
    """Load what extends the methods and the tasks; returns it as another process can load it."""
    from bench.contract import plugins
    from bench.tasks import image_folder

    outside: Outside = [*(file.resolve() for file in files or []), *image_folder.split(tasks or [])[0]]
    plugins.load(outside)
    return outside


def _slots(device: str, jobs: int | None, gpus: str | None, per_gpu: int) -> "list[Slot]":
    """Room for processes on the chosen devices; UsageError for a device that is not here."""
    import torch

    from bench.executors import local

    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"device {device!r}: wanted auto, cpu or cuda")
    found = torch.cuda.device_count()
    try:
        wanted = list(range(found)) if gpus is None else [int(gpu) for gpu in gpus.split(",")]
    except ValueError as error:
        raise UsageError(f"gpus {gpus!r}: wanted numbers such as 0,1") from error
    if (device == "cuda" and not found) or any(not 0 <= gpu < found for gpu in wanted):
        raise UsageError(f"device {device}, gpus {gpus or 'all'}: this machine has {found} GPUs")
    return local.slots(jobs, [] if device == "cpu" else wanted, per_gpu)


def _plan(chosen: "Grid", out: Path, data: Path, device: str) -> "list[Planned]":
    from bench.grids import definition

    planned = definition.plan(chosen, out, data, gpu=_has_gpu(device))
    if not planned:
        raise UsageError("nothing is left of the grid: the exclusions take every run out")
    return planned


def _has_gpu(device: str) -> bool:
    """Whether what wants a GPU may run: on one, or because the CPU was chosen by hand."""
    import torch

    return device == "cpu" or torch.cuda.is_available()


def _show_plan(console: "Console", name: str, planned: "list[Planned]", out: Path, device: str, *, full: bool) -> None:
    import torch

    from bench.cells.run import device_name
    from bench.cli import show
    from bench.executors import prepare
    from bench.grids.estimate import estimate

    untrained, here = prepare.untrained(planned, out), device_name(torch.device(device))
    cost = estimate(planned, untrained.values(), out, here)
    console.print(show.plan(name, planned, untrained, cost, here, full=full))


def _download(chosen: "Grid", data: Path) -> None:
    from bench.tasks.data import sources
    from bench.tasks.table import task_of

    for name in dict.fromkeys(task_of(task).dataset for task in chosen.tasks):
        sources.download(name, data)


def _decode(
    console: "Console", names: Iterable[str], data: Path, outside: "Outside", where: "list[Slot]", out: Path
) -> None:
    """Decode what is not in the cache yet, with progress; a data set that is broken ends the command, as bad input."""
    from bench.executors import prepare

    if _work(console, "data sets", prepare.data_jobs(names, data, outside), where, out, lambda: None):
        raise typer.Exit(2)


def _work(
    console: "Console", what: str, jobs: "list[Job]", where: "list[Slot]", out: Path, tick: Callable[[], None]
) -> int:
    """Run the jobs and show their progress; `tick` is called again and again. Returns how many failed."""
    from bench.cli import show
    from bench.executors import local, prepare

    failed = 0
    if jobs:
        with show.Board(console, what, jobs) as board, closing(local.execute(jobs, where)) as events:
            try:
                for event in events:
                    board.show(event)
                    if event is not None and event.kind == "failed":
                        failed += 1
                        prepare.note_failure(event, out)
                    tick()
            except KeyboardInterrupt:
                print("bench: interrupted; the same command goes on where this one stopped", file=sys.stderr)
                raise typer.Exit(130) from None
    return failed


def _report(console: "Console", folder: Path) -> None:
    """Write the report and print the path of its page, its tables, its paths, and what is lacking."""
    from bench.cli import show
    from results.report import report

    written = report.write(folder)
    console.print(f"report: {show.paths([written.page]).strip()}", markup=False, soft_wrap=True)
    for table in show.summary(written.summary):
        console.print(table)
    lacking = written.cells[written.cells["state"] != "done"]
    for state, reason, n in lacking.fillna({"reason": "-"}).groupby(["state", "reason"]).size().reset_index().values:
        console.print(f"not in these tables: {n} runs {state}: {reason}", markup=False)
    console.print(f"tables and figures:\n{show.paths([*written.tables, *written.figures])}", markup=False)


def _run_folder(run: str, out: Path) -> Path:
    """The folder of a run, given by name or path."""
    from bench.errors import unknown

    for folder in (out / run, Path(run)):
        if (folder / "run.json").exists():
            return folder
    names = [path.parent.name for path in out.glob("*/run.json")]
    if not names:
        raise UsageError(f"no run {run!r}: there is no run in {out} yet; bench run makes one")
    raise unknown("run", run, names)


def _must_be_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"output folder {folder} cannot be written: {reason}; choose another with --out") from error
