"""Python files of a user's own, imported once each."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import UsageError, told


def function_in(file: Path, name: str) -> Callable[..., Any]:
    """The function of that name in a Python file; UsageError, one line, if it cannot be had."""
    try:
        module = executed(file, "model")
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:  # such a file may call sys.exit, or worse
        raise UsageError(f"{file} cannot be imported: {told(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise UsageError(f"{file} has no function {name!r}; wanted FILE.py:FUNCTION")
    return found  # type: ignore[no-any-return]


def executed(file: Path, kind: str) -> ModuleType:
    """The module in a file. kind: what it is to a person. UsageError if there is no such file; whatever it raises."""
    spec = importlib.util.spec_from_file_location(f"bench_{kind}_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UsageError(f"{kind} {file}: wanted a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with _neighbours(file.parent.resolve()):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Lets the files beside a plugin be imported meanwhile; forgotten then, they hide no other's of that name."""
    path, before = list(sys.path), {name.partition(".")[0] for name in sys.modules}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name.partition(".")[0] not in before]:
            if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
                del sys.modules[name]
