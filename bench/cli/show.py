"""What the commands show: plans, tables and the progress of a run, as things rich can print."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.executors.jobs import Event, Job
from bench.grids.definition import Planned
from bench.grids.estimate import Estimate
from results.report.numbers import short

if TYPE_CHECKING:
    from bench.tuning.outcome import Outcome
    from bench.tuning.study import Study

HEARTBEAT = 30.0  # seconds between plain lines


def plan(
    name: str, planned: list[Planned], teachers: Iterable[str], cost: Estimate, device: str, *, full: bool
) -> Group:
    """How many runs in which state, queries, teachers to train, time, disk, and what cannot run, with its reason."""
    runnable = [item for item in planned if not item.reason]
    states = Counter(item.state for item in planned)
    lines: list[Any] = [
        f"grid {name}: {len(planned):,} runs ({', '.join(f'{n:,} {state}' for state, n in states.items())})",
        f"queries: {sum(item.budget.queries for item in planned):,} in all, "
        f"{sum(item.budget.queries for item in runnable if item.state != 'done'):,} of them still to ask here",
    ]
    if teachers := list(teachers):
        lines.append(f"teachers to train first: {', '.join(teachers)}")
    if cost.judged or cost.unjudged:
        lines.append(_cost(cost, device))
    for (task, reason), n in Counter((item.task, item.reason) for item in planned if item.reason).items():
        lines.append(f"cannot run here: {task}, {n:,} runs: {reason}")
    return Group(*lines, *([_plan_table(planned)] if full else []))


def _cost(cost: Estimate, device: str) -> str:
    hours = f"{cost.seconds / 3600:,.1f} hours on {device}, one run at a time, judged by runs that were done on it"
    judged = f"about {hours}" if cost.judged else f"no run like these was done on {device} yet, so nothing to judge by"
    rest = f"; {cost.unjudged:,} runs have none to be judged by" if cost.judged and cost.unjudged else ""
    return f"time: {judged}{rest}\ndisk: about {cost.bytes / 1e6:,.0f} MB"


def _plan_table(planned: list[Planned]) -> Table:
    """One row for each method, track and choice of budgets, over all tasks where it is the same."""
    on_a_task: dict[tuple[str, ...], list[Planned]] = {}
    for item in planned:
        key = (item.task, item.label, item.budget.answers, item.budget.inputs, item.protocol)
        on_a_task.setdefault(key, []).append(item)
    rows: dict[tuple[str, ...], list[Planned]] = {}
    for (_, *track), items in on_a_task.items():
        budgets = " ".join(short(n) for n in sorted({n for item in items for n in item.budgets}))
        rows.setdefault((*track, budgets, str(len({item.seed for item in items}))), []).extend(items)
    table = Table("method", "answers", "inputs", "protocol", "budgets", "seeds", "tasks", "runs", box=None)
    for row, items in rows.items():
        tasks, states = list(dict.fromkeys(item.task for item in items)), Counter(item.state for item in items)
        names = ", ".join(tasks) if len(tasks) < 3 else str(len(tasks))
        table.add_row(*row, names, ", ".join(f"{n} {state}" for state, n in states.items()))
    return table


def summary(frame: pd.DataFrame) -> list[Table]:
    """One table for each task and track: method x budget, each with mean, spread, n, queries spent, distinct images."""
    tables = []
    for (task, answers, inputs), track in frame.groupby(["task", "answers", "inputs"], sort=False):
        title = f"{task}, {answers}, {inputs} inputs: test accuracy % ± spread over seeds"
        table = Table("method", "protocol", "budget", "accuracy", "n", "agreement", "spent", "distinct", title=title)
        table.title_justify = "left"
        previous = None
        for row in track.to_dict("records"):
            new = row["method"] != previous
            table.add_row(
                row["method"] if new else "",
                row["protocol"] if new else "",
                short(row["budget"]),
                _percent(row["accuracy"], row["spread"]),
                str(row["n"]),
                _percent(row["agreement"], row["agreement_spread"]),
                f"{row['queries']:,.0f}",
                f"{row['distinct']:,.0f}",
            )
            previous = row["method"]
        tables.append(table)
    return tables


def study(study: "Study", tried: int, trials: int) -> str:
    """What a study is about to do."""
    cost = (
        f"{study.held_out:,} held-out queries"
        if study.held_out
        else f"validation split of {study.tried_on}: needs data"
    )
    return f"study {study.name}: {tried} of {trials} trials; {len(study.space())} settings; {study.objective} ({cost})"


def tuned(outcomes: "Iterable[Outcome]") -> Group:
    """One row a study: its figure and the test accuracy before and after, and in a column what the search cost."""
    table = Table("method", "task", "answers", "budget", "trials", "queries of tuning", "objective", "start", "best")
    for name in ("test accuracy % at the start", "tuned", "n"):
        table.add_column(name)
    lines = []
    for outcome in outcomes:
        study, means = outcome.study, outcome.means
        setting = (study.method, study.task, study.budget.answers, short(study.budget.queries), str(outcome.trials))
        needs_data = "" if study.held_out else " (needs data)"
        judged = (study.objective + needs_data, _share(outcome.started), _share(outcome.found))
        table.add_row(*setting, f"{outcome.queries:,}", *judged, *_before_and_after(means))
        if outcome.settings:
            best = ", ".join(f"{key} {value}" for key, value in outcome.settings.items())
            lines.append(f"{study.name}, best settings: {best}")
        if outcome.reason:
            lines.append(f"{study.name}: {outcome.reason}")
    return Group(table, *lines)


def _before_and_after(means: pd.DataFrame | None) -> tuple[str, str, str]:
    """Both means with their intervals, and n."""
    if means is None or not len(means):
        return "-", "-", "0"
    rows = {row["settings"]: row for row in means.to_dict("records")}
    shown = {label: _percent(row["accuracy"]) + _interval(row) for label, row in rows.items()}
    # Where the start was not beaten, there is one row for both.
    return shown.get("start", "-"), shown.get("tuned", "the same"), str(min(row["n"] for row in rows.values()))


def _interval(row: dict[Any, Any]) -> str:
    return f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" if row["n"] > 2 else ""


def _share(value: float | None) -> str:
    return "-" if value is None else f"{_percent(value)} %"


def listing(columns: list[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table


class Board:
    """The progress of jobs: a live table on a terminal, plain lines with a heartbeat elsewhere."""

    def __init__(self, console: Console, what: str, jobs: Sequence[Job]) -> None:
        self._console, self._what, self._total = console, what, len(jobs)
        self._ended = 0
        self._started: dict[str, float] = {}
        self._latest: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=console)
            self._overall = self._progress.add_task(what, total=len(jobs))

    def __enter__(self) -> "Board":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()

    def show(self, event: Event | None) -> None:
        """Take in an event, or None when only time has passed."""
        if event is not None:
            self._take(event)
        if not self._progress and self._started and time.monotonic() - self._last_line > HEARTBEAT:
            running = ", ".join(f"{key} at {self._latest.get(key, 0):,.3g}" for key in self._started)
            self._say(f"{self._ended}/{self._total} {self._what}; running: {running}")

    def _take(self, event: Event) -> None:
        key = event.job.key
        if event.kind == "started":
            self._started[key] = time.monotonic()
            if self._progress:
                self._bars[key] = self._progress.add_task(f"  {key}", total=event.job.size)
        elif event.kind == "progress":
            self._latest[key] = event.detail[0]
            if self._progress:
                self._progress.update(self._bars[key], completed=event.detail[0])
        else:
            self._end(event)

    def _end(self, event: Event) -> None:
        key = event.job.key
        self._ended += 1
        seconds = time.monotonic() - self._started.pop(key)
        if self._progress:
            self._progress.remove_task(self._bars.pop(key))
            self._progress.advance(self._overall)
        if event.kind == "failed":
            self._say(f"FAILED {key}: {event.detail}")
        elif not self._progress:
            self._say(f"{self._ended}/{self._total} {key} ({seconds:.1f} s)")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()


def paths(files: Iterable[Path]) -> str:
    """Paths relative to the working directory where they lie below it."""
    here = Path.cwd()
    return "\n".join(f"  {file.relative_to(here) if file.is_relative_to(here) else file}" for file in files)


def _percent(mean: float, spread: float = float("nan")) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if spread == spread else "")
