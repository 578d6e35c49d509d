"""The page of a run: index.html and, beside it, `assets/` with all it needs to open from disk without a network."""

import json
import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from plotly.offline import get_plotlyjs

from results.report.tables import Table
from results.store import write_bytes


@dataclass(frozen=True)
class Track:
    """One task, answers and inputs. chart: a plotly figure as JSON. samples: label -> file, from the page."""

    title: str
    chart: str
    tables: list[Table]
    samples: dict[str, str]


def write(run: Path, plan: dict[str, Any], cells: pd.DataFrame, tracks: list[Track], tables: dict[str, Table]) -> Path:
    """Write index.html and its assets into the run folder; returns the path of the page.

    tables: heading -> table, shown below the tracks.
    """
    environment = Environment(
        loader=PackageLoader("results.report", "."),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    states = cells["state"].value_counts().to_dict()
    definition = yaml.safe_dump(plan["definition"], sort_keys=False, width=100, allow_unicode=True)
    text = environment.get_template("page.html.j2").render(
        plan=plan, states=states, runs=len(cells), tracks=tracks, tables=tables, definition=definition
    )
    _write_scripts(run / "assets")
    write_bytes(run / "index.html", text.encode())
    return run / "index.html"


def samples(run: Path, cells: pd.DataFrame) -> dict[str, str]:
    """Copy a strip of the images that each method sent last into the assets; returns label -> file, from the page.

    cells: rows of curves.cells of one task and track. The strip is that of the first seed at the largest budget
    that has one; a method without any is left out.
    """
    found = {}
    order = {"budget": False, "seed": True}
    for label, group in cells.sort_values([*order], ascending=[*order.values()]).groupby("method", sort=False):
        strips = [run.parent / "cells" / str(cell) / "samples.png" for cell in group["cell"]]
        if strip := next((path for path in strips if path.exists()), None):
            first = group.iloc[0]
            name = plain(f"{first['task']} {first['answers']} {first['inputs']} {label}")
            (run / "assets" / "samples").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(strip, run / "assets" / "samples" / f"{name}.png")
            found[str(label)] = f"assets/samples/{name}.png"
    return found


def plain(text: str) -> str:
    """A text as a name for files and anchors: a-z, 0-9, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _write_scripts(assets: Path) -> None:
    """The libraries of charts and tables. A page on disk may not import a module from a file, so DataTables, which is
    one, is carried as a text and imported from memory."""
    bundle = files("itables") / "html"
    module = json.dumps((bundle / "dt_bundle.js").read_text("utf-8"))
    script = f'window.tables = import(URL.createObjectURL(new Blob([{module}], {{type: "text/javascript"}})));\n'
    contents = {
        "plotly.min.js": get_plotlyjs(),
        "tables.js": script,
        "tables.css": (bundle / "dt_bundle.css").read_text("utf-8"),
    }
    for name, content in contents.items():
        if not (assets / name).exists() or (assets / name).stat().st_size != len(content.encode()):
            write_bytes(assets / name, content.encode())
