"""The table of items, as it is printed and as it is kept."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from speed.item import Item, Setting

from bench.provenance import machine
from results.store import write_bytes

COLUMNS = ("item", "plain", "ours", "unit", "ratio", "target", "met", "note")


def cells(item: Item) -> list[str]:
    """A row, in the order of COLUMNS."""
    met = {True: "met", False: "missed", None: ""}[item.met]
    figures = ["" if figure is None else f"{figure:.3g}" for figure in (item.plain, item.ours, item.ratio)]
    return [item.name, figures[0], figures[1], item.unit, figures[2], item.wanted, met, item.note]


def markdown(items: Sequence[Item]) -> str:
    """The table, with columns as wide as what is in them."""
    rows = [list(COLUMNS), *map(cells, items)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    rows.insert(1, ["-" * width for width in widths])
    lines = (" | ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


def about(setting: Setting, command: str) -> str:
    """What computed the table, and how."""
    on = machine(setting.device)
    sizes = " at small sizes, at which no figure means anything" if setting.small else ""
    words = (
        f"Medians over {setting.runs} of each, plain and ours in turn{sizes}. {on.device}, {on.precision}, threads: "
        f"{on.threads}, load at the end: {os.getloadavg()[0]:.1f}; commit {on.commit}, torch {on.torch}."
    )
    return f"    {command}\n\n{words}\n"


def write(folder: Path, items: Sequence[Item], words: str) -> None:
    """Keep the table as speed.csv, in full precision, and as README.md."""
    write_bytes(folder / "README.md", f"{words}\n{markdown(items)}".encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, [*asdict(items[0]), "ratio", "met"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(item), "ratio": item.ratio, "met": item.met} for item in items)
    write_bytes(folder / "speed.csv", text.getvalue().encode())
