"""The arrows between the packages and the rooms of bench, read from their imports, and the one place that prints."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARROWS = {
    "budgets": {"budgets"},
    "results": {"results"},
    "methods": {"methods", "budgets"},
    "bench": {"bench", "methods", "budgets", "results"},
}
# Each room uses only those below it.
FLOORS = (
    {"__init__"},
    {"errors"},
    {"globs", "provenance", "python_file", "strict_yaml"},
    {"tasks"},
    {"boxes"},
    {"contract"},
    {"cells"},
    {"grids"},
    {"executors", "mirror"},
    {"tuning"},
    {"cli"},
    {"__main__"},
)
MAY_PRINT = {"bench/cli/app.py"}
LONGEST = 40  # lines of a function's body
# Functions that are longer, each with its reason.
LONG = {"methods/maze.py:distill": "one round of Algorithm 1 from top to bottom"}


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


SOURCES = [file.relative_to(ROOT).as_posix() for package in ARROWS for file in files_of(package)]


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported anywhere in the file, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it goes"
            yield node.module or ""
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            arguments = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from (str(argument) for argument in arguments if name in {"import_module", "__import__"})


def spoken(tree: ast.AST) -> set[str]:
    """`print` and `console` where the file calls print(...) or something.print(...), or writes to stdout itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.add("print")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"print", "echo"}:
            found.add("console")
        if isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"} and ast.unparse(node.value) == "sys":
            found.add("print")
    return found


def room_of(module: str) -> str | None:
    """The room of bench that a module lies in; `__init__` for what bench itself names."""
    package, _, rest = module.partition(".")
    if package != "bench":
        return None
    room = rest.partition(".")[0]
    return room if (ROOT / "bench" / room).is_dir() or (ROOT / "bench" / f"{room}.py").exists() else "__init__"


def floor_of(room: str) -> int:
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room in rooms)
    return floor


def longest_bodies(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function with the lines of its body, its docstring apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def read(source: str) -> ast.AST:
    return ast.parse((ROOT / source).read_text(), source)


def test_there_is_something_to_check() -> None:
    assert {"budgets/oracle.py", "methods/ideal.py", "bench/cells/run.py", "results/store.py"} <= set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_a_package_imports_only_what_its_arrows_allow(source: str) -> None:
    siblings = {module.partition(".")[0] for module in imported(read(source))} & (ARROWS.keys() | {"tests", "support"})
    assert siblings <= ARROWS[source.partition("/")[0]]


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("bench/")])
def test_a_room_of_bench_uses_only_the_rooms_below_it(source: str) -> None:
    own = room_of(source.removesuffix(".py").replace("/", "."))
    assert own
    used = {room_of(module) for module in imported(read(source))} - {None, own}
    assert {room for room in used if room and floor_of(room) >= floor_of(own)} == set()


@pytest.mark.parametrize("source", SOURCES)
def test_no_function_is_long_without_a_reason(source: str) -> None:
    long = {f"{source}:{name}" for name, lines in longest_bodies(read(source)) if lines > LONGEST}
    assert long == {name for name in LONG if name.startswith(f"{source}:")}


def test_no_module_imports_itself_by_way_of_another() -> None:
    arrows = {
        source.removesuffix(".py").removesuffix("/__init__").replace("/", "."): set(imported(read(source)))
        for source in SOURCES
    }
    graph = {
        name: {module for module in found if module in arrows and module != name} for name, found in arrows.items()
    }
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("source", SOURCES)
def test_only_the_command_line_prints(source: str) -> None:
    said = spoken(read(source))
    assert "print" not in said or source in MAY_PRINT
    assert "console" not in said or source.startswith("bench/cli/")


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("methods/")])
def test_a_method_keeps_no_clock_no_log_and_no_files(source: str) -> None:
    modules = {module.partition(".")[0] for module in imported(read(source))}
    assert not modules & {"time", "datetime", "logging", "pathlib", "os", "random", "mlflow", "numpy"}


def test_a_meter_is_built_for_a_cell_on_either_side_and_for_held_out_answers_and_nowhere_else() -> None:
    builders = {
        source
        for source in SOURCES
        for node in ast.walk(read(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Oracle"
    }
    assert builders == {"bench/boxes/process.py", "bench/cells/assemble.py", "bench/cells/exam.py"}


def test_tests_are_no_package_which_would_hide_the_real_ones() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not [folder for folder in (ROOT / "tests").iterdir() if folder.name in ARROWS]
