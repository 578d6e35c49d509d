"""Models in files that others wrote, as black boxes: TorchScript, ONNX, or a Python function that makes a module."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.boxes.described import ModelFile, Scores
from bench.boxes.teachers import content_hash
from bench.errors import UsageError, told
from bench.python_file import function_in

Shape = tuple[int, int, int]
Ask = Callable[[Tensor], Tensor]
TRIED = 4  # images with which a model is tried
SUM = 1e-3  # by which probabilities may miss 1


def opened(box: ModelFile, shape: Shape, classes: int, device: torch.device) -> tuple[Ask, str]:
    """The model as an oracle sees it, and a hash of its content.

    Images N x C x H x W in [0, 1] -> probabilities N x K or top-1 classes of N, as its answers are. UsageError for a
    file that cannot be loaded, and for a model that does not take such images or give such answers.
    """
    model, content = _loaded(box, device)
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (box.mean, box.std))
    low, high = box.range

    def raw(images: Tensor) -> Tensor:
        scaled = ((images * (high - low) + low) - mean) / std
        with torch.no_grad():
            answered: Tensor = model(scaled if box.layout == "NCHW" else scaled.permute(0, 2, 3, 1).contiguous())
        return answered

    scores = _tried(raw, box, shape, classes, device)

    def ask(images: Tensor) -> Tensor:
        answered = raw(images)
        return answered.float().softmax(dim=1) if scores == "logits" else answered

    return ask, content


def _loaded(box: ModelFile, device: torch.device) -> tuple[Ask, str]:
    file = box.file
    if not file.is_file():
        raise UsageError(f"model {file}: there is no such file")
    try:
        if box.function:
            return _python(box, device)
        if file.suffix == ".onnx":
            return _onnx(file, device), _sha256(file)
        return _torchscript(file, device), _sha256(file)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"model {file} cannot be loaded: {told(error)}") from error


def _torchscript(file: Path, device: torch.device) -> Ask:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather have torch.export
        model: nn.Module = torch.jit.load(str(file), map_location=device).eval()
    return model


def _onnx(file: Path, device: torch.device) -> Ask:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(f"model {file}: onnxruntime is not here; pip install 'blackbox-bench[onnx]'") from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    [given, *_], [wanted, *_] = session.get_inputs(), session.get_outputs()

    def model(images: Tensor) -> Tensor:
        [answered] = session.run([wanted.name], {given.name: images.float().cpu().numpy()})
        return torch.from_numpy(answered).to(device)

    return model


def _python(box: ModelFile, device: torch.device) -> tuple[Ask, str]:
    """What FILE.py:FUNCTION makes. Its hash is that of the file and of the weights, wherever those are from."""
    made: Any = function_in(box.file, box.function)
    model = made()
    if not isinstance(model, nn.Module):
        raise UsageError(f"{box.file}:{box.function} gives a {type(model).__name__}: wanted a torch module")
    return model.eval().requires_grad_(False).to(device), f"{_sha256(box.file)} {content_hash(model)}"


def _tried(raw: Ask, box: ModelFile, shape: Shape, classes: int, device: torch.device) -> Scores:
    """What the model's answers are, seen on one batch; UsageError where they are not as wanted."""
    name, wanted = box.file, " x ".join(map(str, shape))
    images = torch.rand(TRIED, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        answered, again = raw(images), raw(images)
    except Exception as error:
        raise UsageError(f"model {name} does not take images of {wanted}, {box.layout}: {told(error)}") from error
    if not isinstance(answered, Tensor):
        raise UsageError(f"model {name} answers with a {type(answered).__name__}: wanted a tensor")
    if not torch.equal(answered, again):
        raise UsageError(f"model {name} answers the same images differently: is it in eval mode?")
    return scores_of(answered, TRIED, classes, box.scores, f"model {name}")


def scores_of(answered: Tensor, n: int, classes: int, declared: Scores | None, what: str) -> Scores:
    """What the answers to n images are, as declared or as they look; UsageError where they cannot be that."""
    if tuple(answered.shape) == (n,) and not answered.is_floating_point() and declared in (None, "labels"):
        return "labels"
    if tuple(answered.shape) != (n, classes) or not answered.is_floating_point() or declared == "labels":
        told = f"{tuple(answered.shape)} of {answered.dtype}"
        raise UsageError(f"{what} answers {n} images with {told}: wanted {declared or 'scores'} of {classes} classes")
    sums = bool((answered.sum(dim=1) - 1).abs().max() <= SUM) and bool(answered.min() >= -SUM)
    if declared == "probs" and not sums:
        raise UsageError(f"{what} answers with numbers that are no probabilities: scores: logits, perhaps?")
    return declared or ("probs" if sums else "logits")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
