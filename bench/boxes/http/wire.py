"""Images on their way to an endpoint and its answers on their way back, as the endpoint's description says."""

import base64
import io
import json
import os
import re
from typing import Any

import httpx
import jmespath
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.boxes.described import PICTURES, Endpoint
from bench.errors import UsageError

VARIABLE = re.compile(r"\$\{(\w+)\}")
SECRET = 4  # characters that the value of a header has at least, if it is to be kept secret
# What a description meets that does not fit an answer.
MISFITS = (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError)


class Garbage(Exception):
    """An answer that is none; the message says in what way, and may quote all of it."""


def headers_of(box: Endpoint) -> dict[str, str]:
    """The headers with the environment's values in them; UsageError for a variable that is not set."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UsageError(
                f"black box {box.base}: a header wants the environment variable {match[1]}, which is not set"
            )
        return os.environ[match[1]].strip()  # of the newline of a file that it came from

    found = {name: VARIABLE.sub(value, text) for name, text in box.headers.items()}
    for name, text in found.items():
        if not (text.isascii() and text.isprintable()):
            raise UsageError(f"black box {box.base}: header {name} has characters that no header may have")
    return found


def secrets_of(box: Endpoint, headers: dict[str, str]) -> list[str]:
    """What no message may show: each header's value, and what of it stands in the environment; the longest first."""
    names = [name for text in box.headers.values() for name in VARIABLE.findall(text)]
    values = {*headers.values(), *(os.environ[name].strip() for name in names)}
    written = {json.dumps(value)[1:-1] for value in values}  # as an answer in JSON has it
    return sorted((value for value in values | written if len(value) >= SECRET), key=len, reverse=True)


def address(box: Endpoint, template: str) -> str:
    """The URL that a template of the description means; UsageError where it means none."""
    found = template.replace("{base}", box.base.rstrip("/")).replace("{model}", box.model)
    try:
        parts = httpx.URL(found)
    except httpx.InvalidURL as error:
        raise UsageError(f"black box {found}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UsageError(f"black box {found}: wanted an address such as http://127.0.0.1:8080")
    return found


def request(box: Endpoint, images: Tensor, id: str, classes: int) -> dict[str, Any]:
    """What httpx is to send for float images N x C x H x W in [0, 1]."""
    arrays = as_sent(box, images)
    if box.form:
        files = {name: _filled(text, arrays, box, id, classes) for name, text in box.form.items()}
        return {"files": {name: ("image.png", part, "image/png") for name, part in files.items()}}
    if box.body is None:
        return {"content": _encoded(arrays, box)[0], "headers": {"Content-Type": "image/png"}}
    return {"json": _filled(box.body, arrays, box, id, classes)}


def as_sent(box: Endpoint, images: Tensor) -> np.ndarray[Any, Any]:
    """The images as numbers of the range and the layout that the endpoint takes, float32 or uint8."""
    low, high = box.range
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (box.mean, box.std))
    moved = ((images.cpu() * (high - low) + low) - mean) / std
    laid = moved if box.layout == "NCHW" else moved.permute(0, 2, 3, 1)
    if box.images.encoding in PICTURES:
        laid = (
            images.cpu().permute(0, 2, 3, 1).mul(255).round().to(torch.uint8)
        )  # as pictures are, whatever else is said
    return np.ascontiguousarray(laid.numpy())


def answers(box: Endpoint, response: httpx.Response, n: int, classes: int) -> tuple[Tensor, str]:
    """Probabilities n x K, NaN where none is revealed, or top-1 classes of n, and the version of the model; Garbage for
    what is no such answer."""
    try:
        content = json.loads(response.content)
        return _found(box, content, n, classes), version_in(box, content)
    except MISFITS as error:
        raise Garbage(f"no answer as described but {response.text}") from error


def _found(box: Endpoint, content: Any, n: int, classes: int) -> Tensor:
    if box.answer.labels:
        return _labels(jmespath.search(box.answer.labels, content), box, n, classes)
    if box.answer.pairs:
        return checked(_paired(jmespath.search(box.answer.pairs, content), box, n, classes), box, n, classes)
    return checked(_numbers(jmespath.search(box.answer.scores, content), n), box, n, classes)


def version_in(box: Endpoint, content: Any) -> str:
    """The version of the model that an answer names, or nothing."""
    found = jmespath.search(box.answer.version, content) if box.answer.version else None
    return "" if found is None else str(found)


def checked(scores: Tensor, box: Endpoint, n: int, classes: int) -> Tensor:
    """Scores as probabilities; Garbage where they are not what the description promises."""
    if tuple(scores.shape) != (n, classes):
        raise Garbage(f"scores of shape {tuple(scores.shape)}, wanted {n} x {classes}")
    whole = box.answers in ("probs", "labels") or box.answers.startswith("round")
    if scores.isinf().any() or (whole and scores.isnan().any()):
        raise Garbage("scores that are no finite numbers")
    if box.scores == "logits":
        return scores.softmax(dim=1)
    scores = scores / box.answer.scale
    sums, loose = scores.nansum(dim=1), 0.05 if box.answers.startswith("round") else 0.01
    if scores.nan_to_num().min() < -loose or sums.max() > 1 + loose or (whole and sums.min() < 1 - loose):
        raise Garbage(f"scores that add up to {sums.min():.3g} to {sums.max():.3g}, wanted probabilities")
    return scores


def _labels(found: Any, box: Endpoint, n: int, classes: int) -> Tensor:
    found = found if isinstance(found, list) else [found]
    if len(found) != n:
        raise Garbage(f"{len(found)} labels, wanted {n}")
    return torch.tensor([_class(label, box, classes) for label in found])


def _class(label: Any, box: Endpoint, classes: int) -> int:
    """The number of a class that the endpoint gives by number or by name."""
    if isinstance(box.classes, list) and label in box.classes:
        return box.classes.index(label)
    if isinstance(label, int | float) and label == int(label) and 0 <= label < classes:
        return int(label)
    raise Garbage(f"a label {label!r}, which is no class; `classes` lists their names")


def _paired(found: Any, box: Endpoint, n: int, classes: int) -> Tensor:
    rows = found if found and isinstance(found, list) and isinstance(found[0], list) else [found]
    if len(rows) != n or not all(isinstance(row, list) for row in rows):
        raise Garbage(f"{len(rows)} lists of labels and scores, wanted {n}")
    scores = torch.full((n, classes), torch.nan)
    for place, row in enumerate(rows):
        for pair in row:
            label, score = jmespath.search(box.answer.label, pair), jmespath.search(box.answer.score, pair)
            if not isinstance(score, int | float):
                raise Garbage(f"a score {score!r}, which is no number")
            scores[place, _class(label, box, classes)] = score
    return scores


def _numbers(found: Any, n: int) -> Tensor:
    if isinstance(found, list) and n == 1 and found and not isinstance(found[0], list):
        found = [found]
    try:
        return torch.tensor(found, dtype=torch.float32)
    except MISFITS as error:
        raise Garbage(f"no table of scores where the description says there is one but {found}") from error


def _filled(template: Any, arrays: np.ndarray[Any, Any], box: Endpoint, id: str, classes: int) -> Any:
    """The template with what $images and the others stand for."""
    if isinstance(template, dict):
        return {key: _filled(value, arrays, box, id, classes) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, arrays, box, id, classes) for value in template]
    known: dict[Any, Any] = {
        "$images": lambda: _encoded(arrays, box),
        "$image": lambda: _encoded(arrays, box)[0],
        "$id": lambda: id,
        "$n": lambda: len(arrays),
        "$shape": lambda: list(arrays.shape),
        "$classes": lambda: classes,
    }
    return known[template]() if isinstance(template, str) and template in known else template


def _encoded(arrays: np.ndarray[Any, Any], box: Endpoint) -> Any:
    """The images as nested numbers, as one flat list, or each as a PNG."""
    if box.images.encoding == "nested":
        return arrays.tolist()
    if box.images.encoding in ("flat", "binary"):
        return arrays.ravel().tolist()
    pictures = [_png(array) for array in arrays]
    return [base64.b64encode(png).decode() for png in pictures] if box.images.encoding == "base64" else pictures


def _png(array: np.ndarray[Any, Any]) -> bytes:
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()
