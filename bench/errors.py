"""What a user can mend: one line saying what was given, what was wanted and the nearest known names."""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo


class UsageError(Exception):
    """Bad input. The command line prints its one line and exits with 2."""

    def __init__(self, line: str) -> None:
        """line: what it names may be a file whose name is no text, or breaks the line; that is escaped. Of addresses
        in it, it keeps what is `shown`."""
        super().__init__(shown(line).encode(errors="backslashreplace").decode().replace("\n", "\\n"))


def shown(text: str) -> str:
    """An address, or a line with some, as it may be printed: without users, passwords and what stands after a `?`."""
    return re.sub(r"(?<=://)[^/\s]*@", "", re.sub(r"(://[^\s?]*)\?\S*", r"\1", text))


def unknown(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among the known ones."""
    return UsageError(f"unknown {kind} {given!r}; {_nearest(given, known)}")


def one_line(error: "ValidationError", known: Mapping[str, "FieldInfo"]) -> str:
    """The first complaint of pydantic in one line, with the nearest known names for an unknown key.

    known: the fields of the model that was to be made; a key within a nested model is compared with that one's.
    """
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *outer, key = first["loc"]
        return f"unknown key {where!r}; {_nearest(str(key), _fields_at(outer, known))}"
    message = str(first["msg"]).removeprefix("Value error, ")
    given = f", given {first['input']!r}" if first["type"] not in {"value_error", "missing"} else ""
    return " ".join(f"{where}: {message}{given}".split())


def told(error: BaseException) -> str:
    """An exception in one line of moderate length."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]}" if words else type(error).__name__


def _nearest(given: str, known: Iterable[str]) -> str:
    """The known names most like the given one; all of them where none is."""
    names = sorted(known)
    near = get_close_matches(given, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"


def _fields_at(outer: Iterable[int | str], fields: Mapping[str, "FieldInfo"]) -> Mapping[str, "FieldInfo"]:
    """The fields of the model that so many keys lead to; one that is no field is a place in a list or a mapping."""
    for part in outer:
        if part in fields:
            fields = next(_models(fields[str(part)].annotation), {})
    return fields


def _models(annotation: Any) -> Iterator[Mapping[str, "FieldInfo"]]:
    """The fields of each model in a type, such as that in `dict[str, Entry]`."""
    if hasattr(annotation, "model_fields"):
        yield annotation.model_fields
    for inner in get_args(annotation):
        yield from _models(inner)
