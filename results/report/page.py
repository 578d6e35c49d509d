"""The page of a run: index.html and, beside it, `assets/` with all it needs to open from disk without a network."""

import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from plotly.offline import get_plotlyjs

from results.records import RunRecord
from results.report.style import plain
from results.report.tables import Table
from results.store import digest

ONE_OF = ["device", "threads", "precision", "commit", "torch", "versions"]  # what should not differ within a report
PLURAL = {"device": "devices", "threads": "numbers of threads", "precision": "precisions", "commit": "commits"}
PLURAL |= {"torch": "versions of torch", "versions": "sets of result versions"}


@dataclass(frozen=True)
class Track:
    """One task, answers and inputs. chart: a plotly figure as JSON. samples: label -> file, from the page."""

    title: str
    chart: str
    tables: list[Table]
    samples: dict[str, str]


def write(folder: Path, record: RunRecord, cells: pd.DataFrame, tracks: list[Track], tables: dict[str, Table]) -> Path:
    """Write index.html and its assets into the folder; returns the path of the page.

    cells: curves.cells. tables: heading -> table, shown below the tracks.
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
    definition = yaml.safe_dump(record.definition, sort_keys=False, width=100, allow_unicode=True)
    text = environment.get_template("page.html.j2").render(
        record=record,
        states=states,
        runs=len(cells),
        tracks=tracks,
        tables=tables,
        definition=definition,
        sources=sources(cells),
    )
    _write_scripts(folder / "assets")
    (folder / "index.html").write_text(text, "utf-8")
    return folder / "index.html"


def sources(cells: pd.DataFrame) -> dict[str, str]:
    """What computed the runs that are done: device -> the one there is, or "2 devices: ..." with how many runs each."""
    done = cells[cells["state"] == "done"]
    told = {}
    for name in ONE_OF if len(done) else []:
        counts = done[name].astype(object).where(done[name].notna(), "unknown").value_counts()
        each = "; ".join(f"{value} ({runs:,} runs)" for value, runs in counts.items())
        told[name] = str(counts.index[0]) if len(counts) == 1 else f"{len(counts)} {PLURAL.get(name, name)}: {each}"
    return told


def samples(folder: Path, store: Path, cells: pd.DataFrame) -> dict[str, str]:
    """Copy a strip of the images that each method sent last into the assets; returns label -> file, from the page.

    folder: of the page. store: of the cells. cells: rows of curves.cells of one task and track. The strip is that of
    the first seed at the largest budget that has one; a method without any is left out.
    """
    found = {}
    order = {"budget": False, "teacher_seed": True, "seed": True}
    for label, group in cells.sort_values([*order], ascending=[*order.values()]).groupby("method", sort=False):
        strips = [store / str(cell) / "samples.png" for cell in group["cell"]]
        if strip := next((path for path in strips if path.exists()), None):
            first = group.iloc[0]
            text = f"{first['task']} {first['answers']} {first['inputs']} {label}"
            found[str(label)] = f"assets/samples/{plain(text)}-{digest(text)[:8]}.png"  # no two labels share a file
            (folder / found[str(label)]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(strip, folder / found[str(label)])
    return found


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
    assets.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (assets / name).write_text(content, "utf-8")
