"""The Open Inference Protocol, version 2, with tensors as JSON or as bytes after it.

https://github.com/kserve/open-inference-protocol, and Triton's binary extension.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import torch
from torch import Tensor

from bench.boxes.described import Endpoint
from bench.boxes.http.wire import MISFITS, Garbage, as_sent, checked
from bench.errors import UsageError

TYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT32": "<i4", "UINT8": "u1"}
LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Model:
    """What the endpoint says of its model. taken, given: names of the input and the output tensor."""

    name: str
    version: str
    taken: str
    datatype: str
    given: str


def model_of(metadata: Any, what: str) -> Model:
    """The model that metadata describes; UsageError for one that takes or gives more than one tensor, or odd ones."""
    try:
        [taken], [given] = metadata["inputs"], metadata["outputs"]
        version = str((metadata.get("versions") or [""])[-1])
        model = Model(str(metadata["name"]), version, str(taken["name"]), str(taken["datatype"]), str(given["name"]))
    except MISFITS as error:
        raise UsageError(f"{what}: its metadata do not name one input and one output tensor") from error
    if model.datatype not in TYPES:
        raise UsageError(f"{what}: it takes {model.datatype}, known: {', '.join(TYPES)}")
    return model


def request(box: Endpoint, model: Model, images: Tensor, id: str) -> dict[str, Any]:
    """What httpx is to send: the images as bytes after a JSON header, or as a flat list in it."""
    array = as_sent(box, images)
    if model.datatype == "UINT8":
        array = np.ascontiguousarray((images.cpu() * 255).round().to(torch.uint8).numpy())
    tensor: dict[str, Any] = {"name": model.taken, "shape": list(array.shape), "datatype": model.datatype}
    output: dict[str, Any] = {"name": model.given}
    whole = {"id": id, "inputs": [tensor], "outputs": [output]}
    if box.images.encoding != "binary":
        tensor["data"] = array.ravel().tolist()
        return {"json": whole}
    content = array.astype(TYPES[model.datatype]).tobytes()
    tensor["parameters"] = {"binary_data_size": len(content)}
    output["parameters"] = {"binary_data": True}
    header = json.dumps(whole).encode()
    kinds = {LENGTH: str(len(header)), "Content-Type": "application/octet-stream"}
    return {"content": header + content, "headers": kinds}


def answers(box: Endpoint, response: httpx.Response, id: str, n: int, classes: int) -> tuple[Tensor, str]:
    """Probabilities n x K or top-1 classes of n, and the version of the model; Garbage for what is no such answer."""
    try:
        length = int(response.headers.get(LENGTH, len(response.content)))
        content = json.loads(response.content[:length])
        [output] = content["outputs"]
        kind, shape = TYPES[output["datatype"]], [int(side) for side in output["shape"]]
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            array = np.array(output["data"], dtype=kind).reshape(shape)
        else:
            array = np.frombuffer(response.content[length : length + size], dtype=kind).reshape(shape)
    except MISFITS as error:
        raise Garbage(f"no answer of this protocol but {response.text}") from error
    if content.get("id") not in (None, id):
        raise Garbage(f"the answer to another request, {content['id']!r}")
    found = torch.from_numpy(array.copy())
    version = str(content.get("model_version") or "")
    if not found.is_floating_point():
        return _labels(found, n, classes), version
    return checked(found.float(), box, n, classes), version


def _labels(found: Tensor, n: int, classes: int) -> Tensor:
    if found.numel() != n or found.min() < 0 or found.max() >= classes:
        raise Garbage(f"labels of shape {tuple(found.shape)}, wanted {n} below {classes}")
    return found.view(n).long()
