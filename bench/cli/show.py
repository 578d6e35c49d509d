"""What the commands show: plans and tables, as things rich can print."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bench.cli.time_left import spoken
from bench.grids.estimate import Estimate
from bench.grids.plan import Planned
from results.records import BoxNote, Point
from results.report.style import UNLEARNT, short

if TYPE_CHECKING:
    import pandas as pd

    from bench.cells.audit import Audit
    from bench.tuning.outcome import Outcome
    from bench.tuning.study import Study


AUDITED = {
    "answered": "answered",
    "distinct": "distinct, within each run",
    "refused": "refused, not charged",
    "lost": "sent, whose answer never came",
    "unusable": "with an answer that was none",
    "in_doubt": "in doubt: a process died meanwhile",
    "charged": "charged",
    "attempts": "requests",
}


def remarks(console: Console, lines: Iterable[str]) -> None:
    """What a person should know before anything else is said."""
    for line in lines:
        warning(console, line)


def warning(console: Console, line: str) -> None:
    """Something that goes on in spite of it."""
    console.print(line, style="yellow", markup=False)


def plan(
    name: str,
    planned: Sequence[Planned],
    waiting: Sequence[Planned],
    teachers: Iterable[str],
    *,
    full: bool,
) -> Group:
    """How many runs in which state, queries, teachers to train, and what cannot run, with its reason.

    waiting: those of the planned runs that are to be done.
    """
    states = Counter(item.state for item in planned)
    lines = [
        f"grid {name}: {len(planned):,} runs ({', '.join(f'{n:,} {state}' for state, n in states.items())})",
        f"queries: {sum(item.budget.queries for item in planned):,} in all, "
        f"{sum(item.budget.queries for item in waiting):,} of them still to ask here",
    ]
    if teachers := list(teachers):
        lines.append(f"teachers to train first: {', '.join(teachers)}")
    for (task, reason), n in Counter((item.task, item.reason) for item in planned if not item.runnable).items():
        lines.append(f"cannot run here: {task}, {n:,} runs: {reason}")
    stale = Counter(item.reason for item in planned if item.state == "stale" and item not in waiting)
    lines += [f"stale, {n:,} runs: {reason}; --rerun runs them again" for reason, n in stale.items()]
    return Group(*map(Text, lines), *([_plan_table(planned)] if full else []))


def cost(cost: Estimate, device: str, slots: int, *, full: bool) -> Group:
    """What the runs ahead take: time, disk and, in full, a row for each entry with the share of each budget."""
    disk = f"disk: about {cost.bytes / 1e6:,.0f} MB"
    if not cost.judged:
        told = f"time: no run like these was done on {device} yet; bench plan --calibrate measures it"
        return Group(Text(told), disk)
    unended = sum(each.open for each in cost.costs.values())
    lines = [
        f"time{f' of {cost.judged:,} runs' if cost.unjudged else ''}: {'more than' if unended else 'about'} "
        f"{spoken(cost.seconds)} on {device}, one run at a time"
        + (f"; {spoken(cost.seconds / slots)} with {slots} at once" if slots > 1 else "")
        + "; teachers apart"
    ]
    if unended:
        lines.append(
            f"{unended:,} runs take longer than that: no rehearsal of them came to an end; --patience gives it time"
        )
    if cost.unjudged:
        lines.append(f"{cost.unjudged:,} more runs have nothing to be judged by; bench plan --calibrate measures them")
    return Group(*map(Text, lines), disk, *([_cost_table(cost)] if full else []))


def _cost_table(cost: Estimate) -> Table:
    """Hours of each entry, how they are shared by its budgets, and the memory of its largest run."""
    budgets = sorted({queries for each in cost.costs.values() for queries in each.at})
    table = Table("method", box=None, padding=(0, 1))
    for name in ("runs", "hours", "share", *map(short, budgets), "memory"):
        table.add_column(name, justify="right")
    for label, each in cost.costs.items():
        runs = f"{each.judged:,}" + (f" of {each.judged + each.unjudged:,}" if each.unjudged else "")
        shares = (_part(each.at[queries], each.seconds) if queries in each.at else "" for queries in budgets)
        hours = f"{'> ' if each.open else ''}{each.seconds / 3600:,.1f}" if each.judged else "?"
        memory = f"{each.memory / 1e9:,.1f} GB" if each.memory else "?"
        table.add_row(Text(label), runs, hours, _part(each.seconds, cost.seconds), *shares, memory)
    at = [sum(each.at.get(queries, 0.0) for each in cost.costs.values()) for queries in budgets]
    shares = (_part(seconds, cost.seconds) for seconds in at)
    table.add_row("all", f"{cost.judged:,}", f"{cost.seconds / 3600:,.1f}", "", *shares, "")
    return table


def _part(seconds: float, whole: float) -> str:
    """A share in percent."""
    return f"{100 * seconds / whole:.0f}%" if whole else "-"


def _plan_table(planned: Sequence[Planned]) -> Table:
    """One row for each method, track and choice of budgets, over all tasks where it is the same."""
    on_a_task: dict[tuple[str, ...], list[Planned]] = {}
    for item in planned:
        key = (item.task, item.label, item.budget.answers, item.budget.inputs, item.protocol)
        on_a_task.setdefault(key, []).append(item)
    rows: dict[tuple[str, ...], list[Planned]] = {}
    for (_, *track), items in on_a_task.items():
        budgets = " ".join(short(n) for n in sorted({n for item in items for n in item.budgets}))
        replicates = (str(len({item.teacher_seed for item in items})), str(len({item.seed for item in items})))
        rows.setdefault((*track, budgets, *replicates), []).extend(items)
    table = Table("method", "answers", "inputs", "protocol", "budgets", "teachers", "seeds", "tasks", "runs", box=None)
    for row, items in rows.items():
        tasks, states = list(dict.fromkeys(item.task for item in items)), Counter(item.state for item in items)
        names = ", ".join(tasks) if len(tasks) < 3 else str(len(tasks))
        table.add_row(*map(Text, row), Text(names), ", ".join(f"{n} {state}" for state, n in states.items()))
    return table


def summary(frame: "pd.DataFrame") -> list[Table]:
    """One table for each task and track: a row a method, a column a budget, mean and spread of the test accuracy."""
    tables = []
    for (task, answers, inputs), track in frame.groupby(["task", "answers", "inputs"], sort=False):
        unlabelled = bool(track["accuracy"].isna().all())
        measure = "agreement with the teacher" if unlabelled else "test accuracy"
        budgets, most = sorted(track["budget"].unique()), track["n"].max()
        over = f"{most} teachers, of means over seeds" if track["teachers"].max() > 1 else f"{most} seeds"
        title = f"{task}, {answers}, {inputs} inputs: {measure} in %, ± spread over {over}"
        title += "; no accuracy, for the images have no labels" if unlabelled else ""
        title += "; ‡ did not learn its labels" if track["unlearnt"].any() else ""
        table = Table("method", *map(short, budgets), title=Text(title))
        table.title_justify = "left"
        for method, rows in track.groupby("method", sort=False):
            at = {row["budget"]: _reached(row, unlabelled, most) for row in rows.to_dict("records")}
            table.add_row(Text(str(method)), *(at.get(budget, "") for budget in budgets))
        tables.append(table)
    return tables


def _reached(row: dict[Any, Any], unlabelled: bool, most: int) -> str:
    """Mean and spread, the mark of students that did not learn their labels, and n where others have more."""
    mean, spread = ("agreement", "agreement_spread") if unlabelled else ("accuracy", "spread")
    few = f" (n = {row['n']})" if row["n"] < most else ""
    return _percent(row[mean], row[spread]) + (UNLEARNT if row["unlearnt"] else "") + few


def curve(points: Sequence[Point]) -> Table:
    """The points of one cell."""
    counts = ([short(at["budget"]), f"{at['spent']:,}", f"{at['distinct']:,}", at["round"]] for at in points)
    shares = ([_share(at.get("accuracy")), _share(at.get("agreement"))] for at in points)
    rows = ([*count, *share] for count, share in zip(counts, shares, strict=True))
    return listing(["budget", "spent", "distinct", "round", "accuracy", "agreement"], rows)


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
        table.add_row(*map(Text, (*setting, f"{outcome.queries:,}", *judged, *_before_and_after(means))))
        if outcome.settings:
            best = ", ".join(f"{key} {value}" for key, value in outcome.settings.items())
            lines.append(f"{study.name}, best settings: {best}")
        if outcome.reason:
            lines.append(f"{study.name}: {outcome.reason}")
    return Group(table, *map(Text, lines))


def _before_and_after(means: "pd.DataFrame | None") -> tuple[str, str, str]:
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


def audits(audits: "Sequence[Audit]") -> Group:
    """What the journals of a run add up to, and each cell that does not agree with its own."""
    sums = {field: sum(getattr(item.counts, field) for item in audits) for field in AUDITED}
    counted = sum(item.spent or 0 for item in audits)
    table = listing(["images", "in all"], [[name, f"{sums[field]:,}"] for field, name in AUDITED.items()])
    repeated = sum(item.repeated for item in audits)
    lines = [f"{item.cell}: {item.fault}" for item in audits if item.fault]
    unfinished = sum(item.spent is None for item in audits)
    told = f"{len(audits):,} runs with a journal, {unfinished:,} of them unfinished; their meters counted {counted:,}"
    again = f"{repeated:,} images were asked again after restarts, for the method then asked something else"
    verdict = f"{len(lines)} differ" if lines else "all agree"
    return Group(told, table, *([again] if repeated else []), *map(Text, lines), verdict)


def price(boxes: "Iterable[tuple[str, BoxNote, float, int]]") -> list[str]:
    """What a plan may cost. boxes: task, its endpoint, the price of 1,000 queries, and queries still to ask there."""
    lines = []
    for task, box, per_thousand, queries in boxes:
        most = f"up to {queries * per_thousand / 1000:,.2f} at {per_thousand:,.2f} for 1,000"
        cost = most if per_thousand else "no price"
        so_far = f"; charged so far: {box.charged:,} images, {box.money or 'no price'}"
        lines.append(f"black box {task}: {queries:,} queries, its examination among them: {cost}{so_far}")
    return lines


def listing(columns: list[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # which may have brackets, that are no markup
    return table


def paths(files: Iterable[Path]) -> str:
    """Paths relative to the working directory where they lie below it."""
    here = Path.cwd()
    return "\n".join(f"  {file.relative_to(here) if file.is_relative_to(here) else file}" for file in files)


def _percent(mean: float, spread: float = float("nan")) -> str:
    if mean != mean:
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if spread == spread else "")
