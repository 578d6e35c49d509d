"""How names are matched: globs, and bounds of budgets such as `>=1M`. One rule for every filter and exclusion."""

import operator
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import cache
from typing import TypeVar

from bench.errors import UsageError, unknown
from budgets import BudgetError, parse_queries

T = TypeVar("T")
BOUNDS = {"": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def parted(texts: Iterable[str] | None) -> list[str]:
    """What an option says that is repeatable, or has commas."""
    return [part for text in texts or [] for part in text.split(",")]


def matches(axis: str, glob: str, *names: str) -> bool:
    """Whether the glob fits one of the names; a budget may also be bounded, as in `>=1M`."""
    if axis == "budget" and not any(mark in glob for mark in "*?["):
        return any(_within(glob, int(name)) for name in names)
    return any(fnmatchcase(name, glob) for name in names if name)


def matching(axis: str, values: Iterable[T], globs: Iterable[str], names: Callable[[T], Iterable[str]]) -> list[T]:
    """The values one of whose names fits one of the globs; UsageError for a glob that fits nothing."""
    named = [(value, tuple(names(value))) for value in values]
    wanted = list(globs)
    for glob in wanted:
        if not any(matches(axis, glob, *own) for _, own in named):
            raise unknown(axis, glob, {name for _, own in named for name in own if name})
    return [value for value, own in named if any(matches(axis, glob, *own) for glob in wanted)]


@cache
def _within(bound: str, queries: int) -> bool:
    """Whether so many queries are those of the bound: a number, or one after <, <=, > or >=."""
    number = bound.lstrip("<>=")
    sign = bound.removesuffix(number)
    if sign not in BOUNDS:
        raise UsageError(f"budget {bound!r}: wanted a number such as 2.5k, or a bound such as >=1M")
    try:
        return bool(BOUNDS[sign](queries, parse_queries(number)))
    except BudgetError as error:
        raise UsageError(str(error)) from error
