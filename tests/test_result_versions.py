"""No change of what decides results goes unnoticed, and none that does not makes results stale."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import result_versions

from bench.cells.code import FILES, PARTS, ROOT, files_of, tree_hash, versions_of
from bench.contract.plugins import from_file
from methods import METHODS

HELP = (
    "{name} has changed. If a result of it can now differ, raise its RESULTS and write a line `{name} N: what differs` "
    "under 'Changes results' in CHANGELOG.md. Then, or if none can, give `make versions` and commit its note."
)


@pytest.mark.parametrize("name", sorted(result_versions.numbers()))
def test_code_that_decides_results_has_not_changed_since_its_number_was_looked_at(name: str) -> None:
    now = {"results": result_versions.numbers()[name], "code": result_versions.trees()[name]}
    assert result_versions.noted().get(name) == now, HELP.format(name=name)


def test_a_raised_number_has_its_line_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text().partition("### Changes results")[2]
    told = {(name, int(number)) for name, number in re.findall(r"`(\w+) (\d+)`", changelog)}
    raised = {(name, n) for name, number in result_versions.numbers().items() for n in range(2, number + 1)}
    assert raised <= told


def test_every_part_has_its_number_in_the_first_of_its_files() -> None:
    assert PARTS.keys() == FILES.keys()
    assert all(Path(PARTS[part].__file__ or "") == ROOT / files[0] for part, files in FILES.items())


SOURCE = '''"""A method."""

import math


def rate(step):
    """The rate."""
    return math.cos(step)  # falls
'''


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("  # falls", "", False),
        ('"""The rate."""', '"""The rate of a step."""', False),
        ('"""A method."""', '"""Another text."""', False),
        ("import math", "import math\nimport os", False),
        ("(step)", "( step )", False),
        ("cos(step)", "sin(step)", True),
        ("def rate(step):", "def rate(step, peak=1):", True),
    ],
)
def test_a_hash_of_code_sees_what_it_does_and_not_how_it_is_written(
    tmp_path: Path, old: str, new: str, differs: bool
) -> None:
    file = tmp_path / "method.py"
    file.write_text(SOURCE)
    before = tree_hash([file])
    assert old in SOURCE
    file.write_text(SOURCE.replace(old, new))
    assert (tree_hash([file]) != before) == differs


def test_a_methods_code_is_its_own_file_and_the_parts_that_it_uses() -> None:
    names = {file.name for file in files_of(METHODS["ideal"])}
    assert {"ideal.py", "pool.py", "augment.py", "generators.py"} <= names
    assert "dfme.py" not in names
    assert {"sketch.py", "strokes.py", "canvas.py", "image_priors.py"} <= {f.name for f in files_of(METHODS["sketch"])}


def test_a_hash_of_code_is_the_same_wherever_its_files_lie(tmp_path: Path) -> None:
    hashes = set()
    for first, second in (("a", "b"), ("b", "a")):
        files = [tmp_path / first / "one.py", tmp_path / second / "two.py"]
        for n, file in enumerate(files):
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"N = {n}\n")
        hashes.add(tree_hash(files))
    assert len(hashes) == 1


PLUGIN = """
import budgets
import helper
from parts.deep import core
from methods import pool
from pydantic import BaseModel
ANSWERS, DATA, PROTOCOL = ("labels",), "none", "anytime"
class Config(BaseModel, frozen=True, extra="forbid"):
    "No settings."
def distill(oracle, student, config, run):
    yield {}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "helper.py").write_text("FACTOR = 1\n")
    (tmp_path / "unused.py").write_text("FACTOR = 1\n")
    (tmp_path / "parts/deep").mkdir(parents=True)
    for name in ("deep/__init__.py", "deep/core.py", "deep/near.py", "far.py"):
        (tmp_path / "parts" / name).write_text("FACTOR = 1\n")
    (tmp_path / "parts/deep/core.py").write_text("from .near import FACTOR\nimport parts.far\n")
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = from_file(tmp_path / "mine.py")
    monkeypatch.setitem(METHODS, "mine", module)
    return module


@pytest.mark.parametrize(
    ("file", "differs"),
    [
        ("mine.py", True),
        ("helper.py", True),
        ("unused.py", False),
        *((f"parts/{name}", True) for name in ("deep/__init__.py", "deep/core.py", "deep/near.py", "far.py")),
    ],
)
def test_a_plugins_version_is_its_code_and_what_it_imports_from_beside_it(
    plugin: ModuleType, tmp_path: Path, file: str, differs: bool
) -> None:
    found = files_of(plugin)
    assert {path.name for path in found} >= {"mine.py", "helper.py", "pool.py"}
    assert not any(path.is_relative_to(ROOT / "budgets") for path in found)
    before = versions_of("mine")
    (tmp_path / file).write_text((tmp_path / file).read_text() + "MORE = 2\n")
    assert (versions_of("mine") != before) == differs
    assert {part: before[part] for part in PARTS} == {part: of.RESULTS for part, of in PARTS.items()}
