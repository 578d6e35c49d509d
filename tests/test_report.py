"""The report of a run: one self-contained folder, whatever is done, and the same bytes from the same cells."""

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from reporting import KINDS, plan, write_run

from results import published
from results.report import report
from results.store import read_json, write_json

DONE = "cells/digits-lenet.dfme.500-labels.s1/done.json"


def page_of(run: Path) -> str:
    return report.write(run).page.read_text()


def test_a_report_is_a_page_with_tables_figures_and_its_own_scripts(tmp_path: Path) -> None:
    run = write_run(tmp_path, tasks=["digits-lenet", "digits-mlp"], answers=["labels", "probs"])
    written = report.write(run)
    assert written.page == run / "index.html"
    assert [file for file in [written.page, *written.tables, *written.figures] if not file.stat().st_size] == []
    names = {file.name for file in written.tables}
    assert {"summary.csv", "points.parquet", "shares.csv", "improvements.csv"} <= names
    assert {"digits-mlp.probs.float.tex", "over-tasks-probs-float-inputs.tex"} <= names
    assert {file.suffix for file in written.figures} == {".png", ".pdf"}
    assert {file.name for file in (run / "assets").iterdir()} == {"plotly.min.js", "tables.js", "tables.css"}


def test_the_page_asks_for_nothing_that_does_not_lie_beside_it(tmp_path: Path) -> None:
    asked: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
            asked.extend(value or "" for name, value in attributes if name in {"src", "href"})

    run = write_run(tmp_path)
    (tmp_path / "cells/digits-lenet.dfme.1000-labels.s0/samples.png").write_bytes(b"strip")
    Reader().feed(page_of(run))
    files = [name for name in asked if not name.startswith(("#", "data:"))]
    assert len(files) == 4
    assert [name for name in files if not (run / name).is_file()] == []


def test_the_same_cells_make_the_same_report(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    kept = {"index.html", "summary.csv", "shares.csv", "improvements.csv", "digits-lenet.labels.float.tex"}
    first, second = (
        {file: file.read_bytes() for file in [written.page, *written.tables, *written.figures] if file.name in kept}
        for written in (report.write(run), report.write(run))
    )
    assert len(first) == len(kept)
    assert first == second


def test_a_partial_run_says_how_much_is_done_and_what_is_lacking(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (tmp_path / DONE).unlink()
    write_json((tmp_path / DONE).with_name("failed.json"), {"reason": "out of <memory>", "traceback": ""})
    page = page_of(run)
    assert "35 of 36 runs are done:\nthis report is partial. 1 failed" in page
    assert "out of &lt;memory&gt;" in page
    (tmp_path / DONE).with_name("failed.json").unlink()
    assert "1 to do" in page_of(run)


def test_a_whole_run_lacks_nothing(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path))
    assert "36 of 36 runs are done." in page
    assert "partial." not in page
    assert "Runs without a result" not in page


def test_a_run_of_which_nothing_is_done_is_a_page_that_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shutil.rmtree(tmp_path / "cells")
    written = report.write(run)
    assert "0 of 36 runs are done" in written.page.read_text()
    assert written.figures == []


def test_the_page_says_where_its_numbers_come_from(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path))
    wanted = ["bench run --grid made-up", "abcdef0", "torch 2.15.0", "CPU, 2 cores", "0123456789abcdef", "96.00 %"]
    assert [text for text in [*wanted, "description: cells that were never run"] if text not in page] == []


def test_no_name_can_break_out_of_the_page(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, kinds={"</script><b>": "ideal", "a & b": "dfme"}))
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page


def test_one_strip_of_images_for_each_method_is_that_of_its_first_seed_at_its_largest_budget(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for budget, seed in ((500, 0), (1000, 0), (1000, 1)):
        cell = tmp_path / f"cells/digits-lenet.dfme.{budget}-labels.s{seed}"
        (cell / "samples.png").write_bytes(f"{budget} {seed}".encode())
    page = page_of(run)
    (name,) = re.findall(r'<img src="(\S+)"', page)
    assert (run / name).read_bytes() == b"1000 0"


def test_a_part_shown_apart_has_its_table_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "shows apart" not in page_of(run)
    curve = tmp_path / "cells/digits-lenet.dfme.500-labels.s0/curve.json"
    (point,) = read_json(curve)
    write_json(curve, [point | {"accuracy_ensemble": 0.777, "agreement_ensemble": 0.7}])
    page = page_of(run)
    assert "shows apart" in page
    assert "77.7" in page
    assert "accuracy_ensemble" in (run / "tables/points.csv").read_text()


def test_published_numbers_of_the_same_task_are_on_its_chart_and_all_of_the_data_set_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = dict.fromkeys(published.COLUMNS, "") | {
        "paper": "A paper 2023", "method": "ideal", "dataset": "digits", "teacher": "lenet", "student": "lenet",
        "answers": "labels", "metric": "accuracy", "value": 90.5, "spread": None, "n": 3, "claimed": 500,
        "unit": "images", "recount": 25_000, "selection": "test-best", "table": "Table 2",
    }  # fmt: skip
    rows = [
        same,
        same | {"paper": "Other networks", "teacher": "vgg"},
        same | {"paper": "Elsewhere", "dataset": "svhn"},
    ]
    monkeypatch.setattr(published, "load", lambda: pd.DataFrame(rows))
    page = page_of(write_run(tmp_path))
    (chart,) = re.findall(r'<script type="application/json">(.*)</script>', page)
    mark, _ = [trace for trace in json.loads(chart)["data"] if trace.get("legendgroup") == "published"]
    assert (mark["x"], mark["y"]) == ([500, 25_000], [0.905, 0.905])
    assert mark["marker"]["symbol"] == "circle-open"
    assert "A paper 2023, Table 2" in mark["text"][0]
    assert "claimed: 500 images" in mark["text"][0]
    assert "recount: 25,000 calls" in mark["text"][1]
    assert "Other networks" in page
    assert "Elsewhere" not in page


def test_a_run_that_an_earlier_version_planned_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    old = read_json(run / "run.json")
    write_json(run / "run.json", {key: value for key, value in old.items() if key != "tasks"})
    assert "36 of 36 runs are done." in page_of(run)


def test_a_run_without_entries_has_a_page(tmp_path: Path) -> None:
    assert "0 of 0 runs are done." in page_of(plan(tmp_path, []))


@pytest.mark.slow
def test_ten_thousand_cells_are_reported_within_a_minute(tmp_path: Path) -> None:
    kinds = {**KINDS, **{f"method {i}": "ideal" for i in range(6)}}
    tasks = [f"{data}-net{i}" for data in ("mnist", "cifar10") for i in range(10)]
    budgets = (250, 500, 1000, 2500, 5000)
    run = write_run(tmp_path, kinds=kinds, tasks=tasks, answers=["labels", "probs"], seeds=5, budgets=budgets)
    started = time.process_time()  # of this process alone: the machine may be busy
    written = report.write(run)
    assert time.process_time() - started < 60
    assert len(written.cells) == 10_000
    assert written.page.stat().st_size < 3e6
