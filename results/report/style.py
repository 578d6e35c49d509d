"""How a method looks wherever it is drawn: colour, dash and marker together, for eyes that tell few colours apart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import seaborn as sns

CONTROLS = {"noise"}  # what any method must beat
RANKED, CONTROL, REFERENCE = "ranked", "control", "not data-free"  # the roles
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
ITS_GREY = "#949494"  # the palette's own, which would pass for a control
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


def roles(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Label -> ranked, control, or not data-free: only the ranked are compared with each other."""
    return {entry["method"]: _role(entry) for entry in entries}


def looks(roles: Mapping[str, str]) -> dict[str, Look]:
    """Label -> its look, the same in every figure of a run. Those that stand in no ranking are grey, and dotted."""
    colours = cycle(colour for colour in sns.color_palette("colorblind").as_hex() if colour != ITS_GREY)
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


def _role(entry: Mapping[str, Any]) -> str:
    if entry["data"] != "none":
        return REFERENCE
    return CONTROL if entry["kind"] in CONTROLS else RANKED
