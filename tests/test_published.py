"""Published numbers: what a file must say, and which of them a task may be held against."""

from pathlib import Path

import pandas as pd
import pytest

from results import published

HEADER = ",".join(published.COLUMNS)
IDEAL = "arXiv:1,IDEAL 2023,ideal,mnist,lenet5,lenet5,labels,accuracy,96.3,,,3,25000,images,1262500,test-best,Table 2"
TASK = {"dataset": "mnist", "teacher": "lenet5", "student": "lenet5", "gpu": False}


def load(folder: Path, *rows: str, header: str = HEADER) -> pd.DataFrame:
    (folder / "paper.csv").write_text("\n".join([header, *rows]) + "\n")
    return published.load(folder)


def track(answers: str = "labels", inputs: str = "float") -> pd.DataFrame:
    return pd.DataFrame({"method": ["ours", "again"], "kind": ["ideal", "ideal"], "answers": answers, "inputs": inputs})


def test_a_row_has_its_numbers_as_numbers_and_none_where_the_source_has_none(tmp_path: Path) -> None:
    (row,) = load(tmp_path, IDEAL).to_dict("records")
    assert (row["value"], row["claimed"], row["recount"]) == (96.3, 25_000, 1_262_500)
    assert pd.isna(row["spread"])
    assert row["spread_kind"] == ""


def test_a_folder_without_files_has_no_rows(tmp_path: Path) -> None:
    rows = published.load(tmp_path)
    assert rows.empty
    assert published.matching(rows, TASK, track()).empty


def test_the_shipped_files_can_be_read() -> None:
    assert list(published.load().columns) == published.COLUMNS


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (IDEAL.replace("96.3", "96,3"), "paper.csv: "),
        (IDEAL.replace("96.3", "ninety"), "paper.csv: value: .*ninety.*; wanted numbers, or nothing"),
        (IDEAL.replace("labels", "top-1"), "paper.csv: answers 'top-1'; wanted labels, probs"),
        (IDEAL.replace("images", "rounds"), "paper.csv: unit 'rounds'; wanted calls, images"),
        (IDEAL.replace("images", ""), "paper.csv: a budget is claimed without its unit; wanted images or calls"),
        (IDEAL.replace("test-best", "best"), "paper.csv: selection 'best'; wanted final, test-best, unknown"),
    ],
)
def test_a_wrong_row_is_told_with_its_file(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load(tmp_path, row)


def test_wrong_columns_are_told_with_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"paper.csv: columns are source, .*; wanted source, paper, method"):
        load(tmp_path, header=HEADER.replace(",table", ",where"))


def test_a_row_matches_the_task_of_its_data_set_networks_and_answers_alone(tmp_path: Path) -> None:
    rows = load(tmp_path, IDEAL)
    assert published.matching(rows, TASK, track())["label"].tolist() == ["ours"]
    for part in ("dataset", "teacher", "student"):
        assert published.matching(rows, {**TASK, part: "other"}, track()).empty
    assert published.matching(rows, TASK, track(answers="probs")).empty
    assert published.matching(rows, TASK, track(inputs="uint8")).empty
    assert published.matching(rows, None, track()).empty


def test_a_row_of_another_measure_or_without_a_budget_has_no_place_on_a_chart(tmp_path: Path) -> None:
    rows = load(tmp_path, IDEAL.replace("accuracy", "agreement"), IDEAL.replace("25000,images", ","))
    assert published.matching(rows, TASK, track()).empty


def test_a_method_that_is_not_in_the_run_has_no_label(tmp_path: Path) -> None:
    rows = published.matching(load(tmp_path, IDEAL.replace(",ideal,", ",other,")), TASK, track())
    assert rows["label"].isna().tolist() == [True]
