"""What comes from outside the repository: methods, as files or a package's entry points, and image folders."""

import importlib.util
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from bench.errors import UsageError
from bench.tasks import image_folder
from bench.tasks.image_folder import Folder
from methods import METHODS

GROUP = "bench.methods"  # [project.entry-points."bench.methods"]  NAME = "package.module"
PARTS = ("ANSWERS", "DATA", "PROTOCOL", "Config", "distill")


def load(given: Iterable[Path | Folder] = ()) -> list[str]:
    """Put the installed entry points and the given files into METHODS, under the entry's or the file's name.

    A folder of images becomes a task. Raises UsageError for what is no method, takes the name of one, or is no such
    folder.
    """
    remarks = []
    for entry in entry_points(group=GROUP):
        try:
            _add(entry.name, entry.load(), entry.value)
        except Exception as error:  # of somebody else's package, which is not asked for
            remarks.append(f"the installed method {entry.name} cannot be loaded: {type(error).__name__}: {error}")
    for item in given:
        if isinstance(item, Folder):
            image_folder.register(item)
        else:
            _add(item.stem, from_file(item), str(item))
    return remarks


def installed() -> list[str]:
    """The names of the methods that packages offer as entry points."""
    return [entry.name for entry in entry_points(group=GROUP)]


def from_file(file: Path) -> ModuleType:
    """The method in a Python file; UsageError if it cannot be imported or lacks a part of a method."""
    spec = importlib.util.spec_from_file_location(f"bench_plugin_{file.stem}", file)
    if spec is None or spec.loader is None or not file.exists():
        raise UsageError(f"plugin {file}: wanted a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"plugin {file} cannot be imported: {type(error).__name__}: {error}") from error
    if lacking := [part for part in PARTS if not hasattr(module, part)]:
        raise UsageError(f"plugin {file} lacks {', '.join(lacking)}; methods/__init__.py says what a method has")
    return module


def _add(name: str, module: ModuleType, origin: str) -> None:
    known = METHODS.get(name)
    if known is not None and known.__file__ != module.__file__:
        raise UsageError(f"plugin {origin}: there is a method {name} already; choose another name")
    METHODS[name] = module
