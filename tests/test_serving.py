"""A teacher behind HTTP, asked through real sockets: what it answers, refuses, counts, and how the command ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
import torch
import uvicorn
from fastapi import FastAPI
from support import CPU, bench
from torch import Tensor

from bench.boxes import serving, teachers
from bench.boxes.box import black_box
from bench.boxes.defences import defended
from bench.cli import serve
from bench.errors import UsageError
from bench.tasks.networks import Normalised
from bench.tasks.table import task_of

SHAPE, CLASSES = (1, 8, 8), 10
MODEL = "/v2/models/digits-lenet"
VERSION = "5eed"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def teacher(trained_once: Path) -> Normalised:
    return teachers.load(task_of("digits-lenet"), trained_once, CPU)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def url(teacher: Normalised) -> Iterator[str]:
    with served(app_of(teacher)) as url:
        yield url


def app_of(teacher: Normalised, **options: Any) -> FastAPI:
    answer = options.pop("answer", black_box(teacher))
    return serving.app(answer, "digits-lenet", VERSION, SHAPE, CLASSES, **options)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app behind a port of this machine, in a thread."""
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


def tensor_of(images: Tensor, **other: Any) -> dict[str, Any]:
    datatype = "UINT8" if images.dtype == torch.uint8 else "FP32"
    flat = images.flatten().tolist()
    return {"name": "images", "shape": list(images.shape), "datatype": datatype, "data": flat, **other}


def request_of(images: Tensor, **other: Any) -> dict[str, Any]:
    return {"inputs": [tensor_of(images)], **other}


def ask(url: str, request: dict[str, Any], path: str = MODEL) -> requests.Response:
    return requests.post(f"{url}{path}/infer", json=request, timeout=120)


def ask_in_bytes(url: str, images: Tensor, **other: Any) -> requests.Response:
    """Ask with the images as bytes after the JSON; an answer in bytes unless something else is said."""
    content = images.numpy().tobytes()
    tensor = {**tensor_of(images), "parameters": {"binary_data_size": len(content)}}
    del tensor["data"]
    request = {"parameters": {"binary_data_output": True}, "inputs": [tensor], **other}
    header = json.dumps(request).encode()
    return requests.post(f"{url}{MODEL}/infer", data=header + content, headers={LENGTH: str(len(header))}, timeout=120)


def answered(response: requests.Response) -> Tensor:
    """The output tensor of an answer in JSON or in bytes."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(LENGTH, len(response.content)))
    (output,) = json.loads(response.content[:length])["outputs"]
    kind = {"FP32": np.float32, "INT64": np.int64}[output["datatype"]]
    if "data" in output:
        values = np.array(output["data"], dtype=kind)
    else:
        rest = response.content[length:]
        assert len(rest) == output["parameters"]["binary_data_size"]
        values = np.frombuffer(rest, dtype=kind).copy()
    return torch.from_numpy(values.reshape(output["shape"]))


def counted(url: str) -> dict[str, int]:
    count: dict[str, int] = requests.get(f"{url}/count", timeout=120).json()
    return count


# What it answers.


def test_flat_nested_and_binary_requests_are_all_answered_with_the_networks_probabilities(
    url: str, teacher: Normalised, images: Tensor
) -> None:
    own = black_box(teacher)(images)
    nested = {"inputs": [tensor_of(images, data=images.tolist())]}
    for response in (ask(url, request_of(images)), ask(url, nested), ask_in_bytes(url, images)):
        assert torch.allclose(answered(response), own, atol=1e-6, rtol=0)


def test_images_of_8_bits_are_what_they_are_as_floats(url: str, teacher: Normalised, images: Tensor) -> None:
    bits = images.mul(255).round().to(torch.uint8)
    own = black_box(teacher)(bits.float().div(255))
    for response in (ask(url, request_of(bits)), ask_in_bytes(url, bits)):
        assert torch.allclose(answered(response), own, atol=1e-6, rtol=0)


def test_labels_are_all_that_is_revealed_where_that_was_said(teacher: Normalised, images: Tensor) -> None:
    own = black_box(teacher)(images).argmax(dim=1)
    with served(app_of(teacher, reveal="labels")) as url:
        assert answered(ask(url, request_of(images))).equal(own)
        assert answered(ask_in_bytes(url, images)).equal(own)
        (output,) = requests.get(url + MODEL, timeout=120).json()["outputs"]
        assert output == {"name": "labels", "datatype": "INT64", "shape": [-1]}
        assert ask(url, request_of(images, outputs=[{"name": "probs"}])).status_code == 400


def test_a_defended_teacher_is_served_with_its_defence(teacher: Normalised, images: Tensor, tmp_path: Path) -> None:
    task = task_of("digits-lenet+flips-0.9")
    app = serve._app(teacher, "digits-lenet", task, VERSION, "oip2", "probs", tmp_path)
    with served(app) as url:
        found = answered(ask(url, request_of(images)))
    torch.testing.assert_close(found, defended(black_box(teacher), "flips-0.9")(images))
    with pytest.raises(UsageError, match="wanted oip2"):
        serve._app(teacher, "digits-lenet", task, VERSION, "mlflow", "probs", tmp_path)


def test_an_answer_bears_the_id_of_its_request_and_the_version_of_the_model(url: str, images: Tensor) -> None:
    content = ask(url, request_of(images, id="a-1")).json()
    assert (content["id"], content["model_name"], content["model_version"]) == ("a-1", "digits-lenet", VERSION)
    assert "id" not in ask(url, request_of(images)).json()


@pytest.mark.parametrize(
    ("all_outputs", "this_output", "binary"),
    [(None, None, False), (True, None, True), (None, True, True), (True, False, False), (False, True, True)],
)
def test_what_is_said_of_an_output_counts_before_what_is_said_of_all(
    url: str, images: Tensor, all_outputs: bool | None, this_output: bool | None, binary: bool
) -> None:
    request = request_of(images)
    if all_outputs is not None:
        request["parameters"] = {"binary_data_output": all_outputs}
    if this_output is not None:
        request["outputs"] = [{"name": "probs", "parameters": {"binary_data": this_output}}]
    assert (LENGTH in ask(url, request).headers) == binary


def test_null_stands_for_nothing(url: str, images: Tensor) -> None:
    nothing: dict[str, Any] = {"id": None, "parameters": None, "outputs": None}
    assert ask(url, {"inputs": [tensor_of(images, parameters=None)], **nothing}).status_code == 200


# What it says of itself.


def test_metadata_name_the_model_its_version_and_its_tensors(url: str) -> None:
    for path in (MODEL, f"{MODEL}/versions/{VERSION}"):
        assert requests.get(url + path, timeout=120).json() == {
            "name": "digits-lenet",
            "versions": [VERSION],
            "platform": "pytorch",
            "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, *SHAPE]}],
            "outputs": [{"name": "probs", "datatype": "FP32", "shape": [-1, CLASSES]}],
        }
        assert requests.get(f"{url}{path}/ready", timeout=120).json() == {"name": "digits-lenet", "ready": True}


def test_the_server_is_live_and_lists_its_model(url: str) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert requests.get(url + path, timeout=120).json() == {"live": True}
    assert "binary_tensor_data" in requests.get(f"{url}/v2", timeout=120).json()["extensions"]
    (model,) = requests.post(f"{url}/v2/repository/index", json={}, timeout=120).json()
    assert model == {"name": "digits-lenet", "version": VERSION, "state": "READY"}


# What it refuses.


IMAGE = torch.full((1, *SHAPE), 0.5)
NAN, DEEP = float("nan"), "[" * 2000 + "]" * 2000


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": []}, "inputs none: wanted images alone"),
        ({"inputs": [tensor_of(IMAGE), tensor_of(IMAGE)]}, "inputs images, images: wanted images alone"),
        ({"inputs": [tensor_of(IMAGE, name="input0")]}, "inputs input0: wanted images alone"),
        ({"inputs": [tensor_of(IMAGE, datatype="FP64")]}, "datatype 'FP64', wanted FP32 or UINT8"),
        ({"inputs": [tensor_of(IMAGE, shape=[1, 64])]}, "shape [1, 64], wanted [N, 1, 8, 8]"),
        ({"inputs": [tensor_of(IMAGE, shape=[1, 8, 8, 1])]}, "shape [1, 8, 8, 1], wanted [N, 1, 8, 8]"),
        ({"inputs": [tensor_of(IMAGE, shape=[-1, 1, 8, 8])]}, "with N of 1 or more"),
        ({"inputs": [tensor_of(IMAGE[:0])]}, "with N of 1 or more"),
        ({"inputs": [tensor_of(IMAGE, shape=[])]}, "shape [], wanted"),
        ({"inputs": [tensor_of(IMAGE, shape="1,1,8,8")]}, "inputs.0.shape: Input should be a valid array"),
        ({"inputs": [tensor_of(IMAGE, data=[0.5] * 63)]}, "data of shape [63] for shape [1, 1, 8, 8]"),
        ({"inputs": [tensor_of(IMAGE, data=IMAGE[0].tolist())]}, "data of shape [1, 8, 8] for shape [1, 1, 8, 8]"),
        ({"inputs": [tensor_of(IMAGE, data=[[0.5], [0.5, 0.5]])]}, "no regular list of numbers"),
        ({"inputs": [tensor_of(IMAGE, data=["0.5"] * 64)]}, "no regular list of numbers"),
        ({"inputs": [tensor_of(IMAGE, data=[10**400] * 64)]}, "no regular list of numbers"),
        ({"inputs": [tensor_of(IMAGE, data=None)]}, "no regular list of numbers"),
        ({"inputs": [tensor_of(IMAGE, data=[1.5] * 64)]}, "values outside [0, 1], or not finite"),
        ({"inputs": [tensor_of(IMAGE, data=[-1e-6] * 64)]}, "values outside [0, 1], or not finite"),
        ({"inputs": [tensor_of(IMAGE, data=[1e300] * 64)]}, "values outside [0, 1], or not finite"),
        ({"inputs": [tensor_of(IMAGE, datatype="UINT8", data=[256] * 64)]}, "values outside [0, 255]"),
        ({"inputs": [tensor_of(IMAGE, datatype="UINT8")]}, "fractions in UINT8"),
        ({"inputs": [tensor_of(IMAGE, parameters={"shared_memory_region": "a"})]}, "parameter 'shared_memory_region'"),
        ({"inputs": [tensor_of(IMAGE, parameters={"binary_data_size": 256})]}, "256 bytes announced, 0 sent"),
        (request_of(IMAGE, outputs=[{"name": "logits"}]), "outputs logits: wanted probs alone"),
        (request_of(IMAGE, outputs=[{"name": "probs", "parameters": {"classification": 3}}]), "'classification'"),
        (request_of(IMAGE, id=7), "id: Input should be a valid string"),
    ],
)
def test_a_request_that_cannot_be_meant_is_told_in_one_line_and_not_counted(
    url: str, request_: dict[str, Any], told: str
) -> None:
    response = ask(url, request_)
    assert response.status_code == 400
    (line,) = response.json().values()
    assert told in line
    assert "\n" not in line
    assert counted(url) == {"images": 0, "requests": 0}


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_in_json_and_in_bytes(url: str, value: float) -> None:
    images = IMAGE.clone()
    images[0, 0, 3, 4] = value
    body = json.dumps(request_of(images))  # NaN and Infinity, as Python and others write them
    for response in (requests.post(f"{url}{MODEL}/infer", data=body, timeout=120), ask_in_bytes(url, images)):
        assert response.status_code == 400
        assert "not finite" in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", f'{{"inputs": {DEEP}}}'.encode()])
def test_a_body_that_is_no_request_is_refused(url: str, body: bytes) -> None:
    response = requests.post(f"{url}{MODEL}/infer", data=body, timeout=120)
    assert (response.status_code, list(response.json())) == (400, ["error"])


@pytest.mark.parametrize(
    ("size", "length", "told"),
    [
        (256, "99999", "the length of the body"),
        (256, "-1", "the length of the body"),
        (256, "many", "the length of the body"),
        (252, None, "252 bytes announced, 256 sent, 256 wanted"),
        ("256", None, "256 bytes announced"),
        (None, None, "256 bytes after the JSON"),
    ],
)
def test_bytes_of_another_length_than_announced_are_refused(url: str, size: Any, length: str | None, told: str) -> None:
    tensor = tensor_of(IMAGE, parameters={} if size is None else {"binary_data_size": size})
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {LENGTH: length or str(len(header))}
    body = header + IMAGE.numpy().tobytes()
    response = requests.post(f"{url}{MODEL}/infer", data=body, headers=headers, timeout=120)
    assert response.status_code == 400
    assert told in response.json()["error"]


@pytest.mark.parametrize("path", ["/v2/models/mnist", f"{MODEL}/versions/2"])
def test_another_model_and_another_version_are_unknown(url: str, path: str) -> None:
    for response in (ask(url, request_of(IMAGE), path), requests.get(url + path, timeout=120)):
        assert response.status_code == 404
        assert "unknown" in response.json()["error"]


def test_other_addresses_and_ways_are_refused_in_the_same_shape(url: str) -> None:
    assert requests.get(f"{url}/v1/models", timeout=120).json() == {"error": "Not Found"}
    response = requests.get(f"{url}{MODEL}/infer", timeout=120)
    assert (response.status_code, list(response.json())) == (405, ["error"])
    packed = {"Content-Encoding": "gzip"}
    assert requests.post(f"{url}{MODEL}/infer", data=b"", headers=packed, timeout=120).status_code == 415


def test_a_network_that_fails_is_told_and_not_counted() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with served(serving.app(broken, "digits-lenet", VERSION, SHAPE, CLASSES)) as url:
        for _ in range(2):  # the id of what was not answered is free
            response = ask(url, request_of(IMAGE, id="a"))
            assert (response.status_code, list(response.json())) == (500, ["error"])
        assert counted(url) == {"images": 0, "requests": 0}


# How much it takes.


def test_more_images_than_the_most_are_refused(teacher: Normalised) -> None:
    with served(app_of(teacher, most_images=2)) as url:
        assert ask(url, request_of(IMAGE.expand(2, -1, -1, -1))).status_code == 200
        assert ask(url, request_of(IMAGE.expand(3, -1, -1, -1))).status_code == 413


def said_to(url: str, sent: bytes) -> tuple[int, Any]:
    """The state and the content of what the server says to these bytes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(sent)
        with HTTPResponse(connection) as response:
            response.begin()
            return response.status, json.loads(response.read())


def test_a_body_that_is_announced_too_large_is_refused_unread(teacher: Normalised) -> None:
    with served(app_of(teacher, most_images=2)) as url:
        said = said_to(url, f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n".encode())
    assert said == (413, {"error": "the body is larger than 68,864 bytes"})


def test_a_body_that_becomes_too_large_is_refused_while_it_comes(teacher: Normalised) -> None:
    head = f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"c350\r\n" + b" " * 50_000 + b"\r\n"
    with served(app_of(teacher, most_images=2)) as url:  # the end of the body is never sent
        assert said_to(url, head + 2 * chunk) == (413, {"error": "the body is larger than 68,864 bytes"})


def test_who_sends_all_of_a_body_that_is_too_large_hears_so_and_may_go_on(teacher: Normalised) -> None:
    with served(app_of(teacher, most_images=2)) as url, requests.Session() as session:
        body = b" " * 20_000_000  # more than waits between two sockets
        assert session.post(f"{url}{MODEL}/infer", data=body, timeout=120).status_code == 413
        assert session.post(f"{url}{MODEL}/infer", data=(body for _ in range(2)), timeout=120).status_code == 413
        assert session.post(f"{url}{MODEL}/infer", json=request_of(IMAGE), timeout=120).status_code == 200


def test_a_client_that_goes_away_amid_its_body_does_no_harm(url: str, caplog: pytest.LogCaptureFixture) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n{{".encode())
    assert ask(url, request_of(IMAGE)).status_code == 200
    assert caplog.text == ""


def test_the_longest_way_to_write_the_most_images_fits(teacher: Normalised) -> None:
    images = torch.full((64, *SHAPE), 1.2345678e-05)
    body = json.dumps({"inputs": [tensor_of(images, data=images.double().tolist())]})
    with served(app_of(teacher, most_images=64)) as url:
        assert requests.post(f"{url}{MODEL}/infer", data=body, timeout=120).status_code == 200


# What it counts.


def test_every_image_that_the_network_answers_is_counted(url: str, images: Tensor) -> None:
    ask(url, request_of(images))
    ask(url, request_of(images))
    ask_in_bytes(url, images[:2])
    assert counted(url) == {"images": 16, "requests": 3}


def test_a_request_sent_again_gets_its_answer_again_and_is_counted_once(url: str, images: Tensor) -> None:
    first = ask(url, request_of(images, id="a"))
    assert ask(url, request_of(images, id="a")).content == first.content
    assert answered(ask_in_bytes(url, images, id="a")).equal(answered(first))  # its content is the images
    assert counted(url) == {"images": 7, "requests": 1}
    ask(url, request_of(images, id="b"))
    ask(url, request_of(images, id=""))
    ask(url, request_of(images, id=""))
    assert counted(url) == {"images": 28, "requests": 4}


def test_an_id_with_other_images_is_a_conflict(url: str, images: Tensor) -> None:
    ask(url, request_of(images, id="a"))
    response = ask(url, request_of(images.flip(0), id="a"))
    assert response.status_code == 409
    assert response.json() == {"error": "id 'a' was that of a request with other images"}
    assert ask(url, request_of(images[:6], id="a")).status_code == 409
    assert counted(url) == {"images": 7, "requests": 1}


@pytest.mark.parametrize(("limit", "most"), [("KEPT", 2), ("KEPT_BYTES", 2 * 7 * CLASSES * 4)])
def test_the_answers_not_asked_for_longest_are_forgotten(
    url: str, images: Tensor, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(serving, limit, most)
    for id in ("a", "b", "a", "c"):
        ask(url, request_of(images, id=id))
    assert counted(url)["requests"] == 3
    ask(url, request_of(images, id="a"))
    assert counted(url)["requests"] == 3
    ask(url, request_of(images, id="b"))
    assert counted(url)["requests"] == 4


@pytest.fixture
def gate(teacher: Normalised) -> tuple[Callable[[Tensor], Tensor], threading.Event, threading.Event]:
    """The teacher behind a gate: it says that it is asked, and answers when it may."""
    asked, may = threading.Event(), threading.Event()

    def answer(images: Tensor) -> Tensor:
        asked.set()
        assert may.wait(30)
        return black_box(teacher)(images)

    return answer, asked, may


def test_a_request_sent_again_before_it_is_answered_waits_for_that_answer_and_nobody_else_waits(
    teacher: Normalised, images: Tensor, gate: tuple[Callable[[Tensor], Tensor], threading.Event, threading.Event]
) -> None:
    answer, asked, may = gate
    with served(app_of(teacher, answer=answer)) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, url, request_of(images, id="a"))
        assert asked.wait(30)
        again = [pool.submit(ask, url, request_of(images, id="a")) for _ in range(3)]
        time.sleep(0.2)
        assert counted(url) == {"images": 0, "requests": 0}  # it is answered while the network is at work
        assert not any(future.done() for future in (first, *again))
        may.set()
        assert {future.result().content for future in again} == {first.result().content}
        assert counted(url) == {"images": 7, "requests": 1}


def test_an_answer_that_its_client_did_not_wait_for_is_kept_for_its_next_attempt(
    teacher: Normalised, images: Tensor, gate: tuple[Callable[[Tensor], Tensor], threading.Event, threading.Event]
) -> None:
    answer, _, may = gate
    with served(app_of(teacher, answer=answer)) as url:
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{url}{MODEL}/infer", json=request_of(images, id="a"), timeout=0.5)
        may.set()
        assert torch.allclose(answered(ask(url, request_of(images, id="a"))), black_box(teacher)(images), atol=1e-6)
        assert counted(url) == {"images": 7, "requests": 1}


def test_the_network_is_asked_by_one_request_at_a_time(teacher: Normalised, images: Tensor) -> None:
    busy, seen = threading.Lock(), []

    def answer(batch: Tensor) -> Tensor:
        seen.append(busy.acquire(blocking=False))
        time.sleep(0.02)
        busy.release()
        return black_box(teacher)(batch)

    with served(app_of(teacher, answer=answer)) as url, ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: ask(url, request_of(images)), range(8)))
    assert seen == [True] * 8


# Another client.


def test_tritons_client_understands_it(url: str, teacher: Normalised, images: Tensor) -> None:
    triton = pytest.importorskip("tritonclient.http")
    own = black_box(teacher)(images).numpy()
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits-lenet", VERSION)
        assert client.get_model_metadata("digits-lenet")["inputs"][0]["shape"] == [-1, *SHAPE]
        assert client.get_model_repository_index()[0]["name"] == "digits-lenet"
        for binary in (True, False):
            tensor = triton.InferInput("images", list(images.shape), "FP32")
            tensor.set_data_from_numpy(images.numpy(), binary_data=binary)
            output = triton.InferRequestedOutput("probs", binary_data=binary)
            for outputs in ([output], None):
                result = client.infer("digits-lenet", [tensor], outputs=outputs, request_id="t")
                np.testing.assert_allclose(result.as_numpy("probs"), own, atol=1e-6)
                assert result.get_response()["id"] == "t"
        tensor.set_data_from_numpy(images.flip(0).numpy())
        with pytest.raises(triton.InferenceServerException, match="409"):
            client.infer("digits-lenet", [tensor], request_id="t")
    assert counted(url) == {"images": 7, "requests": 1}


# The command.


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`bench serve digits-lenet` at a free port, as a process that is ready, and the line that says so."""
    whole = [sys.executable, "-m", "bench", "serve", "digits-lenet", "--port", "0", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(whole, env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def ended(process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str]:
    """The exit code and the last words of a process that is sent a signal."""
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def test_the_command_says_how_to_ask_and_ends_with_0_when_it_is_told_to(trained: Path, images: Tensor) -> None:
    teacher, record = (
        teachers.load(task_of("digits-lenet"), trained, CPU),
        teachers.record_of(task_of("digits-lenet"), trained),
    )
    with command("--out", str(trained)) as (process, line):
        address = re.fullmatch(rf"(\S+){MODEL} answers: bench run --grid digits --blackbox (\S+)\n", line)
        assert address, line
        assert address[1] == address[2]
        response = ask(address[1], request_of(images))
        assert torch.allclose(answered(response), black_box(teacher)(images), atol=1e-6)
        assert record
        assert response.json()["model_version"] == record.hash
        assert ended(process, signal.SIGTERM) == (0, "")


def test_ctrl_c_ends_the_command_as_any_other(trained: Path) -> None:
    with command("--out", str(trained), "--reveal", "labels") as (process, line):
        assert MODEL in line
        code, error = ended(process, signal.SIGINT)
    assert code == 130
    assert error.startswith("bench: interrupted")
    assert error.count("\n") == 1


def test_requests_under_way_are_answered_before_the_command_ends(trained: Path) -> None:
    images = torch.rand(2000, *SHAPE)
    with command("--out", str(trained)) as (process, line), ThreadPoolExecutor() as pool:
        url = line.partition(MODEL)[0]
        asked = [pool.submit(ask_in_bytes, url, images) for _ in range(4)]
        while not counted(url)["requests"]:
            time.sleep(0.01)
        assert ended(process, signal.SIGTERM) == (0, "")
        assert len(answered(asked[0].result())) == 2000


def test_the_command_warns_where_anybody_may_ask(trained: Path) -> None:
    with command("--out", str(trained), "--host", "0.0.0.0") as (process, line):
        assert line == "0.0.0.0 is no loopback address: anybody who reaches it may ask it\n"
        assert MODEL in process.stdout.readline()


def test_mlflows_own_server_answers_with_the_networks_probabilities(
    trained: Path, teacher: Normalised, images: Tensor
) -> None:
    with command("--out", str(trained), "--protocol", "mlflow") as (process, line):
        address = re.fullmatch(r"(\S+)/invocations answers: bench run .* --blackbox (\S+) --adapter mlflow\n", line)
        assert address, line
        assert address[1] == address[2]
        for n in (1, 7):
            inputs = {"inputs": images[:n].tolist()}
            response = requests.post(f"{address[1]}/invocations", json=inputs, timeout=120)
            found = torch.tensor(response.json()["predictions"])
            assert torch.allclose(found, black_box(teacher)(images[:n]), atol=1e-6)
        assert requests.get(f"{address[1]}/version", timeout=120).text == mlflow.__version__
        assert ended(process, signal.SIGTERM) == (0, "")


FOREIGN = """
import sys, mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1], model_config={"device": "cpu"})
print(model.predict(numpy.load(sys.argv[2])).tolist())
assert not {"bench", "methods", "budgets", "results"} & set(sys.modules)
"""


@pytest.mark.slow
def test_what_mlflow_serves_needs_no_code_of_ours(
    trained: Path, teacher: Normalised, images: Tensor, tmp_path: Path
) -> None:
    fresh = teachers.load(task_of("digits-lenet"), trained, CPU)
    serving.mlflow_app(fresh, SHAPE, "labels", CPU, tmp_path / "model")
    np.save(tmp_path / "images.npy", images.numpy())
    whole = [sys.executable, "-c", FOREIGN, str(tmp_path / "model"), str(tmp_path / "images.npy")]
    told = subprocess.run(whole, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == black_box(teacher)(images).argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["digits-lenett"], "unknown task 'digits-lenett'; did you mean digits-lenet"),
        (
            ["digits-mlp", "--out", "nowhere"],
            "no teacher of digits-mlp in nowhere; bench teachers --task digits-mlp trains it",
        ),
        (["digits-lenet", "--protocol", "oip"], "unknown protocol 'oip'; did you mean oip2?"),
        (["digits-lenet", "--reveal", "label"], "unknown reveal 'label'; did you mean labels?"),
        (["digits-lenet", "--port", "70000"], "Invalid value for '--port'"),
        (["digits-lenet", "--host", "no.such.host.invalid"], "host 'no.such.host.invalid': wanted an address"),
        (
            ["digits-lenet", "--host", "192.0.2.1"],
            "cannot listen at 192.0.2.1, port 8080: Cannot assign requested address",
        ),
        (["digits-lenet", "--device", "tpu"], "device 'tpu': wanted auto, cpu or cuda"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    out = [] if "--out" in arguments else ["--out", str(trained)]
    assert bench("serve", *arguments, *out) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_port_in_use_is_told_in_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert bench("serve", "digits-lenet", "--out", str(trained), "--port", port) == 2
    told = f"bench: cannot listen at 127.0.0.1, port {port}: Address already in use; --host and --port choose another\n"
    assert capsys.readouterr().err == told
