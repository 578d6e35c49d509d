"""Result versions: numbers, raised by hand, that say whether a result on disk is one that this code would give.

Each part of the code that decides results has a number `RESULTS`: every method, the meter, the runner, the exam and
the data. Whoever changes what a part computes raises its number, with a line in the CHANGELOG under *Changes results*;
tests/test_result_versions.py fails when the code of a part has changed and neither its number nor the note of its
code has. A plugin has no such number: its version is a hash of its code and of what it imports from beside it.
"""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from bench.cells import assemble, exam
from bench.tasks.data import sources
from budgets import oracle
from methods import METHODS
from results.records import Versions

ROOT = Path(__file__).parents[2]
HARNESS = {"bench", "budgets", "results"}  # what these compute has numbers of its own
PARTS: dict[str, ModuleType] = {"meter": oracle, "runner": assemble, "exam": exam, "data": sources}
# The files that make up each part, the one with its number first.
FILES = {
    "meter": ("budgets/oracle.py", "budgets/budget.py", "budgets/answers.py", "budgets/distinct.py"),
    "runner": (
        "bench/cells/assemble.py",
        "bench/cells/curve.py",
        "bench/cells/run.py",
        "bench/boxes/box.py",
        "bench/boxes/defences.py",
        "bench/boxes/door.py",
        "bench/boxes/files.py",
        "bench/boxes/http/oip.py",
        "bench/boxes/http/wire.py",
        "bench/cells/asked.py",
        "bench/tasks/networks.py",
        "bench/tasks/students.py",
        "methods/run.py",
    ),
    "exam": ("bench/cells/exam.py",),
    "data": ("bench/tasks/data/sources.py", "bench/tasks/data/readers.py", "bench/tasks/image_folder.py"),
}


def versions_of(method: str) -> Versions:
    """The result versions of all that a cell of the method goes through."""
    module = METHODS[method]
    own = module.RESULTS if is_ours(module) else tree_hash(files_of(module))
    return {"method": own, **{part: of.RESULTS for part, of in PARTS.items()}}


def is_ours(module: ModuleType) -> bool:
    """Whether the method is in this repository, and so has a number and not a hash."""
    return Path(module.__file__ or "").parent == ROOT / "methods"


def files_of(module: ModuleType) -> set[Path]:
    """The module's file and those that it imports, directly or not, from anywhere in methods/ or in its own folder."""
    own = Path(module.__file__ or "").resolve()
    found, waiting = set(), {own}
    while waiting:
        found.add(file := waiting.pop())
        waiting |= set(_imported(file, own.parent)) - found
    return found


def tree_hash(files: Iterable[Path]) -> str:
    """A hash of what files do, wherever they lie: of their syntax trees without comments, docstrings and imports."""
    trees = sorted(f"{file.name} {_tree(file)}\n" for file in files)
    return hashlib.sha256("".join(trees).encode()).hexdigest()[:12]


def _imported(file: Path, home: Path) -> Iterable[Path]:
    """The Python files in methods/ and in the folder `home`, or in packages there, that the file imports."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names)]
        for name in names:
            yield from _files(Path(*name.split(".")), file, home)


def _files(place: Path, file: Path, home: Path) -> Iterable[Path]:
    """The files that a module at that place can be. Those of the harness are in none: methods/ alone is read there."""
    if place.parts and place.parts[0] in HARNESS:
        return
    for folder in (ROOT, home.parent, home, file.parent):
        for found in ((folder / place).with_suffix(".py"), folder / place / "__init__.py"):
            inside = found.is_relative_to(ROOT / "methods") or found.is_relative_to(home)
            if inside and found.is_file() and found != ROOT / "methods" / "__init__.py":
                yield found.resolve()


def _tree(file: Path) -> str:
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            node.body[0].value.value = ""
        node.body = [line for line in node.body if not isinstance(line, ast.Import | ast.ImportFrom)]
    return ast.dump(tree)
