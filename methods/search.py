"""What may be searched: a note beside a setting, `lr: Annotated[float, Log(1e-3, 0.3)] = Field(0.01, gt=0)`.

A new method whose Config has such notes can be tuned at once; a setting without one stays as it is.
"""

from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, evenly or by their logarithm.

    step: between neighbours, if only some are meant. whole: whether only whole numbers are; the
    setting's type says so.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


Log = partial(Range, log=True)


@dataclass(frozen=True)
class Choice:
    """One of the values: those given, or both of a bool, or all of a Literal."""

    values: tuple[str | int | float | bool, ...] = ()


Space = dict[str, Range | Choice]


def space(config: type[BaseModel], prefix: str = "") -> Space:
    """The settings of a Config that may be searched, those of nested ones as `outer.inner`."""
    found: Space = {}
    for name, field in config.model_fields.items():
        key = prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= space(field.annotation, f"{key}.")
        for note in field.metadata:
            if isinstance(note, Range | Choice):
                found[key] = _of_type(note, field)
    return found


def value_at(settings: dict[str, Any], key: str) -> Any:
    """The value of `outer.inner` in nested settings; KeyError where there is none."""
    return reduce(lambda inner, part: inner[part], key.split("."), settings)


def with_values(settings: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with values put in under `outer.inner` keys."""
    changed = dict(settings)
    for key, value in values.items():
        outer, _, inner = key.partition(".")
        changed[outer] = with_values(changed.get(outer, {}), {inner: value}) if inner else value
    return changed


def including(note: Range | Choice, value: Any) -> Range | Choice:
    """The note, widened where it must be to hold the value: a search starts from settings that it could have found."""
    if isinstance(note, Choice):
        return note if value in note.values else Choice((*note.values, value))
    return replace(note, low=min(note.low, value), high=max(note.high, value))


def _of_type(note: Range | Choice, field: FieldInfo) -> Range | Choice:
    if isinstance(note, Range):
        return replace(note, whole=field.annotation is int)
    return note if note.values else Choice((False, True) if field.annotation is bool else get_args(field.annotation))
