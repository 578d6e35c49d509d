"""`bench status`."""

from pathlib import Path

from bench.cli.options import Out, Plugins, RunName


def status(run: RunName, out: Out = Path("runs"), plugin: Plugins = None) -> None:
    """Count a run's cells by state, and give the reasons of those that have no result."""
    from bench.cli import show
    from bench.cli.asked import load_outside
    from bench.cli.runs import find_run, versions_now
    from bench.cli.work import console_of
    from results import curves

    load_outside(plugin, None)
    cells, console = curves.cells(find_run(run, out), versions_now()), console_of()
    counts = cells["state"].value_counts()
    console.print(f"{run}: {len(cells)} runs ({', '.join(f'{n} {state}' for state, n in counts.items())})")
    reasons = cells.groupby(["state", "reason"]).size().reset_index(name="runs")
    if len(reasons):
        console.print(show.listing(["state", "reason", "runs"], reasons.itertuples(index=False)))
