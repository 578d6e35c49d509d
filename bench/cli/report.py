"""`bench report`."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import Out, Plugins, RunName

if TYPE_CHECKING:
    from rich.console import Console


def report(run: RunName, out: Out = Path("runs"), plugin: Plugins = None) -> None:
    """Write a run's page, tables and figures anew from what is done."""
    from bench.cli.asked import load_outside
    from bench.cli.runs import find_run
    from bench.cli.work import console_of

    load_outside(plugin, None)
    show_report(console_of(), find_run(run, out))


def show_report(console: "Console", folder: Path) -> None:
    """Write the report and print the path of its page, its tables, its paths, and what is lacking."""
    from bench.cli import show
    from bench.cli.runs import versions_now
    from results.report import report

    written = report.write(folder, versions_now())
    console.print(f"report: {show.paths([written.page]).strip()}", markup=False, soft_wrap=True)
    for table in show.summary(written.summary):
        console.print(table)
    lacking = written.cells[written.cells["state"] != "done"]
    for state, reason, n in lacking.fillna({"reason": "-"}).groupby(["state", "reason"]).size().reset_index().values:
        console.print(f"not in these tables: {n} runs {state}: {reason}", markup=False)
    folders = dict.fromkeys(file.parent for file in (*written.tables, *written.figures))
    console.print(f"tables and figures:\n{show.paths(folders)}", markup=False)
