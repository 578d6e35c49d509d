"""A network behind the Open Inference Protocol, version 2, over REST: plain JSON, or Triton's binary tensor extension.

An app of our own, since MLServer and KServe bring more than thirty packages, kubernetes, kafka and grpc among them, and
hold pandas and starlette back. A model behind MLflow's own scoring server stands beside it.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md
"""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor, nn

from bench.errors import one_line

REVEALS = {"probs": "FP32", "labels": "INT64"}  # what an answer reveals, which names its tensor, and its datatype
# Datatypes of images, each with what white is.
TAKEN: dict[str, tuple[np.dtype[Any], int]] = {"FP32": (np.dtype("<f4"), 1), "UINT8": (np.dtype("u1"), 255)}
INPUT = "images"
LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "model_repository"]
KEPT = 10_000  # answers that are remembered by the id of their request
KEPT_BYTES = 2**28  # of all of them together
LONGEST = 26  # characters of a number in JSON, with its comma and its share of the brackets
MOST_BYTES = 2**29  # of a body, however many images it may have

Array = np.ndarray[Any, Any]


def app(
    answer: Callable[[Tensor], Tensor],
    name: str,
    version: str,
    shape: tuple[int, int, int],
    classes: int,
    reveal: str = "probs",
    most_images: int = 4096,
) -> FastAPI:
    """The server of one model; answer: float32 images N x C x H x W in [0, 1] -> probabilities N x K.

    A request that bears an id is answered once: sent again, it gets what it got, and is not counted. most_images: of a
    request. An error is {"error": LINE} with 400, 404, 409 (another request had that id), 413 or 415.
    """
    service = _Service(answer, _Model(name, version, shape, classes, reveal, most_images))
    model = APIRouter(dependencies=[Depends(service.check_name)])
    model.add_api_route("", service.describe_model)
    model.add_api_route("/ready", service.say_model_is_ready)
    model.add_api_route("/infer", service.infer, methods=["POST"])
    server = FastAPI(title=name, docs_url=None, redoc_url=None, openapi_url=None)
    for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        server.include_router(model, prefix=prefix)
    server.add_api_route("/v2", service.describe_server)
    server.add_api_route("/v2/health/live", service.say_it_is_live)
    server.add_api_route("/v2/health/ready", service.say_it_is_live)
    server.add_api_route("/v2/repository/index", service.list_models, methods=["POST"])
    server.add_api_route("/count", service.tell_count)
    for kind in (HTTPException, Exception):
        server.add_exception_handler(kind, _tell_error)
    return server


@dataclass(frozen=True)
class _Model:
    """What is served."""

    name: str
    version: str
    shape: tuple[int, int, int]
    classes: int
    reveal: str
    most_images: int

    @property
    def most_bytes(self) -> int:
        """Of a body: what the most images take in JSON, the longest way to write them."""
        return min(self.most_images * prod(self.shape) * LONGEST + 2**16, MOST_BYTES)

    def metadata(self) -> dict[str, Any]:
        answered = [-1, self.classes] if self.reveal == "probs" else [-1]
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "pytorch",
            "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *self.shape]}],
            "outputs": [{"name": self.reveal, "datatype": REVEALS[self.reveal], "shape": answered}],
        }


# Clients write null where they have nothing to say.
_Parameters = Annotated[dict[str, Any], BeforeValidator(lambda given: {} if given is None else given)]


class _Input(BaseModel, frozen=True, strict=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = {}
    data: Any = None


class _Output(BaseModel, frozen=True, strict=True):
    name: str
    parameters: _Parameters = {}


class _Header(BaseModel, frozen=True, strict=True):
    """The JSON of a request."""

    id: str | None = None
    parameters: _Parameters = {}
    inputs: list[_Input]
    outputs: list[_Output] | None = None


@dataclass(frozen=True)
class _Asked:
    """A request. digest: of its images, where it bears an id. binary: whether its answer is to be bytes."""

    id: str
    images: Tensor
    digest: bytes
    binary: bool


@dataclass
class _Memory:
    """The latest answers by the id of their request, no more than KEPT of them and KEPT_BYTES in all."""

    answers: OrderedDict[str, tuple[bytes, Tensor]] = field(default_factory=OrderedDict)
    bytes: int = 0

    def find(self, asked: _Asked) -> Tensor | None:
        """What the request was answered before, if it was; HTTPException if another one bore its id."""
        if asked.id not in self.answers:
            return None
        digest, answered = self.answers[asked.id]
        if digest != asked.digest:
            raise HTTPException(409, f"id {asked.id!r} was that of a request with other images")
        self.answers.move_to_end(asked.id)
        return answered

    def keep(self, asked: _Asked, answered: Tensor) -> None:
        if asked.id:
            self.answers[asked.id] = (asked.digest, answered)
            self.bytes += answered.nbytes
        while len(self.answers) > KEPT or self.bytes > KEPT_BYTES:
            _, (_, oldest) = self.answers.popitem(last=False)
            self.bytes -= oldest.nbytes


class _Service:
    """What the addresses of the server do."""

    def __init__(self, answer: Callable[[Tensor], Tensor], model: _Model) -> None:
        self._answer, self._model = answer, model
        self._memory = _Memory()
        self._turn = asyncio.Lock()
        self._images, self._requests = 0, 0

    async def check_name(self, request: Request) -> None:
        given, model = request.path_params, self._model
        if given["name"] != model.name:
            raise HTTPException(404, f"unknown model {given['name']!r}; known: {model.name}")
        if given.get("version", model.version) != model.version:
            raise HTTPException(404, f"unknown version {given['version']!r} of {model.name}; known: {model.version}")

    async def describe_server(self) -> dict[str, Any]:
        return {"name": "blackbox-bench", "version": self._model.version, "extensions": EXTENSIONS}

    async def say_it_is_live(self) -> dict[str, bool]:
        return {"live": True}

    async def list_models(self) -> list[dict[str, str]]:
        return [{"name": self._model.name, "version": self._model.version, "state": "READY"}]

    async def describe_model(self) -> dict[str, Any]:
        return self._model.metadata()

    async def say_model_is_ready(self) -> dict[str, Any]:
        return {"name": self._model.name, "ready": True}

    async def tell_count(self) -> dict[str, int]:
        return {"images": self._images, "requests": self._requests}

    async def infer(self, request: Request) -> Response:
        body = await _body(request, self._model.most_bytes)
        asked = await run_in_threadpool(_decode, self._model, body, request.headers.get(LENGTH))
        answered = await self._ask(asked)
        return await run_in_threadpool(_encode, self._model, asked, answered)

    async def _ask(self, asked: _Asked) -> Tensor:
        # One at a time: torch's threads do not help each other, and a repeat finds what its first sending is getting.
        async with self._turn:
            known = self._memory.find(asked)
            if known is None:
                known = await run_in_threadpool(self._revealed, asked.images)
                self._images, self._requests = self._images + len(asked.images), self._requests + 1
                self._memory.keep(asked, known)
            return known

    def _revealed(self, images: Tensor) -> Tensor:
        answered = self._answer(images).cpu()
        return answered.argmax(dim=1) if self._model.reveal == "labels" else answered.float()


async def _tell_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
    return JSONResponse({"error": f"the model failed: {type(error).__name__}"}, 500)


async def _body(request: Request, most: int) -> bytes:
    """The body of a request; HTTPException for one that is too large, unread where its length is announced."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise HTTPException(415, f"content encoding {request.headers['Content-Encoding']!r}: wanted none")
    too_large = HTTPException(413, f"the body is larger than {most:,} bytes")
    if int(request.headers.get("Content-Length", 0)) > most:
        raise too_large
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise too_large
    except ClientDisconnect as error:
        raise HTTPException(400, "the client went away") from error
    return bytes(body)


def _decode(model: _Model, body: bytes, length: str | None) -> _Asked:
    """What a request asks; HTTPException for what cannot be meant."""
    header, rest = _parted(body, length)
    try:
        request = _Header.model_validate_json(header)
    except ValidationError as error:
        raise HTTPException(400, one_line(error, _Header.model_fields)[:300]) from error
    binary = _wants_bytes(request, model.reveal)
    images = _images(_sole_input(request), rest, model)
    content = images.numpy().tobytes() if request.id else b""
    return _Asked(request.id or "", images, hashlib.sha256(content).digest(), binary)


def _parted(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """The JSON and the bytes after it."""
    if length is None:
        return body, b""
    if not length.isdecimal() or int(length) > len(body):
        raise HTTPException(400, f"{LENGTH} {length!r}: wanted a number up to {len(body)}, the length of the body")
    return body[: int(length)], body[int(length) :]


def _wants_bytes(request: _Header, output: str) -> bool:
    """Whether the answer is to be bytes: what is said of the output counts before what is said of all."""
    wanted = request.outputs or [_Output(name=output)]
    if [tensor.name for tensor in wanted] != [output]:
        raise HTTPException(400, f"outputs {', '.join(tensor.name for tensor in wanted)}: wanted {output} alone")
    _check_parameters(f"output {output}", wanted[0].parameters, "binary_data")
    return bool(wanted[0].parameters.get("binary_data", request.parameters.get("binary_data_output", False)))


def _sole_input(request: _Header) -> _Input:
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        raise HTTPException(400, f"inputs {', '.join(names) or 'none'}: wanted {INPUT} alone")
    _check_parameters(f"input {INPUT}", request.inputs[0].parameters, "binary_data_size")
    return request.inputs[0]


def _check_parameters(what: str, given: dict[str, Any], known: str) -> None:
    """Refuse what would change the meaning of a tensor, such as shared memory or a classification."""
    if unknown := given.keys() - {known}:
        raise HTTPException(400, f"{what}: unknown parameter {min(unknown)!r}; known: {known}")


def _images(tensor: _Input, rest: bytes, model: _Model) -> Tensor:
    """The images in a request, float32 in [0, 1]."""
    if tensor.datatype not in TAKEN:
        raise HTTPException(400, f"input {INPUT}: datatype {tensor.datatype!r}, wanted {' or '.join(TAKEN)}")
    if tuple(tensor.shape[1:]) != model.shape or tensor.shape[0] < 1:
        wanted = ", ".join(map(str, ("N", *model.shape)))
        raise HTTPException(400, f"input {INPUT}: shape {tensor.shape}, wanted [{wanted}] with N of 1 or more")
    if tensor.shape[0] > model.most_images:
        raise HTTPException(413, f"{tensor.shape[0]} images in a request, wanted {model.most_images} at most")
    kind, white = TAKEN[tensor.datatype]
    values = _from_bytes(tensor, rest, kind) if "binary_data_size" in tensor.parameters else _from_json(tensor, rest)
    if not ((values >= 0) & (values <= white)).all():  # nor is NaN
        raise HTTPException(400, f"input {INPUT}: values outside [0, {white}], or not finite")
    if white == 255 and (values % 1 != 0).any():
        raise HTTPException(400, f"input {INPUT}: fractions in UINT8")
    return torch.from_numpy(values.astype(np.float32).reshape(tensor.shape)).div(white)


def _from_bytes(tensor: _Input, rest: bytes, kind: np.dtype[Any]) -> Array:
    said, wanted = tensor.parameters["binary_data_size"], prod(tensor.shape) * kind.itemsize
    if not said == len(rest) == wanted:
        raise HTTPException(400, f"input {INPUT}: {said} bytes announced, {len(rest)} sent, {wanted} wanted")
    return np.frombuffer(rest, kind)


def _from_json(tensor: _Input, rest: bytes) -> Array:
    """The numbers of a flat list, or of lists nested as the shape says."""
    if rest:
        raise HTTPException(400, f"{len(rest)} bytes after the JSON that no input announces")
    try:
        values = np.asarray(tensor.data)
    except ValueError as error:
        raise HTTPException(400, f"input {INPUT}: data is no regular list of numbers") from error
    if values.dtype.kind not in "iuf":
        raise HTTPException(400, f"input {INPUT}: data is no regular list of numbers")
    if values.shape not in ((prod(tensor.shape),), tuple(tensor.shape)):
        raise HTTPException(400, f"input {INPUT}: data of shape {list(values.shape)} for shape {tensor.shape}")
    return values


def _encode(model: _Model, asked: _Asked, answered: Tensor) -> Response:
    """The answer to a request, in JSON, or as bytes after it."""
    output: dict[str, Any] = {
        "name": model.reveal,
        "datatype": REVEALS[model.reveal],
        "shape": list(answered.shape),
    }
    whole = {"model_name": model.name, "model_version": model.version, "outputs": [output]}
    if asked.id:
        whole["id"] = asked.id
    if not asked.binary:
        output["data"] = answered.flatten().tolist()
        return JSONResponse(whole)
    content = answered.numpy().astype("<f4" if model.reveal == "probs" else "<i8").tobytes()
    output["parameters"] = {"binary_data_size": len(content)}
    header = json.dumps(whole).encode()
    return Response(header + content, media_type="application/octet-stream", headers={LENGTH: str(len(header))})


class _Whole(nn.Module):
    """Images in, what is revealed out, on a device of its own."""

    def __init__(self, network: nn.Module, reveal: str, device: torch.device) -> None:
        super().__init__()
        self.network, self.reveal, self.device = network, reveal, device

    def forward(self, images: Tensor) -> Tensor:
        probs: Tensor = self.network(images.to(self.device)).softmax(dim=1)
        return probs.argmax(dim=1) if self.reveal == "labels" else probs


def mlflow_app(
    network: nn.Module, shape: tuple[int, int, int], reveal: str, device: torch.device, folder: Path
) -> FastAPI:
    """MLflow's own scoring server of a network on that device, which is saved as an MLflow model in the folder.

    POST /invocations {"inputs": float images N x C x H x W in [0, 1]} gives {"predictions": ...}. What is saved is the
    traced graph: whoever serves it needs torch and nothing of ours.
    """
    import mlflow
    from mlflow.pyfunc import scoring_server

    # MLflow's format stores weights in this layout.
    whole = _Whole(network, reveal, device).eval().to(memory_format=torch.contiguous_format)
    images = torch.zeros(2, *shape)  # two: of one, MLflow could not tell that the batch may vary
    with torch.no_grad():
        signature = mlflow.models.infer_signature(images.numpy(), whole(images).cpu().numpy())
    mlflow.pytorch.save_model(
        whole,
        folder,
        signature=signature,
        input_example=images.numpy(),
        serialization_format="pt2",
        pip_requirements=["torch"],
    )
    model = mlflow.pyfunc.load_model(str(folder), model_config={"device": str(device)})
    served: FastAPI = scoring_server.init(model)
    return served
