"""Methods from outside the repository: run without touching it, and checked in plain words."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import bench

from bench.contract import plugins
from bench.contract.check import check, describe
from bench.errors import UsageError
from methods import METHODS, noise

GOOD = '''
"""A method of my own.

Differs from the paper: there is none.
Differs from the released code: there is none.
"""

import os

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

ANSWERS = ("labels",)
DATA = "train"
PROTOCOL = "anytime"
OWN = torch.Generator()


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: mine."""

    batch_size: int = 20
    lr: float = Field(0.1, gt=0)


def distill(oracle, student, config, run):
    optimizer = torch.optim.SGD(student.parameters(), lr=config.lr, momentum=0.9)
    run.track(optimizer=optimizer)
    while True:
        images = torch.rand(config.batch_size, *oracle.shape, generator=run.rng, device=run.device)
        loss = F.cross_entropy(student.train()(images), oracle(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield {"loss": loss.item()}
        if oracle.remaining < config.batch_size:
            break
'''
TRACK = "    run.track(optimizer=optimizer)\n"
ASK = "loss = F.cross_entropy(student.train()(images), oracle(images))"
LAST = "        if oracle.remaining < config.batch_size:\n"
# A fault -> what it puts in place of a text of GOOD, and what is said of it.
BAD = {
    "catches the exception": (
        ASK,
        """try:
            answers = oracle(images)
        except Exception:
            continue
        loss = F.cross_entropy(student.train()(images), answers)""",
        "goes on asking after BudgetExhausted",
    ),
    "is unseeded": ("generator=run.rng", "generator=[OWN, OWN.seed()][0]", "the same seed gives another student"),
    "is not random at all": (
        "generator=run.rng",
        "generator=OWN.manual_seed(oracle.spent)",
        "another seed gives the same student",
    ),
    "seeds the global generator": (
        TRACK,
        "    torch.manual_seed(torch.initial_seed() + 5)\n" + TRACK,
        "it seeds torch's global generator",
    ),
    "keeps a reference to the teacher": (
        TRACK,
        "    student.teacher = [oracle._Oracle__ask]\n" + TRACK,
        "keeps a reference to the teacher",
    ),
    "never yields": ('yield {"loss": loss.item()}', "if False:\n            yield {}", "never yields"),
    "asks the teacher behind the oracle's back": (
        "oracle(images))",
        "oracle(images)) + 0 * oracle._Oracle__ask(images).sum()",
        "behind its back",
    ),
    "lacks a docstring of differences": (
        "Differs from the paper: there is none.",
        "",
        "no paragraph 'Differs from the paper:'",
    ),
    "tracks nothing": (TRACK, "", "run.track"),
    "does not track its optimizer": (TRACK, "    run.track()\n", "resumed, it differs from round 2 on"),
    "asks before it tracks": (
        TRACK,
        "    oracle(torch.rand(20, *oracle.shape, generator=run.rng))\n" + TRACK,
        "resumed, it differs from round 2 on",
    ),
    "tracks what cannot be saved": (
        TRACK,
        """    class Part:
        state_dict = lambda self: {"path": OWN.get_state, "oracle": oracle}
        load_state_dict = print
    run.track(optimizer=optimizer, part=Part())
""",
        "its state cannot be saved and read again",
    ),
    "says anytime, but has a schedule": (
        TRACK,
        "    optimizer.param_groups[0]['lr'] /= oracle.budget.queries\n" + TRACK,
        "its student after 97 queries is another one when 300 are to be had",
    ),
    "yields a tensor": ("loss.item()", "loss", "it yields a tensor under 'loss': wanted .item()"),
    "yields a text": ("loss.item()", "'low'", "it yields a str under 'loss': wanted a float or an int"),
    "yields no dict": ('{"loss": loss.item()}', "loss.item()", "it yields a float: wanted a dict of figures"),
    "cannot do with 8 bits": (
        ASK,
        f'{ASK}\n        assert oracle.budget.inputs == "float", "no gradient\\nto be seen"',
        "labels, 97 queries, uint8 inputs: it raises AssertionError: no gradient to be seen (line",
    ),
    "raises": (ASK, ASK + "\n        1 / 0", "labels, 97 queries: it raises ZeroDivisionError: division by zero (line"),
    "exits": (ASK, ASK + "\n        raise SystemExit(3)", "it raises SystemExit: 3 (line"),
    "leaves grad mode off": (
        "        yield",
        "        with torch.no_grad():\n          yield",
        "it changes torch's grad mode and leaves it so",
    ),
    "takes more threads": (
        LAST,
        f"{LAST}            torch.set_num_threads(2)\n",
        "it changes the number of torch's threads",
    ),
    "goes elsewhere": (TRACK, TRACK + "    os.chdir('/')\n", "it changes the working folder"),
    "wants doubles": (
        LAST,
        f"{LAST}            torch.set_default_dtype(torch.float64)\n",
        "it changes torch's default dtype",
    ),
    "sets a variable": (TRACK, TRACK + "    os.environ['MINE'] = '1'\n", "it changes the environment"),
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good method in a file; METHODS is put back afterwards."""
    for name in set(METHODS):
        monkeypatch.setitem(METHODS, name, METHODS[name])
    monkeypatch.setitem(METHODS, "my_method", METHODS["noise"])
    del METHODS["my_method"]
    file = tmp_path / "my_method.py"
    file.write_text(GOOD)
    return file


def test_a_good_method_keeps_to_the_contract(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("check", str(plugin)) == 0
    assert "my_method keeps to the contract" in capsys.readouterr().out


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_said_in_plain_words_and_nothing_else_is(plugin: Path, fault: str) -> None:
    good, bad, told = BAD[fault]
    assert good in GOOD
    plugin.write_text(GOOD.replace(good, bad))
    (complaint,) = check(plugins.from_file(plugin))
    assert told in complaint
    assert "\n" not in complaint


def test_what_a_method_changes_around_it_is_put_back_after_the_check(plugin: Path) -> None:
    before = (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), Path.cwd())
    changes = (
        "torch.set_num_threads(2); torch.set_default_dtype(torch.float64); os.chdir('/'); os.environ['MINE'] = '1'"
    )
    plugin.write_text(GOOD.replace(TRACK, f"{TRACK}    {changes}\n"))
    assert len(check(plugins.from_file(plugin))) == 1
    assert (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), Path.cwd()) == before
    assert "MINE" not in os.environ


def test_check_tells_its_complaints_and_ends_with_1(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.write_text(GOOD.replace("loss.item()", "loss"))
    assert bench("check", str(plugin)) == 1
    assert "my_method: labels, 97 queries: it yields a tensor under 'loss'" in capsys.readouterr().out.replace(
        "\n", " "
    )


@pytest.mark.parametrize("results", [None, 0, "1", True])
def test_a_method_of_this_repository_needs_the_number_of_its_results(
    monkeypatch: pytest.MonkeyPatch, results: object
) -> None:
    assert describe(noise) == []
    monkeypatch.setattr(noise, "RESULTS", results)
    assert describe(noise) == [
        f"RESULTS is {results!r}: wanted a whole number, 1 or more, raised by hand when its results change"
    ]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("recipe.min_step=3", "settings: unknown key 'recipe.min_step'; did you mean min_steps?"),
        ("recpie.min_steps=3", "settings: unknown key 'recpie'; did you mean recipe or pixels?"),
        ("kind=[", "setting 'kind=[' is not YAML"),
        ("kind.x=3", "settings: kind: Input should be 'uniform'"),
        ("recipe.min_steps=many", "settings: recipe.min_steps: Input should be a valid integer"),
        ("recipe", "setting 'recipe': wanted KEY=VALUE"),
        ("=3", "setting '=3': wanted KEY=VALUE"),
        ("recipe.=3", "setting 'recipe.=3': wanted KEY=VALUE"),
        (".x=3", "settings: unknown key ''"),
    ],
)
def test_a_bad_setting_of_a_check_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], setting: str, told: str
) -> None:
    assert bench("check", "noise", "--set", setting) == 2
    assert_one_line(capsys, told)


def test_a_setting_within_one_that_is_a_value_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("check", "noise", "--set", "kind=uniform", "--set", "kind.x=3") == 2
    assert_one_line(capsys, "setting 'kind.x=3': kind is a value")


def test_a_method_of_ones_own_runs_in_a_grid_with_its_helpers_and_its_own_processes(
    trained: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.with_name("helper.py").write_text("from torch.utils.data import DataLoader\nSIZE = 50\n")
    loader = "    loader = iter(helper.DataLoader(range(10_000), batch_size=5, num_workers=1))\n"
    with_helper = GOOD.replace("import os\n", "import os\nimport helper\n").replace("int = 20", "int = helper.SIZE")
    text = with_helper.replace(TRACK, TRACK + loader + "    next(loader)\n")
    plugin.write_text(text.replace('"anytime"', '"per_budget"'))
    chosen = ["--method", "my_method", "--budget", "250", "--seeds", "1", "--mlflow", "off"]
    assert bench("run", "--plugin", str(plugin), "--out", str(trained), *chosen) == 0
    assert "my_method" in capsys.readouterr().out
    assert len(list(trained.glob("cells/digits-lenet.my_method.250-labels.t*.s0.*/done.json"))) == 3  # teachers


# A fault -> the whole text of a file, and what is said of it.
UNUSABLE = {
    "raises": ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
    "raises at length": ("raise ValueError('a\\nb')", "cannot be imported: ValueError: a b"),
    "exits": ("import sys; sys.exit(0)", "cannot be imported: SystemExit: 0"),
    "raises what is no Exception": (
        "class End(BaseException): pass\nraise End('now')",
        "cannot be imported: End: now",
    ),
    "cannot be parsed": ("def distill(", "cannot be imported: SyntaxError: '(' was never closed"),
    "is no text": (b"TEXT = '\xff\xfe'", "cannot be imported: SyntaxError: (unicode error) 'utf-8' codec"),
    "imports what is not there": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "is half a method": ("ANSWERS = ()", "it lacks DATA, PROTOCOL, Config, distill"),
    "has a Config that is no model": (
        GOOD.replace('class Config(BaseModel, frozen=True, extra="forbid")', "class Config"),
        "wanted a pydantic model",
    ),
    "has an invalid default": (
        GOOD.replace("Field(0.1, gt=0)", "Field(-0.1, gt=0)"),
        "a default of Config is not valid: lr: Input should be greater than 0, given -0.1",
    ),
    "has a default of another type": (
        GOOD.replace("batch_size: int = 20", "batch_size: int = 'many'"),
        "a default of Config is not valid: batch_size: Input should be a valid integer",
    ),
    "has a setting without a default": (
        GOOD.replace("batch_size: int = 20", "batch_size: int"),
        "a default of Config is not valid: batch_size: Field required",
    ),
    "has a type that pydantic cannot handle": (
        GOOD.replace("batch_size: int = 20", "batch_size: torch.Tensor = None"),
        "cannot be imported: PydanticSchemaGenerationError: Unable to generate",
    ),
    "has a setting that is no JSON": (
        GOOD.replace('frozen=True, extra="forbid"', "arbitrary_types_allowed=True").replace(
            "batch_size: int = 20", "batch_size: torch.Tensor = torch.ones(1)"
        ),
        "Config cannot be used: PydanticSerializationError",
    ),
    "has no function distill": (GOOD + "\ndistill = 3\n", "distill is no function of oracle, student, config and run"),
    "has a distill of less": (
        GOOD.replace("student, config, run):", "student):"),
        "distill is no function of oracle, student, config and run",
    ),
    "has a text of answers": (GOOD.replace('("labels",)', '"labels"'), "ANSWERS is 'labels': wanted some of"),
    "has unknown answers": (GOOD.replace('("labels",)', '["logits"]'), "ANSWERS is ['logits']: wanted some of"),
    "has an unknown protocol": (GOOD.replace('"anytime"', '"always"'), "PROTOCOL is 'always': wanted 'anytime' or"),
    "has unknown data": (GOOD.replace('"train"', '"test"'), "DATA is 'test': wanted 'none', 'train' or 'other'"),
    "does not say which other images": (GOOD.replace('"train"', '"other"'), "Config has no setting images"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_file_that_is_no_method_is_told_in_one_line(
    plugin: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    text, told = UNUSABLE[fault]
    assert text != GOOD
    plugin.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert bench("check", str(plugin)) == 2
    assert_one_line(capsys, told)
    assert "my_method" not in METHODS
    assert "bench_plugin_my_method" not in sys.modules or "cannot be imported" not in told


@pytest.mark.parametrize("kind", ["a folder", "a broken link", "not there", "of another name"])
def test_what_is_no_python_file_is_told_in_one_line(plugin: Path, kind: str) -> None:
    plugin.unlink()
    if kind == "a folder":
        plugin.mkdir()
    elif kind == "a broken link":
        plugin.symlink_to(plugin.with_name("nowhere.py"))
    elif kind == "of another name":
        plugin = plugin.with_suffix(".txt")
        plugin.write_text(GOOD)
    with pytest.raises(UsageError, match=f"^plugin {plugin}: wanted a Python file$"):
        plugins.load([plugin])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ideal", "there is a method ideal already; choose another name"),
        ("my method", "the name 'my method' has more than letters, digits, _ and -"),
        ("my.method", "the name 'my.method' has more than letters, digits, _ and -"),
    ],
)
def test_a_plugin_cannot_have_the_name_of_a_method_or_one_that_cannot_be_written(
    plugin: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    assert bench("check", str(plugin.rename(plugin.with_name(f"{name}.py")))) == 2
    assert_one_line(capsys, told)


def test_two_files_of_one_name_are_two_methods_of_one_name(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / plugin.name
    second.write_text(GOOD)
    with pytest.raises(UsageError, match="there is a method my_method already"):
        plugins.load([plugin, second])


def test_ctrl_c_during_an_import_is_no_fault_of_the_plugin(plugin: Path) -> None:
    plugin.write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    with pytest.raises(KeyboardInterrupt):
        plugins.load([plugin])


def test_what_a_plugin_warns_of_is_one_line_and_no_error(plugin: Path) -> None:
    warned = "import warnings\nfor text in 'aab': warnings.warn(f'careful {text}')\n"
    deprecated = "warnings.warn('old', DeprecationWarning)\n"
    plugin.write_text(GOOD + warned + deprecated)
    with warnings.catch_warnings(action="error"):
        assert plugins.load([plugin]) == [f"plugin {plugin} warns: UserWarning: careful a; UserWarning: careful b"]
    assert "my_method" in METHODS


def test_each_plugin_has_the_helper_beside_it_and_leaves_no_trace_of_it(tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    for folder, size in (("one", 10), ("two", 30)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper.py").write_text(f"SIZE = {size}\n")
        text = GOOD.replace("import os\n", "import os\nfrom helper import SIZE\n").replace("int = 20", "int = SIZE")
        (tmp_path / folder / f"my_{folder}.py").write_text(text)
    for folder, size in (("one", 10), ("two", 30)):
        method = plugins.from_file(tmp_path / folder / f"my_{folder}.py")
        assert method.Config().batch_size == size
    assert sys.path == path
    assert set(sys.modules) - modules == {"bench_plugin_my_one", "bench_plugin_my_two"}
    del sys.modules["bench_plugin_my_one"], sys.modules["bench_plugin_my_two"]


@pytest.fixture
def package(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that offers mine_module as the method my_method."""
    folder = tmp_path / "installed"
    (folder / "mine-1.dist-info").mkdir(parents=True)
    (folder / "mine-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (folder / "mine-1.dist-info" / "entry_points.txt").write_text("[bench.methods]\nmy_method = mine_module\n")
    plugin.rename(folder / "mine_module.py")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("mine_module", None)


@pytest.mark.usefixtures("package")
def test_an_installed_method_can_be_checked_listed_and_chosen(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("check", "my_method") == 0
    assert "my_method keeps to the contract" in capsys.readouterr().out
    assert bench("list", "methods") == 0
    assert "my_method" in capsys.readouterr().out
    assert bench("plan", "--method", "my_method", "--out", str(trained)) == 0
    assert "my_method" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("my_method", "1 / 0", "installed method my_method cannot be imported: ZeroDivisionError"),
        ("my_method", "raise SystemExit", "installed method my_method cannot be imported: SystemExit; it is left out"),
        ("my_method", "ANSWERS = 3", "installed method my_method is no method: it lacks DATA"),
        ("ideal", GOOD, "installed method ideal: there is a method ideal already"),
        ("my_method", None, "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_broken_installed_method_is_left_out_with_a_line_and_ends_nothing(
    package: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, told: str
) -> None:
    module = package / "mine_module.py"
    module.write_text(text) if text else module.unlink()
    (package / "mine-1.dist-info" / "entry_points.txt").write_text(f"[bench.methods]\n{name} = mine_module\n")
    before = dict(METHODS)
    (remark,) = plugins.load()
    assert told in remark
    assert remark.endswith("; it is left out")
    assert before == METHODS
    assert "my_method" not in plugins.installed()
    assert bench("list", "grids") == 0
    assert told.split(":")[0] in " ".join(capsys.readouterr().out.split())


def test_an_entry_point_that_is_no_module_is_left_out(package: Path) -> None:
    (package / "mine-1.dist-info" / "entry_points.txt").write_text("[bench.methods]\nmy_method = mine_module:distill\n")
    assert plugins.load() == ["installed method my_method is a function: wanted a module; it is left out"]


def assert_one_line(capsys: pytest.CaptureFixture[str], told: str) -> None:
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
