"""How methods look: the same in every figure of a run, told apart without colour; how numbers and names are written."""

import subprocess
import sys
from dataclasses import replace

import pytest
from reporting import ENTRY

from results.records import CONTROL, RANKED, REFERENCE
from results.report.style import GREYS, Look, looks, plain, short


@pytest.mark.parametrize(
    ("kind", "data", "role"),
    [
        ("ideal", "none", RANKED),
        ("noise", "none", CONTROL),
        ("real", "train", REFERENCE),
        ("my_plugin", "other", REFERENCE),
    ],
)
def test_only_data_free_methods_that_are_no_controls_are_ranked(kind: str, data: str, role: str) -> None:
    assert replace(ENTRY, kind=kind, data=data).role == role


@pytest.mark.parametrize(
    ("queries", "shown"), [(1, "1"), (250, "250"), (1000, "1k"), (2500, "2.5k"), (20e6, "20M"), (2.5e6, "2.5M")]
)
def test_queries_are_written_short(queries: float, shown: str) -> None:
    assert short(queries) == shown


def test_names_of_files_have_no_sign_that_a_file_system_or_an_address_would_mind() -> None:
    assert plain("Over tasks, probs: </b> ä_1.5") == "over-tasks-probs-b-1.5"


def test_whoever_writes_numbers_does_not_wait_for_the_libraries_that_draw() -> None:
    code = "import sys, results.report.style; print(sorted({'seaborn', 'matplotlib', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_methods_of_the_largest_grid_have_a_colour_each() -> None:
    assert len({look.colour for look in looks({f"method {i}": RANKED for i in range(14)}).values()}) == 14


def test_twenty_methods_have_twenty_looks() -> None:
    assert len(set(looks({f"method {i}": RANKED for i in range(20)}).values())) == 20


def test_the_look_of_a_method_does_not_depend_on_what_else_a_figure_shows_of_the_run() -> None:
    given = {"A": RANKED, "B": CONTROL, "C": RANKED}
    assert looks(given)["C"] == looks({"A": RANKED, "C": RANKED})["C"]


def test_no_ranked_method_is_grey_and_all_others_are() -> None:
    shown = looks({**{f"method {i}": RANKED for i in range(20)}, "noise": CONTROL, "real": REFERENCE})
    grey = {label for label, look in shown.items() if len({look.colour[1:3], look.colour[3:5], look.colour[5:]}) == 1}
    assert grey == {"noise", "real"}
    assert shown["noise"].colour == GREYS[CONTROL]


def test_a_look_is_the_same_for_both_libraries() -> None:
    look = Look("#0173b2", (3, 1, 1, 1), "D")
    assert look.mpl_dash == (0, (3, 1, 1, 1))
    assert look.plotly_dash == "6px,2px,2px,2px"
    assert look.plotly_marker == "diamond"
    assert (Look("#0173b2", (), "o").mpl_dash, Look("#0173b2", (), "o").plotly_dash) == ("-", "solid")
