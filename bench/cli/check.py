"""`bench check`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Words


def check(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A Python file, or the name of a method.")],
    settings: Annotated[Words, typer.Option("--set", help="KEY=VALUE, to make it small.")] = None,
) -> None:
    """Hold a method to the contract, on a small teacher, and say what is wrong with it."""
    from bench.cli import show
    from bench.cli.work import console_of
    from bench.contract import check, plugins
    from bench.errors import unknown
    from methods import METHODS

    file, console = Path(method), console_of()
    show.remarks(console, plugins.load([file] if file.suffix == ".py" else ()))
    name = file.stem if file.suffix == ".py" else method
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    complaints = check.check(METHODS[name], check.parse_settings(METHODS[name], settings or []))
    for complaint in complaints or ["keeps to the contract"]:
        console.print(f"{name}: {complaint}" if complaints else f"{name} {complaint}", markup=False)
    raise typer.Exit(1 if complaints else 0)
