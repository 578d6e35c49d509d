"""What comes from outside the repository: methods, as files or a package's entry points, and image folders."""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bench.boxes.described import Attached, attach
from bench.errors import UsageError, one_line, told
from bench.python_file import executed
from bench.tasks import image_folder
from bench.tasks.image_folder import Folder
from budgets import KINDS, Inputs
from methods import METHODS

Outside = Sequence[Path | Folder | Attached]  # what a process must load to know all methods and tasks; absolute paths
GROUP = "bench.methods"  # [project.entry-points."bench.methods"]  NAME = "package.module"
PARTS = ("ANSWERS", "DATA", "PROTOCOL", "Config", "distill")
NAME = re.compile(r"[A-Za-z0-9_-]+")  # it stands in names of folders, in globs and before the dot of --set


def load(given: Outside = ()) -> list[str]:
    """Put the installed entry points and the given files into METHODS, under the entry's or the file's name.

    A folder of images becomes a task, a black box the teacher of one. Returns remarks, one line each: what a plugin
    warned of, and which installed methods are left out and why, since nobody asked for those. Raises UsageError, one
    line, for a given file that is no method or has the name of one, and for what is no such folder.
    """
    remarks: list[str] = []
    for entry in entry_points(group=GROUP):
        try:
            remarks += _add(entry.name, f"installed method {entry.name}", entry.load)
        except UsageError as error:
            remarks.append(f"{error}; it is left out")
    for item in given:
        if isinstance(item, Folder):
            image_folder.register(item, anew=False)
        elif isinstance(item, Attached):
            attach(item)
        else:
            remarks += _add(item.stem, f"plugin {item}", partial(executed, item, "plugin"))
    return remarks


def installed() -> list[str]:
    """The names of the methods that packages offer as entry points, of those that `load` could load."""
    return [entry.name for entry in entry_points(group=GROUP) if entry.name in METHODS]


def from_file(file: Path) -> ModuleType:
    """The method in a Python file; UsageError if it cannot be imported or is no method."""
    return _method(f"plugin {file}", partial(executed, file, "plugin"))[0]


def faults(method: ModuleType) -> list[str]:
    """What keeps the harness from using a method at all, each one sentence."""
    if lacking := [part for part in PARTS if not hasattr(method, part)]:
        return [f"it lacks {', '.join(lacking)}; methods/__init__.py says what a method has"]
    answers, data, protocol = method.ANSWERS, method.DATA, method.PROTOCOL
    inputs = getattr(method, "INPUTS", get_args(Inputs))
    listed = isinstance(answers, list | tuple | set | frozenset) and bool(answers)
    wanted = {
        f"ANSWERS is {answers!r}: wanted some of {', '.join(map(repr, KINDS))}": listed
        and all(kind in KINDS for kind in answers),
        f"INPUTS is {inputs!r}: wanted some of 'float', 'uint8'": isinstance(inputs, list | tuple)
        and bool(inputs)
        and all(kind in get_args(Inputs) for kind in inputs),
        f"DATA is {data!r}: wanted 'none', 'train' or 'other'": data in ("none", "train", "other"),
        f"PROTOCOL is {protocol!r}: wanted 'anytime' or 'per_budget'": protocol in ("anytime", "per_budget"),
        "distill is no function of oracle, student, config and run": _takes(method.distill, 4),
    }
    return [*(fault for fault, met in wanted.items() if not met), *_faults_of_config(method.Config, data)]


def _faults_of_config(config: Any, data: str) -> Iterator[str]:
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        yield f"Config is {config!r}: wanted a pydantic model"
        return
    if data == "other" and "images" not in config.model_fields:
        yield "DATA is 'other', but Config has no setting images, which names the other data set"
    try:
        with warnings.catch_warnings(action="ignore"):  # pydantic warns of what is refused in the same line
            config.model_validate_json(config().model_dump_json())  # the way from a grid to a cell
    except ValidationError as error:
        yield f"a default of Config is not valid: {one_line(error, config.model_fields)}"
    except Exception as error:
        yield f"Config cannot be used: {told(error)}"


def _takes(function: Any, arguments: int) -> bool:
    """Whether it can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


def _add(name: str, origin: str, imported: Callable[[], Any]) -> list[str]:
    """Put a method into METHODS; returns remarks."""
    method, remarks = _method(origin, imported)
    known = METHODS.get(name)
    if known is not None and known.__file__ != method.__file__:
        raise UsageError(f"{origin}: there is a method {name} already; choose another name")
    if not NAME.fullmatch(name):
        raise UsageError(f"{origin}: the name {name!r} has more than letters, digits, _ and -; choose another name")
    METHODS[name] = method
    return remarks


def _method(origin: str, imported: Callable[[], Any]) -> tuple[ModuleType, list[str]]:
    """The method that an import gives, and in one line what it warned of; UsageError, one line, for anything else."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)  # those are for its author
            method = imported()
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:  # a plugin may call sys.exit, or worse
        raise UsageError(f"{origin} cannot be imported: {told(error)}") from error
    if not isinstance(method, ModuleType):
        raise UsageError(f"{origin} is a {type(method).__name__}: wanted a module")
    if wrong := faults(method):
        raise UsageError(f"{origin} is no method: {'; '.join(wrong)}")
    texts = dict.fromkeys(told(warning.message) for warning in caught if isinstance(warning.message, Warning))
    return method, [f"{origin} warns: {'; '.join(texts)}"] if texts else []
