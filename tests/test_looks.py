"""How methods look: the same in every figure of a run, told apart without colour, and who is ranked."""

from results.report.style import CONTROL, GREYS, RANKED, REFERENCE, Look, looks, roles


def test_only_data_free_methods_that_are_no_controls_are_ranked() -> None:
    entries = [
        {"method": "A", "kind": "ideal", "data": "none"},
        {"method": "B", "kind": "noise", "data": "none"},
        {"method": "C", "kind": "real", "data": "train"},
        {"method": "D", "kind": "my_plugin", "data": "other"},
    ]
    assert roles(entries) == {"A": RANKED, "B": CONTROL, "C": REFERENCE, "D": REFERENCE}


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
