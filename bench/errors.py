"""What a user can mend: one line saying what was given, what was wanted and the nearest known names."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """Bad input. The command line prints its one line and exits with 2."""

    def __init__(self, line: str) -> None:
        """line: what it names may be a file whose name is no text, or breaks the line; that is escaped."""
        super().__init__(line.encode(errors="backslashreplace").decode().replace("\n", "\\n"))


def unknown(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among the known ones."""
    names = sorted(known)
    near = get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} {given!r}; {hint}")
