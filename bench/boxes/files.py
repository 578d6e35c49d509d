"""Models in files that others wrote, as black boxes: TorchScript, ONNX, or a Python function that makes a module."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.boxes.described import ModelFile, Scores, content_of
from bench.boxes.teachers import content_hash
from bench.errors import UsageError, told
from bench.python_file import function_in

Shape = tuple[int, int, int]
Ask = Callable[[Tensor], Tensor]
TRIED = 4  # images with which a model is tried
SUM = 1e-3  # by which probabilities may miss 1
ALONE = 1e-2  # by which the answer to an image may differ from that to the same among others


def opened(box: ModelFile, shape: Shape, classes: int, device: torch.device) -> tuple[Ask, str]:
    """The model as an oracle sees it, and a hash of its content.

    Images N x C x H x W in [0, 1] -> probabilities N x K or top-1 classes of N, as its answers are. UsageError for a
    file that cannot be loaded, and for a model that does not take such images or give such answers.
    """
    for name, values in (("mean", box.mean), ("std", box.std)):
        if len(values) not in {1, shape[0]}:
            raise UsageError(f"model {box.file}: {name} has {len(values)} numbers: wanted 1 or {shape[0]}")
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
        if scores == "labels":
            return _known(answered.long(), classes, box.file)
        return answered.float().softmax(dim=1) if scores == "logits" else answered.float()

    return ask, content


def _known(labels: Tensor, classes: int, file: Path) -> Tensor:
    """The labels, if all are those of classes."""
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            raise UsageError(f"model {file} answers with class {label.item()}: wanted 0 to {classes - 1}")
    return labels


def _loaded(box: ModelFile, device: torch.device) -> tuple[Ask, str]:
    file = box.file
    if not file.is_file():
        raise UsageError(f"model {file}: there is no such file")
    try:
        if box.function:
            return _python(box, device)
        return (_onnx if file.suffix == ".onnx" else _torchscript)(file, device), content_of(file)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        wanted = "" if box.function else "; wanted TorchScript, ONNX (.onnx) or FILE.py:FUNCTION"
        raise UsageError(f"model {file} cannot be loaded: {told(error)}{wanted}") from error


def _torchscript(file: Path, device: torch.device) -> Ask:
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # torch would rather have torch.export
            warnings.simplefilter("ignore", kind)
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
    with suppress(NotImplementedError):  # of what torch.export has made, which is in the mode in which it was made
        model.eval()
    return model.to(device), f"{content_of(box.file)} {content_hash(model)}"


def _tried(raw: Ask, box: ModelFile, shape: Shape, classes: int, device: torch.device) -> Scores:
    """What the model's answers are, seen on one batch; UsageError where they are not as wanted."""
    name, wanted = box.file, " x ".join(map(str, shape))
    images = torch.rand(TRIED, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        answered, again, alone = raw(images), raw(images), raw(images[:1])
    except (Exception, SystemExit) as error:
        raise UsageError(f"model {name} does not take images of {wanted}, {box.layout}: {told(error)}") from error
    if not isinstance(answered, Tensor):
        raise UsageError(f"model {name} answers with a {type(answered).__name__}: wanted a tensor")
    scores = scores_of(answered, TRIED, classes, box.scores, f"model {name}")
    if not torch.equal(answered, again):
        raise UsageError(f"model {name} answers the same images differently: is it in eval mode?")
    near = torch.equal if scores == "labels" else partial(torch.allclose, rtol=ALONE, atol=ALONE)
    if alone.shape != answered[:1].shape or not near(alone, answered[:1]):
        raise UsageError(f"model {name} answers an image otherwise when it is alone: is it in eval mode?")
    return scores


def scores_of(answered: Tensor, n: int, classes: int, declared: Scores | None, what: str) -> Scores:
    """What the answers to n images are, as declared or as they look; UsageError where they cannot be that."""
    if tuple(answered.shape) == (n,) and not answered.is_floating_point() and declared in (None, "labels"):
        return "labels"
    if tuple(answered.shape) != (n, classes) or not answered.is_floating_point() or declared == "labels":
        told = f"{tuple(answered.shape)} of {answered.dtype}"
        raise UsageError(f"{what} answers {n} images with {told}: wanted {declared or 'scores'} of {classes} classes")
    if not answered.isfinite().all():
        raise UsageError(f"{what} answers with numbers that are not finite")
    sums = bool((answered.sum(dim=1) - 1).abs().max() <= SUM) and bool(answered.min() >= -SUM)
    if declared == "probs" and not sums:
        raise UsageError(f"{what} answers with numbers that are no probabilities: scores: logits, perhaps?")
    return declared or ("probs" if sums else "logits")
