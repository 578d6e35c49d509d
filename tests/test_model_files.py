"""Models in files that others wrote, as teachers, and students from elsewhere: what they answer, what is refused, and
what they are known by."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support import CPU, QUICK, bench, digits_cell
from test_folders import draw
from torch import Tensor, nn

from bench.boxes import examined, files, teachers
from bench.boxes.box import black_box
from bench.boxes.described import BOXES, Attached, ModelFile, attach, name_of, read
from bench.cells.cell import Cell, canonical_config
from bench.cells.run import How, run_cell
from bench.errors import UsageError
from bench.tasks.table import task_of
from budgets import Budget
from results.store import read_json

NO_DATA = Path("no-data")
SHAPE, CLASSES = (1, 8, 8), 10
OFF = ["--mlflow", "off"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),  # torch would rather have torch.export
    pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning"),  # of torch.export, about their layout
]


def foreign(seed: int = 0, classes: int = CLASSES) -> nn.Sequential:
    """A network that is none of ours: a convolution with a stride and a dense layer, whose classes are all met."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(45, classes))
        nn.init.normal_(network[3].weight, 0, 1.5)
        return network.eval()


class Around(nn.Module):
    """A network with something before or behind it."""

    def __init__(self, network: nn.Module, before: str = "same", behind: str = "same") -> None:
        super().__init__()
        self.network, self.before, self.behind = network, before, behind

    def forward(self, images: Tensor) -> Tensor:
        if self.before == "bytes":
            images = images / 255
        if self.before == "signed":
            images = (images + 1) / 2
        if self.before == "last":
            images = images.permute(0, 3, 1, 2)
        if self.before == "normalised":
            images = images * 0.25 + 0.5
        answers: Tensor = self.network(images)
        if self.behind == "probs":
            return answers.softmax(dim=1)
        if self.behind == "half":
            return answers.softmax(dim=1).half()
        if self.behind == "labels":
            return answers.argmax(dim=1)
        if self.behind == "int32":
            return answers.argmax(dim=1).int()
        if self.behind == "from one":
            return answers.argmax(dim=1) + 1
        return answers


def traced(network: nn.Module, folder: Path) -> str:
    torch.jit.trace(network, torch.rand(2, *SHAPE)).save(str(folder / "traced.pt"))
    return str(folder / "traced.pt")


def scripted(network: nn.Module, folder: Path, name: str = "scripted.pt") -> str:
    torch.jit.script(network).save(str(folder / name))
    return str(folder / name)


def onnx_graph(network: nn.Sequential, channels: int = 1, side: int = 8) -> onnx.ModelProto:
    """The layers of `foreign`, written by hand."""
    weights = {name.replace(".", "_"): value.numpy() for name, value in network.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["images", "0_weight", "0_bias"], ["found"], strides=[2, 2]),
        helper.make_node("Tanh", ["found"], ["bent"]),
        helper.make_node("Flatten", ["bent"], ["flat"]),
        helper.make_node("Gemm", ["flat", "3_weight", "3_bias"], ["logits"], transB=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", channels, side, side])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", None])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "foreign", [images], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def in_onnx(network: nn.Module, folder: Path) -> str:
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        onnx.save(onnx_graph(network), folder / "mine.onnx")
    return str(folder / "mine.onnx")


MAKES = """
from pathlib import Path
import torch
from torch import nn

def make():
    network = nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(45, 10))
    network.load_state_dict(torch.load({weights}))
    return network
"""
BESIDE = 'Path(__file__).with_name("weights.pt")'


def in_python(network: nn.Module, folder: Path) -> str:
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "mine.py").write_text(MAKES.format(weights=BESIDE))
    return f"{folder}/mine.py:make"


WRITERS: dict[str, Callable[[nn.Module, Path], str]] = {
    "traced": traced,
    "scripted": scripted,
    "onnx": in_onnx,
    "python": in_python,
}


def attached(given: str, task: str = "digits-lenet", student: str = "") -> str:
    """The task that has the model for its teacher."""
    item = Attached(task, read(given, ModelFile) if given else None, student)
    attach(item)
    return item.name


def cell_of(
    task: str, root: Path, answers: str = "labels", inputs: str = "float", method: str = "noise", queries: int = 200
) -> Cell:
    """A quick cell of the task, whose model is examined."""
    record = examined.examine(task_of(task), root, NO_DATA, CPU, lambda _: None)
    config = canonical_config(method, QUICK[method])
    return Cell(task, method, config, Budget(queries, answers, inputs), 0, record.hash)  # type: ignore[arg-type]


def curve_of(cell: Cell, root: Path, how: How | None = None) -> list[dict[str, Any]]:
    run_cell(cell, root, NO_DATA, CPU, how=how or How())
    points: list[dict[str, Any]] = read_json(root / "cells" / cell.name() / "curve.json")
    return points


def images_of(n: int = 50) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(7))


def asked(given: str, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> Tensor:
    """What the model answers to fifty images."""
    box = read(given, ModelFile)
    assert isinstance(box, ModelFile)
    return files.opened(box, shape, classes, CPU)[0](images_of())


def made_of(file: str, load: str) -> str:
    """A Python file beside that one whose function loads it."""
    python = Path(file).with_suffix(".py")
    python.write_text(f"import torch\ndef make():\n    return {load.format(file=repr(file))}\n")
    return f"{python}:make"


def exported(network: nn.Module, folder: Path) -> str:
    images = torch.rand(2, *SHAPE)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, folder / "exported.pt2")
    return made_of(str(folder / "exported.pt2"), "torch.export.load({file}).module()")


OURS: dict[str, Callable[[nn.Module, Path], str]] = {
    "traced": traced,
    "scripted": scripted,
    "python, of TorchScript": lambda network, folder: made_of(scripted(network, folder), "torch.jit.load({file})"),
    "python, exported": exported,
}


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(("method", "answers"), [("ideal", "labels"), ("noise", "probs")])
def test_a_teacher_of_ours_gives_the_same_curve_from_a_file_as_in_process(
    trained: Path, tmp_path: Path, kind: str, method: str, answers: str
) -> None:
    given = OURS[kind](teachers.load(task_of("digits-lenet"), trained, CPU), tmp_path)
    digits = digits_cell(trained, method, 200)
    within = Cell(digits.task, method, digits.config, Budget(200, answers), 0, digits.teacher)
    assert curve_of(cell_of(attached(given), tmp_path, answers, method=method), tmp_path) == curve_of(within, trained)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_network_that_is_none_of_ours_answers_from_each_kind_of_file_as_it_does_itself(
    tmp_path: Path, kind: str
) -> None:
    network = foreign()
    answers = asked(WRITERS[kind](network, tmp_path))
    assert answers.dtype == torch.float32
    assert len(answers.argmax(dim=1).unique()) > 4
    torch.testing.assert_close(answers, black_box(network)(images_of()), rtol=0, atol=1e-5 if kind == "onnx" else 0)


def test_all_kinds_of_files_of_one_network_give_one_curve(tmp_path: Path) -> None:
    curves = []
    for kind, write in WRITERS.items():
        (tmp_path / kind).mkdir()
        curves.append(curve_of(cell_of(attached(write(foreign(), tmp_path / kind)), tmp_path), tmp_path))
    assert curves[0][-1]["spent"] == 200
    assert all(curve == curves[0] for curve in curves)


@pytest.mark.parametrize("kind", ["traced", "onnx", "python"])
def test_a_model_in_a_file_answers_the_same_from_a_process_of_its_own(tmp_path: Path, kind: str) -> None:
    name = attached(WRITERS[kind](foreign(), tmp_path))
    cell = cell_of(name, tmp_path, "probs", "uint8")
    within = curve_of(cell, tmp_path)
    shutil.rmtree(tmp_path / "cells" / cell.name())
    box = BOXES[task_of(name).teacher]
    run_cell(cell, tmp_path, NO_DATA, CPU, how=How(isolate=True), outside=[Attached("digits-lenet", box)])
    assert read_json(tmp_path / "cells" / cell.name() / "curve.json") == within


# What a model wants or gives -> the description under which it answers as the network itself does.
TERMS = {
    ("bytes", "same"): "range: [0, 255]",
    ("signed", "same"): "range: [-1, 1]",
    ("last", "same"): "layout: NHWC",
    ("normalised", "same"): "mean: 0.5\nstd: [0.25]",
    ("same", "probs"): "scores: probs",
    ("same", "same"): "scores: logits",
}


@pytest.mark.parametrize("terms", TERMS)
def test_a_description_says_what_images_a_model_takes_and_what_its_answers_are(
    tmp_path: Path, terms: tuple[str, str]
) -> None:
    scripted(Around(foreign(), *terms), tmp_path)
    (tmp_path / "mine.yaml").write_text(f"file: scripted.pt\nshape: [1, 8, 8]\nclasses: 10\n{TERMS[terms]}\n")
    answers = asked(str(tmp_path / "mine.yaml"))
    torch.testing.assert_close(answers, black_box(foreign())(images_of()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("behind", "same"), [("probs", 0.0), ("half", 1e-3)])
def test_probabilities_are_known_for_such_without_a_word(tmp_path: Path, behind: str, same: float) -> None:
    answers = asked(scripted(Around(foreign(), behind=behind), tmp_path))
    assert answers.dtype == torch.float32
    torch.testing.assert_close(answers, black_box(foreign())(images_of()), rtol=0, atol=same)


@pytest.mark.parametrize("behind", ["labels", "int32"])
def test_labels_are_known_for_such_and_are_what_a_loss_takes(tmp_path: Path, behind: str) -> None:
    answers = asked(scripted(Around(foreign(), behind=behind), tmp_path))
    assert torch.equal(answers, black_box(foreign())(images_of()).argmax(dim=1))
    assert answers.dtype == torch.int64


GRID = """
description: a test
tasks: [digits-lenet]
budgets: [60]
answers: [labels, probs]
seeds: 1
methods:
  noise: {config: {recipe: {batch_size: 32, passes: 1, min_steps: 2}}}
"""


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A grid in the folder in which commands are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(GRID)
    return "tiny.yaml"


def test_a_model_that_gives_labels_alone_runs_for_labels_and_for_nothing_else(
    tmp_path: Path, grid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = scripted(Around(foreign(), behind="labels"), tmp_path)
    assert bench("run", "--grid", grid, "--teacher", model, *OFF) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "the black box reveals labels at most" in out
    (folder,) = (tmp_path / "runs" / "cells").iterdir()
    assert ".noise.60-labels." in folder.name
    assert (folder / "done.json").exists()
    assert bench("run", "--grid", grid, "--teacher", model, "--answers", "labels", *OFF) == 0


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda folder: scripted(foreign(classes=7), folder), "answers 4 images with (4, 7) of torch.float32: wanted"),
        (lambda folder: scripted(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), folder), "does not take images of"),
        (
            lambda folder: scripted(nn.Sequential(foreign(), nn.LogSoftmax(1), nn.Softmax(0)), folder),
            "when it is alone",
        ),
        (lambda folder: scripted(Around(foreign(), behind="from one"), folder), "class 10: wanted 0 to 9"),
        (lambda folder: python(folder, "return None"), "make gives a NoneType: wanted a torch module"),
        (lambda folder: python(folder, "return make"), "make gives a function: wanted a torch module"),
        (lambda folder: python(folder, "raise OSError('no paper')"), "cannot be loaded: OSError: no paper"),
        (lambda folder: python(folder, "raise SystemExit(3)"), "cannot be loaded: SystemExit: 3"),
        (lambda folder: python(folder, "return Dropping()"), "the same images differently: is it in eval mode?"),
        (lambda folder: python(folder, "return Counting()"), "the same images differently: is it in eval mode?"),
        (lambda folder: python(folder, "return Batched()"), "an image otherwise when it is alone: is it in eval mode?"),
        (lambda folder: python(folder, "return Odd()"), "answers with a tuple: wanted a tensor"),
        (lambda folder: python(folder, "return Lost()"), "answers with numbers that are not finite"),
        (lambda folder: python(folder, "return Leaving()"), "does not take images of 1 x 8 x 8, NCHW: SystemExit"),
        (
            lambda folder: python(folder, "return foreign.double()"),
            "does not take images of 1 x 8 x 8, NCHW: RuntimeErr",
        ),
        (lambda folder: python(folder, "pass", name="other"), "has no function 'make'; wanted FILE.py:FUNCTION"),
        (
            lambda folder: python(folder, "pass", above="import no_such_thing"),
            "cannot be imported: ModuleNotFoundError",
        ),
        (lambda folder: python(folder, "pass", above="raise SystemExit"), "cannot be imported: SystemExit"),
        (lambda folder: python(folder, "pass", above="def"), "cannot be imported: SyntaxError"),
        (
            lambda folder: written(folder / "x.pt", b"no model"),
            "; wanted TorchScript, ONNX (.onnx) or FILE.py:FUNCTION",
        ),
        (lambda folder: written(folder / "x.onnx", b"no model"), "; wanted TorchScript, ONNX (.onnx) or FILE.py:FUNC"),
        (lambda folder: written(folder / "x.pt", b""), "cannot be loaded"),
        (lambda folder: weights(folder), "; wanted TorchScript, ONNX (.onnx) or FILE.py:FUNCTION"),
    ],
)
def test_a_model_that_cannot_be_a_teacher_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], str], told: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        asked(write(tmp_path))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


KINDS = """
import torch
from torch import nn
{above}
foreign = nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(45, 10))

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.network, self.count = foreign, 0
class Dropping(Base):
    def forward(self, images):
        return torch.dropout(self.network(images), 0.5, True)
class Counting(Base):
    def forward(self, images):
        self.count += 1
        return self.network(images) + self.count
class Batched(Base):
    def forward(self, images):
        return self.network(images - images.mean(dim=0))
class Odd(Base):
    def forward(self, images):
        return self.network(images), None
class Lost(Base):
    def forward(self, images):
        return self.network(images) / 0
class Leaving(Base):
    def forward(self, images):
        raise SystemExit

def {name}():
    {body}
"""


def python(folder: Path, body: str, *, name: str = "make", above: str = "") -> str:
    (folder / "mine.py").write_text(KINDS.format(body=body, name=name, above=above))
    return f"{folder}/mine.py:make"


def written(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return str(file)


def weights(folder: Path) -> str:
    """What many have in place of a model."""
    torch.save(foreign().state_dict(), folder / "state.pt")
    return str(folder / "state.pt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fyle: scripted.pt", "wanted a mapping with file in it"),
        ("file: scripted.pt\nlayuot: NHWC", "unknown key 'layuot'; did you mean layout?"),
        ("file: scripted.pt\nlayout: HWC", "layout: Input should be 'NCHW' or 'NHWC', given 'HWC'"),
        ("file: scripted.pt\nscores: points", "scores: Input should be 'probs', 'logits' or 'labels'"),
        ("file: scripted.pt\nanswers: top-zero", "answers 'top-zero': wanted labels, probs"),
        ("file: scripted.pt\nrange: [255, 0]", "range: wanted the lower bound first"),
        ("file: scripted.pt\nstd: 0", "greater than 0"),
        ("file: scripted.pt\nmean: []", "mean: List should have at least 1 item"),
        ("file: scripted.pt\nmean: [0.5, 0.5, 0.5]", "mean has 3 numbers: wanted 1 or 1"),
        ("file: scripted.pt\nscores: probs", "no probabilities: scores: logits, perhaps?"),
        ("file: scripted.pt\nscores: labels", "wanted labels of 10 classes"),
        ("file: scripted.pt\nfile: other.pt", "the key 'file' twice"),
        ("- scripted.pt", "wanted a mapping with"),
        ("file: none.pt", "none.pt"),
        ("file: mine.py", "wanted FILE.py:FUNCTION, a function that returns a module"),
        ("file: scripted.pt\nname: a/b", "name: String should match pattern"),
        ("file: {", "is not YAML"),
    ],
)
def test_a_description_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    scripted(foreign(), tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as refusal:
        asked(str(tmp_path / "mine.yaml"))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("none.pt", "none.pt cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("none.yaml", "black box none.yaml cannot be read: No such file or directory"),
        ("mine.py", "wanted FILE.py:FUNCTION, a function that returns a module"),
        ("other.yaml", "black box scripted-"),
        ("typo.yaml", "unknown key 'clases'; did you mean classes"),
    ],
)
def test_the_command_ends_with_2_and_one_line_for_a_teacher_that_is_none_and_leaves_nothing(
    tmp_path: Path, grid: str, capsys: pytest.CaptureFixture[str], given: str, told: str
) -> None:
    scripted(foreign(), tmp_path)
    (tmp_path / "other.yaml").write_text("file: scripted.pt\nclasses: 7\n")
    (tmp_path / "typo.yaml").write_text("file: scripted.pt\nclases: 7\n")
    (tmp_path / "mine.py").write_text("")
    before = {*tmp_path.rglob("*")}
    assert bench("run", "--grid", grid, "--teacher", given, *OFF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert {*tmp_path.rglob("*")} == before


def test_a_teacher_that_fails_at_its_examination_ends_the_command_with_2_and_leaves_nothing_to_go_on_from(
    tmp_path: Path, grid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = scripted(foreign(classes=7), tmp_path)
    assert bench("run", "--grid", grid, "--teacher", model, *OFF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "answers 4 images with (4, 7) of torch.float32: wanted scores of 10 classes" in line
    left = sorted(path.name for path in tmp_path.glob("runs/**/*") if path.is_file())
    assert left == ["claim.1", "lock", "run.json"]


# What a model is known by.


def hash_of(task: str, root: Path) -> str:
    return examined.examine(task_of(task), root, NO_DATA, CPU, lambda _: None).hash


@pytest.mark.parametrize("kind", WRITERS)
def test_another_content_is_another_teacher_and_another_folder_is_not(tmp_path: Path, kind: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    given = WRITERS[kind](foreign(), here)
    first = attached(given)
    cell = cell_of(first, tmp_path)
    shutil.move(here, there)
    moved = given.replace(str(here), str(there))
    assert attached(moved) == first
    assert cell_of(first, tmp_path) == cell
    WRITERS[kind](foreign(seed=1), there)
    other = attached(moved)
    assert other != first
    assert cell_of(other, tmp_path).teacher != cell.teacher
    assert cell_of(other, tmp_path).name() != cell.name()


def test_a_description_moved_with_its_file_is_the_same_teacher_and_one_that_says_otherwise_is_another(
    tmp_path: Path,
) -> None:
    names = []
    for folder, text in (("a", "range: [0, 1]"), ("b", "range: [0, 1]"), ("c", "range: [0, 2]"), ("d", "name: mine")):
        (tmp_path / folder).mkdir()
        scripted(foreign(), tmp_path / folder)
        (tmp_path / folder / "mine.yaml").write_text(f"file: scripted.pt\n{text}\n")
        names.append(name_of(read(str(tmp_path / folder / "mine.yaml"), ModelFile)))
    assert names[0] == names[1]
    assert len({*names}) == 3
    assert names[3].startswith("mine-")


def test_weights_that_lie_beside_an_onnx_file_are_part_of_what_it_is_known_by(tmp_path: Path) -> None:
    def write(seed: int) -> None:
        (tmp_path / "mine.bin").unlink(missing_ok=True)
        options = {"save_as_external_data": True, "location": "mine.bin", "size_threshold": 0}
        with torch.no_grad():
            onnx.save(onnx_graph(foreign(seed)), tmp_path / "mine.onnx", **options)

    names, hashes, contents = [], [], []
    for seed in (0, 1):
        write(seed)
        contents.append((tmp_path / "mine.onnx").read_bytes())
        names.append(attached(str(tmp_path / "mine.onnx")))
        hashes.append(hash_of(names[-1], tmp_path))
    assert contents[0] == contents[1], "else the weights are not beside it"
    assert names[0] != names[1]
    assert hashes[0] != hashes[1]


def test_what_a_python_file_imports_from_beside_it_is_part_of_what_it_is_known_by(tmp_path: Path) -> None:
    blob = "x" * 5000  # longer than a name can be
    (tmp_path / "mine.py").write_text(
        f"from parts import network\nBLOB = '{blob}'\ndef make():\n    return network()\n"
    )
    (tmp_path / "unused.py").write_text("")
    layers = (
        "from torch import nn\ndef network():\n    return nn.Sequential(nn.Flatten(), nn.{act}(), nn.Linear(64, 10))\n"
    )
    (tmp_path / "parts.py").write_text(layers.format(act="Tanh"))
    given = f"{tmp_path}/mine.py:make"
    first = name_of(read(given, ModelFile))
    (tmp_path / "unused.py").write_text("changed = True")
    assert name_of(read(given, ModelFile)) == first
    (tmp_path / "parts.py").write_text(layers.format(act="Sigmoid"))
    assert name_of(read(given, ModelFile)) != first


def test_weights_that_a_function_loads_from_anywhere_are_part_of_what_it_is_known_by(tmp_path: Path) -> None:
    away, here = tmp_path / "away", tmp_path / "here"
    away.mkdir()
    here.mkdir()
    (here / "mine.py").write_text(MAKES.format(weights=repr(str(away / "weights.pt"))))
    hashes = []
    for seed in (0, 1):
        torch.save(foreign(seed).state_dict(), away / "weights.pt")
        hashes.append(hash_of(attached(f"{here}/mine.py:make"), tmp_path))
    assert hashes[0] != hashes[1]


# Students.

STUDENT = """
from torch import nn

def small(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], {classes}))

def large(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, classes))

def failing(shape, classes):
    raise {error}
"""


def student(folder: Path, function: str = "small", classes: str = "classes", error: str = "OSError('no paper')") -> str:
    (folder / "nets.v1.py").write_text(STUDENT.format(classes=classes, error=error))
    return f"{folder}/nets.v1.py:{function}"


def test_a_student_of_ones_own_is_trained_and_stands_in_the_name_of_its_task(trained: Path, tmp_path: Path) -> None:
    curves = []
    ours = digits_cell(trained, "noise", 200)
    for task in (ours.task, *(attached("", student=student(tmp_path, function)) for function in ("small", "large"))):
        cell = Cell(task, "noise", ours.config, ours.budget, 0, ours.teacher)
        curves.append(curve_of(cell, trained))
        assert cell.identity()["task"] == task
    assert len({str(curve) for curve in curves}) == 3
    assert task.startswith("digits-lenet@nets-v1-")


def test_another_student_is_another_task_by_content_and_by_function_and_not_by_place(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    first = attached("", student=student(tmp_path))
    assert attached("", student=student(tmp_path / "there")) == first
    assert attached("", student=student(tmp_path, "large")) != first
    assert attached("", student=student(tmp_path, error="ValueError")) != first


@pytest.mark.parametrize(
    ("function", "changes", "told"),
    [
        ("small", {"classes": "7"}, "answers 2 images with (2, 7): wanted 2 x 10 logits"),
        ("failing", {}, "cannot be made for images of (1, 8, 8): OSError: no paper"),
        ("failing", {"error": "SystemExit(3)"}, "cannot be made for images of (1, 8, 8): SystemExit: 3"),
        ("none", {}, "has no function 'none'; wanted FILE.py:FUNCTION"),
    ],
)
def test_a_student_that_is_none_ends_the_command_with_2_and_one_line_and_leaves_nothing(
    tmp_path: Path,
    grid: str,
    capsys: pytest.CaptureFixture[str],
    function: str,
    changes: dict[str, str],
    told: str,
) -> None:
    given = student(tmp_path, function, **changes)
    before = {*tmp_path.rglob("*")}
    assert bench("run", "--grid", grid, "--student", given, *OFF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before


def test_a_teacher_and_a_student_of_ones_own_meet_on_images_of_ones_own(
    tmp_path: Path, grid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    draw(tmp_path / "pets", side=40)
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():  # the three classes are bright in the left, the middle and the right
        columns = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]])
        network[2].weight.copy_(20 * columns.repeat(1, 4))
        network[2].bias.zero_()
    model = tmp_path / "stripes.pt"
    torch.jit.trace(network, torch.rand(1, 1, 32, 32)).save(str(model))
    asked = [
        "--task",
        f"folder:{tmp_path / 'pets'}@lenet5,mlp",
        "--teacher",
        str(model),
        "--student",
        student(tmp_path),
    ]
    assert bench("run", "--grid", grid, *asked, "--isolate", *OFF) == 0
    cells = [path.parent for path in tmp_path.glob("runs/cells/*/done.json")]
    assert len(cells) == 2
    assert all(".noise." in cell.name and "@stripes-" in cell.name and "@nets-v1-" in cell.name for cell in cells)
    (box,) = tmp_path.glob("runs/boxes/*/box.json")
    assert read_json(box)["record"]["test_accuracy"] == 1.0
    assert not list((tmp_path / "runs").glob("teachers/*")), "a teacher of ours was trained"
