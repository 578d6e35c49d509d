"""`bench verify`."""

from pathlib import Path

import typer

from bench.cli.options import Out, RunName


def verify(run: RunName, out: Out = Path("runs")) -> None:
    """Count all queries of a run again from its journals, and compare them with what the meters said."""
    from bench.cells.audit import audit
    from bench.cli import show
    from bench.cli.runs import find_run
    from bench.cli.work import console_of
    from results.records import RunRecord, read

    folder, console = find_run(run, out), console_of()
    entries = [entry for entry in read(folder / "run.json", RunRecord).entries if entry.cell]
    names = dict.fromkeys(str(name) for entry in entries for name in (entry.cell, *entry.narrower.values()))
    found = [audit(folder.parent / "cells" / name) for name in names]
    audits = [item for item in found if item]
    if not audits:
        console.print(f"{run}: no run of it has a journal; those are kept for black boxes behind a URL")
        return
    console.print(show.audits(audits))
    raise typer.Exit(1 if any(item.fault for item in audits) else 0)
