"""What a user can mend: one line saying what was given, what was wanted and the nearest known names."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UsageError(Exception):
    """Bad input. The command line prints its one line and exits with 2."""


def unknown(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among the known ones."""
    names = sorted(known)
    near = get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} {given!r}; {hint}")


def one_line(error: "ValidationError", known: Iterable[str] = ()) -> str:
    """The first complaint of pydantic in one line, with the nearest known names for an unknown key."""
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return str(unknown("key", where, known))
    message = str(first["msg"]).removeprefix("Value error, ")
    given = f", given {first['input']!r}" if first["type"] not in {"value_error", "missing"} else ""
    return f"{where}: {message}{given}"
