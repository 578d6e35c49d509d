"""Numbers from papers, each with its source: `results/published/*.csv`, one row a number."""

from pathlib import Path
from typing import Any

import pandas as pd

FOLDER = Path(__file__).parent / "published"
COLUMNS = ["source", "paper", "method", "dataset", "teacher", "student", "answers", "metric", "value", "spread"]
COLUMNS += ["spread_kind", "n", "claimed", "unit", "recount", "selection", "table"]
NUMBERS = ["value", "spread", "n", "claimed", "recount"]
ONE_OF = {
    "answers": {"labels", "probs"},
    "unit": {"images", "calls", ""},
    "selection": {"test-best", "final", "unknown"},
}


def load(folder: Path = FOLDER) -> pd.DataFrame:
    """All published rows; raises ValueError naming the file, and what is wrong in it.

    value, spread: percent. claimed: the budget as the source counts it, in `unit`. recount: calls of the
    teacher that the released code makes for it; NaN where it cannot be computed.
    """
    frames = [_load(file) for file in sorted(folder.glob("*.csv"))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def matching(rows: pd.DataFrame, task: dict[str, Any] | None, track: pd.DataFrame) -> pd.DataFrame:
    """The rows measured on the task's very data set, teacher and student, in the answers of the track.

    task: dataset, teacher and student. track: points of one task, answers and inputs; papers send float images.
    A column `label` is added: the first label in the track of the row's method, NaN for none.
    """
    named = track.drop_duplicates("kind").set_index("kind")["method"]
    rows = rows[(rows["metric"] == "accuracy") & rows["claimed"].notna()].assign(label=rows["method"].map(named))
    if task is None or set(track["inputs"]) != {"float"}:
        return rows.iloc[:0]
    same = rows["answers"].isin(track["answers"])
    for part in ("dataset", "teacher", "student"):
        same &= rows[part] == task[part]
    return rows[same]


def _load(file: Path) -> pd.DataFrame:
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(rows.columns) != COLUMNS:
        raise ValueError(f"{file.name}: columns are {', '.join(rows.columns)}; wanted {', '.join(COLUMNS)}")
    for column, known in ONE_OF.items():
        for given in set(rows[column]) - known:
            raise ValueError(f"{file.name}: {column} {given!r}; wanted {', '.join(sorted(known - {''}))}")
    if ((rows["claimed"] != "") & (rows["unit"] == "")).any():
        raise ValueError(f"{file.name}: a budget is claimed without its unit; wanted images or calls")
    for column in NUMBERS:
        try:
            rows[column] = pd.to_numeric(rows[column])
        except ValueError as error:
            raise ValueError(f"{file.name}: {column}: {error}; wanted numbers, or nothing") from error
    return rows
