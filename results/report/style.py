"""How a method looks wherever it is drawn, and how names and numbers are written.

Colour, dash and marker go together, for eyes that tell few colours apart.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from results.records import CONTROL, RANKED, REFERENCE

DASHES = ((), (5, 1), (3, 1, 1, 1), (4, 1, 1, 1, 1, 1))
DOTS = (1, 1.65)
# matplotlib's name of a marker -> plotly's
MARKERS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "<": "triangle-left",
    "X": "x",
    ">": "triangle-right",
    "p": "pentagon",
}
THIN_MARKERS = {
    "x": "x-thin-open",
    "+": "cross-thin-open",
    "1": "y-down-open",
    "2": "y-up-open",
    "3": "y-left-open",
    "4": "y-right-open",
}
UNLEARNT = " ‡"  # the mark of a student that did not learn its labels
ITS_GREY = "#949494"  # the palette's own, which would pass for a control
# purple, wine, olive, teal and royal blue, which the palette lacks
MORE = ("#7f5bd5", "#a3244e", "#7d8400", "#2a9d9d", "#3a4fd8")
GREYS = {REFERENCE: "#666666", CONTROL: "#8a8a8a"}  # legible on white and on black


@dataclass(frozen=True)
class Look:
    """colour: hexadecimal. dash: lengths of line and gap, in widths of the line; empty for a solid one.
    marker: matplotlib's name."""

    colour: str
    dash: tuple[float, ...]
    marker: str

    @property
    def mpl_dash(self) -> Any:
        """The dash as matplotlib takes it."""
        named = {(): "-", DOTS: ":"}
        return named.get(self.dash, (0, self.dash))

    @property
    def plotly_dash(self) -> str:
        """The dash as plotly takes it, for a line two pixels wide."""
        return ",".join(f"{2 * length:g}px" for length in self.dash) or "solid"

    @property
    def plotly_marker(self) -> str:
        """The marker by plotly's name."""
        return (MARKERS | THIN_MARKERS)[self.marker]


def looks(roles: Mapping[str, str]) -> dict[str, Look]:
    """Label -> its look, the same in every figure of a run. Those that stand in no ranking are grey, and dotted."""
    import seaborn as sns  # takes a second, which commands that draw nothing do not pay

    colours = cycle([colour for colour in sns.color_palette("colorblind").as_hex() if colour != ITS_GREY] + [*MORE])
    dashes, markers, thin = cycle(DASHES), cycle(MARKERS), cycle(THIN_MARKERS)
    return {
        label: Look(next(colours), next(dashes), next(markers))
        if role == RANKED
        else Look(GREYS[role], DOTS, next(thin))
        for label, role in roles.items()
    }


def named(label: str, role: str) -> str:
    """The label as legends and tables write it."""
    return f"{label} ({role})" if role == REFERENCE else label


def short(queries: float) -> str:
    """2500 -> 2.5k, 20000000 -> 20M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if queries >= size:
            return f"{queries / size:g}{suffix}"
    return f"{queries:g}"


def plain(text: str) -> str:
    """A text as a name for files and anchors: a-z, 0-9, dots and dashes. Two texts may have one name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
