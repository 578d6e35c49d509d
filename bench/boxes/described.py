"""Black boxes that are not trained here: what is said of each, and the tasks that are made of them.

A description comes from the command line (`--teacher FILE`, `--blackbox URL`) or from a YAML file given in its place.
"""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from torch import nn

from bench import strict_yaml
from bench.errors import UsageError, one_line, told, unknown
from bench.python_file import function_in
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.networks import NETWORKS, build
from bench.tasks.table import TASKS, Task, task_of
from budgets import Inputs, kind_of
from budgets.answers import covers
from results.store import digest

Layout = Literal["NCHW", "NHWC"]
Scores = Literal["probs", "logits", "labels"]
ADAPTERS = Path(__file__).parent / "http" / "adapters"
DEFAULT = "oip2"  # the adapter of a bare URL
MARK = "@"  # between the name of a task and that of the black box that stands for its teacher


def _answers(given: str) -> str:
    kind_of(given)
    return given


Answers = Annotated[str, AfterValidator(_answers)]


def _list(given: Any) -> Any:
    return [given] if isinstance(given, int | float) else given


def _bounds(given: tuple[float, float]) -> tuple[float, float]:
    if not given[0] < given[1]:
        raise ValueError("wanted the lower bound first")
    return given


def _address(given: str) -> str:
    if not given.startswith(("http://", "https://")):
        raise ValueError(f"{given!r}: wanted an address such as http://127.0.0.1:8080")
    return given


class Described(BaseModel, frozen=True, extra="forbid"):
    """Any black box from elsewhere.

    name: as figures show it. shape, classes: of its images and answers, those of the task if not given; classes may be
    the list of their names, in the order of the task's. layout, range: of the images that it takes. mean, std: what
    these are lessened and divided by, one number or one a channel. scores: what its answers are. answers: what they
    reveal at most. inputs: `uint8`, if it takes images of 8 bits only. agreement: whether its answers on the test
    images are asked for, so that students can be compared with it.
    """

    name: str = Field("", pattern=r"^[A-Za-z0-9_-]*$")
    shape: tuple[int, int, int] | None = None
    classes: int | list[str] | None = None
    layout: Layout = "NCHW"
    range: Annotated[tuple[float, float], AfterValidator(_bounds)] = (0.0, 1.0)
    mean: Annotated[list[float], BeforeValidator(_list)] = Field([0.0], min_length=1)
    std: Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(_list)] = Field([1.0], min_length=1)
    scores: Scores | None = None
    answers: Answers = "probs"
    inputs: Inputs = "float"
    agreement: bool = True

    def nature(self) -> dict[str, Any]:
        """All that its answers depend on, as far as its description tells."""
        return self.model_dump(mode="json")


class ModelFile(Described):
    """A model in a file: TorchScript, ONNX (.onnx), or file.py:FUNCTION, where the function returns a module."""

    file: Path
    function: str = ""

    def nature(self) -> dict[str, Any]:
        return {**super().nature(), "file": content_of(self.file), "function": self.function}


PICTURES = ("png", "base64")  # ways to write images that have 8 bits for each channel


class Images(BaseModel, frozen=True, extra="forbid"):
    """How images are written into a request: nested numbers, a flat list of them, PNG, or PNG in base64."""

    encoding: Literal["nested", "flat", "png", "base64", "binary"] = "nested"


class Answer(BaseModel, frozen=True, extra="forbid"):
    """Where the answer stands in a response, each a JMESPath expression.

    scores: a row of numbers an image; one row alone will do for a single image. labels: the top-1 classes, numbers or
    names. pairs: for each image a list of mappings with a `label` and a `score`. scale: what scores are divided by.
    version: that of the model.
    """

    scores: str = ""
    labels: str = ""
    pairs: str = ""
    label: str = "label"
    score: str = "score"
    scale: float = Field(1.0, gt=0)
    version: str = ""


class Endpoint(Described):
    """A model behind a URL.

    url, health: templates with {base} and {model}. base: the address. headers: with ${NAME} for what stands in an
    environment variable. body: a JSON value in which $images, $image, $id, $n, $shape and $classes stand for those; or
    `form`: the fields of a form whose values are such; else the image itself is the body. batch: images in a request at
    most. concurrency: requests at once. rate: requests a second, 0 for as many as there are. retries: further attempts
    of what may be charged. timeout: seconds. patience: seconds for which what is refused is tried again. price: of
    1,000 queries. limit: most money to spend.
    """

    base: Annotated[str, AfterValidator(_address)]
    adapter: str = "custom"
    model: str = ""
    url: str = "{base}"
    method: Literal["POST", "PUT"] = "POST"
    health: str = ""
    headers: dict[str, str] = {}
    body: Any = None
    form: dict[str, str] = {}
    images: Images = Images()
    answer: Answer = Answer()
    batch: int = Field(1000, ge=1)
    concurrency: int = Field(4, ge=1, le=256)
    rate: float = Field(0.0, ge=0)
    retries: int = Field(5, ge=0)
    timeout: float = Field(60.0, gt=0)
    patience: float = Field(60.0, gt=0)
    price: float = Field(0.0, ge=0)
    currency: str = "USD"
    limit: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _in_8_bits(self) -> "Endpoint":
        if self.images.encoding in PICTURES and self.inputs != "uint8":
            raise ValueError(
                f"images.encoding {self.images.encoding}: wanted with inputs: uint8, which is what it sends"
            )
        return self

    @model_validator(mode="after")
    def _priced(self) -> "Endpoint":
        if self.limit is not None and not self.price:
            raise ValueError("limit: wanted with a price, which says when it is reached")
        return self

    def nature(self) -> dict[str, Any]:
        # Neither where it is nor how it is treated decides what it answers.
        return {key: value for key, value in super().nature().items() if key not in MANNERS}


MANNERS = {"base", "headers", "concurrency", "rate", "retries", "timeout", "patience", "price", "currency", "limit"}
Box = ModelFile | Endpoint
BOXES: dict[str, Box] = {}  # name of a teacher -> the black box that it is


def read(given: str, kind: type[Box], **options: Any) -> Box:
    """The black box that a command names: a model file or a URL, or a YAML file that describes one.

    options: of the command line; None says nothing. UsageError for what does not exist and for what cannot be meant.
    """
    key = "file" if kind is ModelFile else "base"
    content, folder = {key: given}, Path()
    if given.endswith((".yaml", ".yml")):
        content, folder = strict_yaml.read(Path(given), "black box", kind.model_fields), Path(given).parent
        if key not in content:
            raise UsageError(f"black box {given}: wanted a mapping with {key} in it")
    content |= {name: value for name, value in options.items() if value is not None}
    content = _with_adapter(content) if kind is Endpoint else {**content, **_file(str(content["file"]), folder)}
    try:
        return kind(**content)
    except ValidationError as error:
        raise UsageError(f"black box {given}: {one_line(error, kind.model_fields)}") from error


@dataclass(frozen=True)
class Attached:
    """A task whose teacher is a black box from elsewhere, whose student is a network from elsewhere, or both.

    task: a name in TASKS. student: FILE.py:FUNCTION, where the function makes a network of shape and classes.
    """

    task: str
    box: Box | None = None
    student: str = ""

    @property
    def name(self) -> str:
        """The name of the task that it makes."""
        box = [name_of(self.box)] if self.box else []
        student = [_student_name(self.student)] if self.student else []
        return MARK.join([self.task, *box, *student])


def attach(attached: Attached) -> None:
    """Put the task that it makes into TASKS, its box into BOXES and its network into NETWORKS.

    UsageError where box or network are of other images or other classes than the task.
    """
    task, box = task_of(attached.task), attached.box
    if box:
        _check_fit(box, attached.task, task)
        BOXES[name_of(box)] = box
        task = replace(task, teacher=name_of(box))
    if attached.student:
        name, source = _student_name(attached.student), sources.source_of(task.dataset)
        NETWORKS[name] = _network_of(attached.student)
        _check_network(name, attached.student, source.shape, source.classes)
        task = replace(task, student=name)
    TASKS[attached.name] = task


def _network_of(student: str) -> Callable[[networks.Shape, int], nn.Module]:
    found = _file(student, Path())
    make: Callable[[networks.Shape, int], nn.Module] = function_in(found["file"], found["function"])
    return make


def _check_network(name: str, student: str, shape: networks.Shape, classes: int) -> None:
    """UsageError where it is no network from such images to so many logits."""
    try:
        network = build(name, shape, classes)
        with torch.no_grad():
            given = tuple(network.eval()(torch.zeros(2, *shape)).shape)
    except (Exception, SystemExit) as error:
        raise UsageError(f"student {student} cannot be made for images of {shape}: {told(error)}") from error
    if given != (2, classes):
        raise UsageError(f"student {student} answers 2 images with {given}: wanted 2 x {classes} logits")


def _student_name(student: str) -> str:
    found = _file(student, Path())
    content = digest(f"{content_of(found['file'])} {found['function']}")
    return f"{_readable(found['file'].stem)}-{content[:8]}"


def _check_fit(box: Box, name: str, task: Task) -> None:
    source = sources.source_of(task.dataset)
    classes = len(box.classes) if isinstance(box.classes, list) else box.classes
    for what, own, wanted in (("images", box.shape, source.shape), ("classes", classes, source.classes)):
        if own is not None and own != wanted:
            raise UsageError(f"black box {name_of(box)} has {what} {own}, but task {name} has {wanted}")


def box_of(task: Task) -> Box | None:
    """The black box from elsewhere that is the task's teacher, or None for a teacher of ours."""
    return BOXES.get(task.teacher)


def name_of(box: Box) -> str:
    """A name that no two boxes have, if they could answer differently."""
    own = box.name or (box.file.stem if isinstance(box, ModelFile) else box.model or box.adapter)
    return f"{_readable(own)}-{digest(repr(sorted(box.nature().items())))[:8]}"


def _readable(own: str) -> str:
    """A name as those of tasks and folders may hold it."""
    return "".join(letter if letter.isalnum() else "-" for letter in own.lower()).strip("-") or "box"


def offers(box: Box, reveals: str, answers: str, inputs: Inputs) -> str | None:
    """Why the box cannot be asked under such terms, or None.

    reveals: what its answers were when it was examined; before that, what its description says.
    """
    if box.inputs != inputs and box.inputs == "uint8":
        return "the black box takes images of 8 bits; a grid with inputs: [uint8] sends such"
    least = next((offered for offered in (reveals, box.answers) if not covers(offered, answers)), None)
    return f"the black box reveals {least} at most" if least else None


def _with_adapter(content: dict[str, Any]) -> dict[str, Any]:
    """The description of an endpoint, with what its adapter says where it says nothing itself."""
    name = str(content.get("adapter", DEFAULT))
    file = ADAPTERS / f"{name}.yaml"
    if not file.exists():
        raise unknown("adapter", name, [path.stem for path in ADAPTERS.glob("*.yaml")])
    return {**strict_yaml.read(file, "adapter", Endpoint.model_fields), **content, "adapter": name}


def _file(given: str, folder: Path) -> dict[str, Any]:
    """FILE or FILE.py:FUNCTION, the first relative to the folder."""
    path, separator, function = given.rpartition(":")
    if not (separator and path.endswith(".py")):
        path, function = given, ""
    if path.endswith(".py") and not function:
        raise UsageError(f"model {given}: wanted FILE.py:FUNCTION, a function that returns a module")
    return {"file": (folder / path).resolve(), "function": function}


def content_of(file: Path) -> str:
    """A hash of a file, and of those beside it that it names: weights that it loads, modules that it imports."""
    own = _sha256(file)
    others = [f"{path.name} {_sha256(path)}" for path in _named_in(file)]
    return digest(" ".join([own, *others])) if others else own


def _named_in(file: Path) -> list[Path]:
    if file.suffix not in {".py", ".onnx"}:
        return []
    content = file.read_bytes()
    if file.suffix == ".onnx":  # the name of a file with weights stands behind `location` and its own length
        starts = (match.end() for match in re.finditer(rb"\x0a\x08location\x12", content))
        names = {content[start + 1 : start + 1 + content[start]] for start in starts if start < len(content)}
    else:
        imported = re.findall(rb"^\s*(?:from|import)\s+(\w+)", content, re.MULTILINE)
        names = {*re.findall(rb"[\w.-]{1,255}", content), *(name + b".py" for name in imported)}
    found = {file.parent / os.fsdecode(name) for name in names if name.strip(b".") and b"\0" not in name}
    return sorted(path for path in found if path.is_file() and path != file)


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
