"""Figures: every method is drawn and named, nothing is drawn that was not measured, and files are written."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results.published import COLUMNS
from results.records import CONTROL, RANKED, REFERENCE
from results.report import figures

NAN = float("nan")
ROLES = {"IDEAL": RANKED, "DFME": RANKED, "uniform noise": CONTROL, "real images": REFERENCE}
BUDGETS = (100, 1000, 10_000)


def summary_of(*methods: str, n: int = 3, budgets: tuple[int, ...] = BUDGETS, claimed: float = 1.0) -> pd.DataFrame:
    """Rows as curves.summary makes them, largest budget first, so that sorting is the figure's own."""
    return pd.DataFrame(
        {
            "method": method,
            "budget": budget,
            "queries": float(budget),
            "claimed": budget * claimed,
            "accuracy": 0.1 * (1 + place) + 0.05 * step,
            "low": 0.1 * (1 + place) if n >= 3 else NAN,
            "high": 0.1 * (1 + place) + 0.2 if n >= 3 else NAN,
            "n": n,
        }
        for place, method in enumerate(methods)
        for step, budget in reversed(list(enumerate(budgets)))
    )


def draw(summary: pd.DataFrame, teacher: float | None = 0.97, roles: dict[str, str] | None = None) -> Figure:
    return figures.accuracy_vs_queries(summary, roles or ROLES, teacher, "digits-lenet, labels, float inputs")


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def look_of(line: Line2D) -> tuple[str, str, str]:
    return to_hex(line.get_color()), str(line.get_linestyle()), str(line.get_marker())


def line_of(figure: Figure, label: str) -> Line2D:
    return next(
        line for line in axes_of(figure).lines if str(line.get_label()).removesuffix(" (not data-free)") == label
    )


def test_the_legend_names_every_method_and_the_teacher() -> None:
    names = [*list(ROLES)[:-1], "real images (not data-free)"]
    assert legend_of(draw(summary_of(*ROLES))) == [*names, "teacher"]
    assert legend_of(draw(summary_of(*ROLES), teacher=None)) == names


def test_a_line_goes_through_the_means_in_the_order_of_the_budgets() -> None:
    line = line_of(draw(summary_of("IDEAL", "DFME")), "DFME")
    assert list(line.get_xdata()) == list(BUDGETS)
    assert list(line.get_ydata()) == pytest.approx([0.2, 0.25, 0.3])


def test_there_is_a_band_where_there_is_an_interval_and_none_where_there_is_not() -> None:
    for n, bands in ((3, 2), (2, 0)):
        axes = axes_of(draw(summary_of("IDEAL", "DFME", n=n)))
        assert len([part for part in axes.collections if isinstance(part, PolyCollection)]) == bands


def test_controls_are_grey_and_dotted_and_ranked_methods_are_neither() -> None:
    figure = draw(summary_of(*ROLES))
    for label in ROLES:
        colour, dash, _ = look_of(line_of(figure, label))
        grey = len({colour[1:3], colour[3:5], colour[5:7]}) == 1
        assert (grey, dash == ":") == ((True, True) if ROLES[label] != RANKED else (False, False))


def test_no_two_methods_look_the_same_even_without_colour() -> None:
    labels = [f"method {i}" for i in range(10)]
    figure = draw(summary_of(*labels), roles=dict.fromkeys(labels, RANKED))
    assert len({look_of(line_of(figure, label))[2] for label in labels}) == 10
    assert len({look_of(line_of(figure, label))[0] for label in labels}) == 10


def test_many_controls_can_be_drawn() -> None:
    labels = [f"noise {i}" for i in range(8)]
    assert legend_of(draw(summary_of(*labels), roles=dict.fromkeys(labels, CONTROL)))[:8] == labels


def test_accuracy_is_shown_from_nothing_to_everything_and_queries_by_their_powers() -> None:
    axes = axes_of(draw(summary_of("IDEAL")))
    assert axes.get_xscale() == "log"
    low, high = axes.get_ylim()
    assert low == 0
    assert 1 <= high < 1.1
    assert axes.get_title() == "digits-lenet, labels, float inputs"


@pytest.mark.parametrize(
    "budgets",
    [(100,), (100, 200), (1000, 2000, 5000), (100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000), BUDGETS],
)
def test_the_axis_of_queries_has_numbers_on_it_whatever_the_budgets(budgets: tuple[int, ...]) -> None:
    figure = draw(summary_of("IDEAL", budgets=budgets))
    figure.draw_without_rendering()
    low, high = axes_of(figure).get_xlim()
    ticks = [tick for tick in axes_of(figure).xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert [tick.label1.get_text() for tick in ticks if tick.label1.get_text()]


def test_claimed_queries_are_hollow_beside_the_counted_ones() -> None:
    summary = summary_of("IDEAL", claimed=0.1)
    figure = figures.claimed_and_counted(summary, ROLES, 0.97, "title")
    assert legend_of(figure) == ["IDEAL, queries as claimed", "IDEAL, queries counted", "teacher"]
    claimed, counted = (line_of(figure, label) for label in legend_of(figure)[:2])
    assert claimed.get_markerfacecolor() == "white"
    assert list(claimed.get_xdata()) == [10, 100, 1000]
    assert list(counted.get_xdata()) == list(BUDGETS)
    assert list(claimed.get_ydata()) == list(counted.get_ydata())


def test_a_method_that_claims_what_it_asks_is_drawn_once() -> None:
    figure = figures.claimed_and_counted(summary_of("IDEAL"), ROLES, None, "title")
    assert legend_of(figure) == ["IDEAL, queries counted"]


def test_the_curves_of_claims_keep_their_height_however_long_the_legend_is() -> None:
    roles = {f"method {k}": RANKED for k in range(8)}
    heights = []
    for methods in (list(roles)[:1], list(roles)):
        figure = figures.claimed_and_counted(summary_of(*methods, claimed=0.5), roles, 0.97, "title")
        figure.draw_without_rendering()
        heights.append(axes_of(figure).get_window_extent().height)
    assert heights[1] > 0.8 * heights[0]


def test_published_numbers_are_hollow_where_they_are_claimed_and_where_they_are_recounted() -> None:
    row = dict.fromkeys(COLUMNS, "") | {"value": 96.0, "claimed": 500, "recount": 20_000}
    rows = [row | {"label": "IDEAL"}, row | {"label": "absent", "claimed": 7}, row | {"label": NAN, "claimed": 9}]
    figure = figures.accuracy_vs_queries(summary_of("IDEAL"), ROLES, 0.97, "title", pd.DataFrame(rows))
    (mark,) = [line for line in axes_of(figure).lines if line.get_label() == "_published"]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([500, 20_000], [0.96, 0.96])
    assert mark.get_markerfacecolor() == "none"
    assert look_of(mark)[0] == look_of(line_of(figure, "IDEAL"))[0]
    assert legend_of(figure)[-1] == "published: claimed, recounted"


def test_a_figure_is_saved_as_an_image_and_as_a_pdf_of_the_same_name(tmp_path: Path) -> None:
    written = figures.save(draw(summary_of(*ROLES)), tmp_path / "new" / "digits-lenet.labels.float")
    assert [file.name for file in written] == ["digits-lenet.labels.float.png", "digits-lenet.labels.float.pdf"]
    png, pdf = (file.read_bytes() for file in written)
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert min(len(png), len(pdf)) > 2000


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    first, second = (figures.save(draw(summary_of("IDEAL")), tmp_path / name) for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw(summary_of("IDEAL"))
    assert dict(mpl.rcParams) == before
