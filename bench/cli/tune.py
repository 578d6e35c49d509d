"""`bench tune`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Machine, Plugins, Tracking, Words
from bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.grids.definition import Grid
    from bench.grids.plan import Planned
    from bench.tuning.outcome import Outcome
    from bench.tuning.study import Places, Study, Terms

OBJECTIVE_HELP = (
    "agreement with the teacher on held-out queries; transfer: accuracy on the validation split of --proxy; "
    "validation: of the task itself (needs data)."
)


def tune(
    machine: Machine,
    method: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="A method; or give --grid.")] = None,
    task: Annotated[Words, typer.Option("--task", help="The task; of a grid, only these.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Queries of a trial; of a grid: its largest.")] = None,
    answers: Annotated[str | None, typer.Option("--answers", help="labels or probs.")] = None,
    grid: Annotated[str | None, typer.Option("--grid", help="Tune every method of a grid for every task.")] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all; those there are count.")] = 30,
    objective: Annotated[str, typer.Option("--objective", help=OBJECTIVE_HELP)] = "agreement",
    proxy: Annotated[str | None, typer.Option("--proxy", help="The task on which transfer tries settings.")] = None,
    held_out: Annotated[int, typer.Option("--held-out", help="Queries that judge agreement; charged.")] = 500,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of a trial, whose mean counts.")] = 1,
    final_seeds: Annotated[int, typer.Option("--final-seeds", min=0, help="Fresh seeds of the last measurement.")] = 5,
    sampler: Annotated[str, typer.Option("--sampler", help="tpe, gp or random.")] = "tpe",
    against: Annotated[Words, typer.Option("--against", help="Trade off against queries, seconds; no pruning.")] = None,
    prune: Annotated[bool, typer.Option(help="End poor trials at curve points; `anytime` methods only.")] = True,
    storage: Annotated[str | None, typer.Option("--storage", help="A database for several machines.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the study.")] = None,
    settings: Annotated[Words, typer.Option("--set", help="KEY=VALUE, not searched; METHOD.KEY of a grid.")] = None,
    plugin: Plugins = None,
    mlflow: Tracking = None,
) -> None:
    """Search for a method's settings: nothing is chosen on test data, and every query of the search is counted."""
    from bench.cells.run import How
    from bench.cli import show
    from bench.cli.asked import load_outside
    from bench.cli.work import console_of
    from bench.globs import parted
    from bench.mirror import default_uri
    from bench.tuning.study import Places, Terms, fixed_keys, study_of

    machine.without_slurm("bench tune")
    (outside, remarks), console = load_outside(plugin, task), console_of()
    show.remarks(console, remarks)
    costs = tuple(parted(against))
    terms = Terms(objective, proxy, held_out, seeds, sampler, costs, prune)  # type: ignore[arg-type]
    chosen, settings = _to_tune(method, task, budget, answers, grid, settings or [])
    machine.check_writable()
    how = How(machine.checkpoint, isolate=machine.isolate)
    places = Places(machine.out.resolve(), machine.data.resolve(), storage, outside, how)
    runs = _prepared(console, chosen, answers, terms, machine, places)
    if name and len(runs) > 1:
        raise UsageError(f"name {name}: wanted for one study, but there are {len(runs)}")
    outcomes, uri = [], mlflow or default_uri(places.root)
    for run in runs:
        study = study_of(run, terms, fixed_keys(run, settings), name, places)
        outcomes.append(_search(console, study, trials, final_seeds, places, machine, uri))
        if len(runs) == 1 and outcomes[0].bad_input:
            raise UsageError(f"{study.name}: {outcomes[0].reason}")
    console.print(show.tuned(outcomes))
    raise typer.Exit(1 if any(outcome.reason for outcome in outcomes) else 0)


def _to_tune(
    method: str | None,
    task: Words,
    budget: str | None,
    answers: str | None,
    grid: str | None,
    settings: list[str],
) -> tuple["Grid", list[str]]:
    """What to tune as a grid, that of one method if it is named, and the settings as METHOD.KEY=VALUE."""
    from bench.cli.asked import check_answers
    from bench.grids import definition
    from bench.grids.select import configure
    from bench.tasks import image_folder
    from methods import METHODS

    check_answers([answers] if answers else [])
    if (method is None) == (grid is None):
        raise UsageError("wanted a method or a grid: bench tune METHOD --task T --budget Q, or bench tune --grid G")
    folders, names = image_folder.split(task or [])
    made = [image_folder.register(folder) for folder in folders]
    if grid:
        whole = definition.narrowed(definition.load(grid)[1], {"task": names, "budget": [budget] if budget else []})
        if made:
            whole = whole.model_copy(update={"tasks": [*(whole.tasks if names else []), *made]})
        return configure(whole, settings), settings
    if method not in METHODS:
        raise unknown("method", str(method), METHODS)
    if not task or not budget:
        raise UsageError(f"tune {method}: wanted --task and --budget")
    content = {
        "description": "tuned",
        "tasks": [*names, *made],
        "methods": {method: None},
        "budgets": [budget],
        "answers": [answers or METHODS[method].ANSWERS[0]],
        "seeds": 1,
    }
    settings = [f"{method}.{setting}" for setting in settings]
    return configure(definition.parse(content, "tune"), settings), settings


def _prepared(
    console: "Console", chosen: "Grid", answers: str | None, terms: "Terms", machine: Machine, places: "Places"
) -> "list[Planned]":
    """One planned run for each study, with all teachers trained; UsageError where one cannot run here."""
    from bench.cli.work import prepare
    from bench.executors.prepare import needs_of
    from bench.grids.plan import plan, runs_of

    chosen = chosen.model_copy(update={"seeds": [0], "teachers": 1, **({"answers": [answers]} if answers else {})})
    tasks = list(dict.fromkeys([*chosen.tasks, *(terms.tried_on(task) for task in chosen.tasks)]))
    every = plan(runs_of(chosen.model_copy(update={"tasks": tasks})), machine.out, machine.data, gpu=machine.gpu)
    if not every:
        raise UsageError(f"nothing is left to tune: no method of it learns from {answers}")
    if reason := next((run.reason for run in every if not run.runnable), None):
        raise UsageError(f"cannot run here: {reason}")
    if failed := prepare(console, needs_of(every), places.outside, machine):
        raise UsageError(failed[0])
    runs = sorted(runs_of(chosen), key=lambda run: run.budget.queries)
    largest = {(run.label, run.task, run.budget.answers, run.budget.inputs): run for run in runs}
    return list(largest.values())


def _search(
    console: "Console",
    study: "Study",
    trials: int,
    final_seeds: int,
    places: "Places",
    machine: Machine,
    uri: str,
) -> "Outcome":
    """Bring a study to so many trials, write what comes of it, and measure its best settings."""
    from bench.cli import show
    from bench.cli.work import work
    from bench.executors.jobs import cell_jobs
    from bench.tuning import outcome as outcomes
    from bench.tuning.study import finished, open_study
    from bench.tuning.worker import workers

    searched = open_study(study, places)
    jobs = workers(study, searched, trials, places, machine.room)
    console.print(show.study(study, outcomes.ended(searched), trials), markup=False)
    work(console, "workers", jobs, machine)
    if outcomes.best(searched) is None:
        return outcomes.nothing(study, searched)
    files = outcomes.write(study, searched, places, sys.argv[1:])
    cells = outcomes.final_cells(study, searched, places, final_seeds)
    work(console, "runs", cell_jobs(cells, places.root, places.data, places.outside, places.how), machine)
    found = outcomes.outcome(study, searched, places, cells, complete=finished(searched, trials))
    outcomes.mirror(study, searched, places, files, uri, lambda line: show.warning(console, line))
    console.print(f"{study.name}:\n{show.paths(files)}", markup=False)
    return found
