"""What a command chooses: settings for the methods of a grid, and which of its runs it is about."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench import strict_yaml
from bench.errors import UsageError, unknown
from bench.globs import matches, matching, parted
from bench.grids.definition import Entry, Grid
from bench.grids.plan import AXES, Planned, cut, names_on


def configure(grid: Grid, settings: Iterable[str]) -> Grid:
    """The grid with `METHOD.KEY=VALUE` put into every entry whose label or method the glob METHOD matches."""
    entries = {label: entry.model_dump() for label, entry in grid.methods.items()}
    for setting in settings:
        pattern, keys, value = _parsed(setting)
        chosen = [label for label in entries if matches("method", pattern, label, grid.methods[label].method or label)]
        if not chosen:
            raise unknown("method", pattern, entries)
        for label in chosen:
            for config in (entries[label]["config"], *entries[label]["where"].values()):
                _put(config, keys, value, setting)
    return grid.model_copy(update={"methods": {label: Entry(**entry) for label, entry in entries.items()}})


def choose(runs: list[Planned], filters: Mapping[str, Iterable[str]], exclude: Iterable[str] = ()) -> list[Planned]:
    """The runs that the filters (axis -> globs, or several with commas) name, without those that `exclude` names.

    A run that answers for several budgets is cut to those that are wanted. UsageError for a glob that fits nothing,
    and where nothing is left.
    """
    chosen = runs
    for axis, texts in filters.items():
        globs = parted(texts)
        if globs and axis == "budget":
            budgets = sorted({queries for run in chosen for queries in run.budgets})
            kept = set(matching(axis, budgets, globs, lambda queries: (str(queries),)))
            chosen = [left for run in chosen if (left := cut(run, kept.__contains__))]
        elif globs:
            names = [names_on(axis, run) for run in chosen]
            known = set(matching(axis, dict.fromkeys(names), globs, lambda own: own))
            chosen = [run for run, own in zip(chosen, names, strict=True) if own in known]
    for rule in exclude:
        chosen = _without(chosen, rule)
    if not chosen:
        raise UsageError("nothing is left of the grid: the filters and exclusions take every run out")
    return chosen


def _without(runs: list[Planned], rule: str) -> list[Planned]:
    axis, separator, glob = rule.partition("=")
    if not separator or axis not in AXES:
        raise UsageError(f"exclude {rule!r}: wanted AXIS=GLOB with an axis of {', '.join(AXES)}")
    if axis != "budget":
        return [run for run in runs if not matches(axis, glob, *names_on(axis, run))]
    return [left for run in runs if (left := cut(run, lambda queries: not matches("budget", glob, str(queries))))]


def _parsed(setting: str) -> tuple[str, list[str], Any]:
    """METHOD.KEY=VALUE as the glob, the keys one inside the other, and the value as YAML understands it."""
    path, separator, text = setting.partition("=")
    pattern, *keys = path.split(".")
    if not separator or not keys or not all(keys):
        raise UsageError(f"setting {setting!r}: wanted METHOD.KEY=VALUE")
    return pattern, keys, strict_yaml.parse(text, f"setting {setting!r}")


def _put(config: dict[str, Any], keys: list[str], value: Any, setting: str) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
        if not isinstance(config, dict):
            raise UsageError(f"setting {setting!r}: {key} is a value, wanted a group of settings")
    config[keys[-1]] = value
