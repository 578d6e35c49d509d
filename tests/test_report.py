"""The report of a run: one self-contained folder, whatever is done, and the same bytes from the same cells."""

import json
import re
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from reporting import ENTRY, KINDS, MACHINE, VERSIONS, finish, finish_with, plan, planned, point, write_run

from results import curves, published
from results.records import RecordError
from results.report import report, tables
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
    assert {"summary.csv", "points.parquet", "scores.csv", "improvements.csv"} <= names
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
    kept = {"index.html", "summary.csv", "scores.csv", "improvements.csv", "digits-lenet.labels.float.tex"}
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
    wanted += ["2026-01-02 03:04 UTC", "method 1, meter 1", "36 of 36 runs</dd>"]
    assert [text for text in [*wanted, "description: cells that were never run"] if text not in page] == []


def test_what_computed_the_runs_is_told_of_the_runs_and_not_of_the_last_command(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "<dt>device</dt><dd>CPU, 2 cores</dd>" in page_of(run)
    entries = [replace(ENTRY, cell=f"s{seed}", seed=seed) for seed in range(3)]
    for entry, device, commit in zip(entries, ("H100", "H100", "CPU"), ("abc", "def", None), strict=True):
        machine = replace(MACHINE, device=device, commit=commit)
        finish_with(tmp_path, entry, [point(400, 0.5)], machine=machine)
    page = page_of(plan(tmp_path, entries))
    assert "<dt>device</dt><dd>2 devices: H100 (2 runs); CPU (1 runs)</dd>" in page
    assert "3 commits: abc (1 runs); def (1 runs); unknown (1 runs)" in page
    assert "<dt>precision</dt><dd>float32</dd>" in page


def test_results_of_other_code_are_rows_without_a_result_and_in_no_table(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    written = report.write(run, {"dfme": {**VERSIONS, "method": 2}})
    page = written.page.read_text()
    assert "27 of 36 runs are done:\nthis report is partial. 9 stale" in page
    assert "made by other code: method 1, now 2; run again with --rerun" in page
    assert "dfme" not in set(written.summary["method"])


def test_a_grid_that_must_rank_nothing_says_why_on_the_page_and_in_latex(tmp_path: Path) -> None:
    run = write_run(tmp_path, no_ranking="settings were tried on test images")
    page = page_of(run)
    assert page.count("No ranking: settings were tried on test images") == 4  # above, and below three tables
    assert 'class="best"' not in page
    assert "No ranking" in (run / "tables/digits-lenet.labels.float.tex").read_text()


def test_what_an_earlier_report_left_does_not_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path, answers=["labels", "probs"])
    strip = tmp_path / "cells/digits-lenet.dfme.1000-probs.s0/samples.png"
    strip.write_bytes(b"strip")
    report.write(run)
    before = files_of(run)
    plan(tmp_path, planned(KINDS, ["digits-lenet"], ["labels"], 3, (250, 500, 1000)))
    written = report.write(run)
    after = files_of(run)
    assert {"tables/digits-lenet.probs.float.tex", "figures/digits-lenet.probs.float.pdf"} <= before - after
    assert [name for name in after if "probs" in name or "samples" in name] == []
    assert {str(path.relative_to(run)) for path in [written.page, *written.tables, *written.figures]} <= after


@pytest.mark.parametrize("at", [2, 5, 8])
def test_a_report_that_is_interrupted_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """While the old parts are taken away, and at the first and the last of the new ones put in their place."""
    run = write_run(tmp_path, kinds={"ideal-once": "ideal"}, seeds=1, budgets=[500])
    report.write(run)
    old = {name: (run / name).read_bytes() for name in files_of(run)}
    (entry,) = planned({"ideal-once": "ideal"}, ["digits-lenet"], ["labels"], 1, [500])
    finish(tmp_path, entry, 0.987)
    rename, calls = Path.rename, iter(range(1, 100))

    def interrupted(self: Path, target: Path) -> Path:
        if next(calls) == at:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write(run)
    assert {name: (run / name).read_bytes() for name in files_of(run)} == old
    report.write(run)
    assert "0.987" in (run / "tables/points.csv").read_text()


def test_a_report_that_cannot_be_made_leaves_the_old_one_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    report.write(run)
    old = files_of(run)
    (run / "run.json").write_text("[{")
    with pytest.raises(RecordError, match=r"run\.json is not whole"):
        report.write(run)
    assert files_of(run) == old


def test_a_run_of_several_teachers_tells_them_apart_and_how_far_they_lie_apart(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, teachers=3, seeds=2, budgets=[250, 500]))
    for told in (
        "over n = 3 teachers, of the means over the 2 seeds of each",
        "standard deviation of the accuracy between teachers",
        "digits-lenet, seed 2",
        "2123456789abcdef",
        "(image - 0.5) / 0.25",
    ):
        assert told in page
    summary = pd.read_csv(tmp_path / "made-up/tables/summary.csv")
    assert (set(summary["n"]), set(summary["runs"])) == ({3}, {6})


def test_a_student_that_did_not_learn_is_marked_in_table_page_and_latex(tmp_path: Path) -> None:
    run = write_run(tmp_path, seeds=1, budgets=[500])
    curve = (tmp_path / DONE).with_name("curve.json").parent.with_name("digits-lenet.dfme.500-labels.s0") / "curve.json"
    (given,) = read_json(curve)
    write_json(curve, [{**given, "steps": 12, "fitted": 0.4, "commonest": 0.39}])
    page = page_of(run)
    assert "‡: at least one student did not learn the labels it was given" in page
    assert "\\u2021 did not learn its labels" in page or "‡ did not learn its labels" in page
    assert "12 steps; right about 40 % of what was asked, the commonest answer about 39 %" in page
    assert r"$^\ddagger$" in (run / "tables/digits-lenet.labels.float.tex").read_text()


def test_a_cell_whose_curve_is_broken_counts_as_failed_and_the_others_are_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (tmp_path / DONE).with_name("curve.json").write_text("[{")
    report.write(run)
    (broken,) = (cell for cell in curves.cells(run).to_dict("records") if cell["state"] != "done")
    assert broken["state"] == "failed"
    assert str(broken["reason"]).endswith("curve.json is not whole: wanted JSON")


def files_of(run: Path) -> set[str]:
    """The files of the report; the plan, the lock and its claim are none of it."""
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {file for file in files if file not in {"run.json", "lock"} and not file.startswith("claim.")}


@pytest.mark.parametrize(("kinds", "offered"), [({"A": "ideal", "B": "dfme"}, True), ({"B": "dfme"}, False)])
def test_the_optimistic_measure_is_offered_where_a_method_has_it(
    tmp_path: Path, kinds: dict[str, str], offered: bool
) -> None:
    page = page_of(write_run(tmp_path, kinds=kinds, seeds=1))
    (chart,) = re.findall(r'<script type="application/json">(.*)</script>', page)
    (measures, _) = json.loads(chart)["layout"]["updatemenus"]
    assert [button["label"] for button in measures["buttons"]] == ["accuracy", "agreement"] + ["optimistic"] * offered
    assert "of a run that is measured once there is none" in page


def test_two_labels_that_differ_in_signs_alone_have_their_own_images(tmp_path: Path) -> None:
    run = write_run(tmp_path, kinds={"a_b": "ideal", "a-b": "ideal", "A b": "dfme"})
    for label in ("a_b", "a-b", "A b"):
        (tmp_path / f"cells/digits-lenet.{label}.1000-labels.s0/samples.png").write_bytes(label.encode())
    shown = dict(re.findall(r'<figcaption>(.+?)</figcaption><img src="(\S+)"', page_of(run)))
    assert {label: (run / file).read_bytes().decode() for label, file in shown.items()} == {
        label: label for label in ("a_b", "a-b", "A b")
    }


def test_a_run_of_which_a_part_was_done_lists_what_is_lacking_in_few_rows(tmp_path: Path) -> None:
    kinds = {f"method {i}": "ideal" for i in range(12)}
    entries = planned(kinds, [f"mnist-net{i}" for i in range(10)], ["labels", "probs"], 5, range(1000, 11_000, 1000))
    assert len(entries) == 12_000
    finish(tmp_path, entries[0], 0.5)
    written = report.write(plan(tmp_path, entries))
    table = tables.lacking(written.cells)
    assert table is not None
    assert len(table.rows) == 12 * 10  # methods and budgets
    assert "1 of 12,000 runs are done" in written.page.read_text()
    assert written.page.stat().st_size < 200_000


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


def test_a_run_that_an_earlier_version_planned_is_refused_in_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_json(run / "run.json", {key: value for key, value in read_json(run / "run.json").items() if key != "schema"})
    with pytest.raises(RecordError, match="give the command that made it again"):
        report.write(run)


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
