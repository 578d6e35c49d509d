"""Black boxes behind a URL, through real sockets: the curves of a teacher in process, and one count on both sides."""

import base64
import email
import errno
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from fastapi import FastAPI, Request
from PIL import Image
from support import CPU, bench
from test_serving import app_of, served
from torch import Tensor

from bench.boxes import teachers
from bench.boxes.box import black_box
from bench.boxes.described import Endpoint, read
from bench.boxes.examined import PROBES
from bench.boxes.http.bill import Bill
from bench.boxes.http.client import Client
from bench.errors import UsageError
from bench.tasks.networks import Normalised
from bench.tasks.table import task_of
from budgets.journal import Journal, count
from results.records import RunRecord
from results.records import read as read_record

GRID = """
description: a test
tasks: [digits-lenet]
methods:
  once: {method: ideal, answers: [labels], config: {batch_size: 20, generator_width: 8, generator_steps: 2}}
  noise: {config: {kind: shapes, recipe: {batch_size: 32, passes: 4, min_steps: 4}}}
budgets: [60, 120]
seeds: 2
"""
CELLS, TEST = 2 * 120 + 2 * 2 * (60 + 120), 500  # queries of the grid's cells: IDEAL answers for both budgets in one


@pytest.fixture(scope="module")
def teacher(trained_once: Path) -> Normalised:
    return teachers.load(task_of("digits-lenet"), trained_once, CPU)


@pytest.fixture
def grid(tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(GRID)
    return str(tmp_path / "mine.yaml")


def curves(root: Path) -> dict[tuple[str, ...], Any]:
    """What a run's cells measured, by method, answers, queries and seed, without the names that tell boxes apart."""
    found = {}
    for folder in (root / "cells").iterdir():
        cell = json.loads((folder / "cell.json").read_text())["identity"]
        key = tuple(str(cell[name]) for name in ("method", "answers", "queries", "seed"))
        found[key] = json.loads((folder / "curve.json").read_text())
    return found


def counted(url: str) -> int:
    return int(requests.get(f"{url}/count", timeout=10).json()["images"])


def test_a_served_teacher_gives_the_curves_that_it_gives_in_process_and_counts_what_the_meter_counts(
    trained: Path, tmp_path: Path, teacher: Normalised, grid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("run", "--grid", grid, "--out", str(trained), "--mlflow", "off") == 0
    with served(app_of(teacher)) as url:
        asked = ("--grid", grid, "--out", str(tmp_path / "far"), "--blackbox", url, "--price", "2")
        assert bench("plan", *asked) == 0
        planned = " ".join(capsys.readouterr().out.split())
        assert f"{CELLS + TEST + 2 * PROBES:,} queries, its examination among them" in planned
        assert bench("run", *asked, "--mlflow", "off") == 0
        assert counted(url) == CELLS + TEST + 2 * PROBES
        assert bench("run", *asked, "--mlflow", "off") == 0  # nothing is left to do: its probes, and nothing else
        assert counted(url) == CELLS + TEST + 2 * PROBES + PROBES
    assert curves(tmp_path / "far") == curves(trained)
    capsys.readouterr()
    assert bench("verify", "mine", "--out", str(tmp_path / "far")) == 0
    told = capsys.readouterr().out
    assert f"their meters counted {CELLS:,}" in told
    assert "all agree" in told
    [note] = read_record(tmp_path / "far" / "mine" / "run.json", RunRecord).boxes.values()
    assert note.charged == CELLS + TEST + 3 * PROBES
    assert note.money == f"{note.charged * 2 / 1000:,.2f} USD"


def test_a_journal_that_says_less_than_the_meter_is_found_out(
    tmp_path: Path, teacher: Normalised, grid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(app_of(teacher)) as url:
        assert bench("run", "--grid", grid, "--out", str(tmp_path), "--blackbox", url, "--mlflow", "off") == 0
    folder = next(folder for folder in (tmp_path / "cells").iterdir() if ".noise.60-labels" in folder.name)
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    (folder / "journal").write_bytes(b"".join(lines[:-1]))
    assert bench("verify", "mine", "--out", str(tmp_path)) == 1
    assert "the meter counted 60, the journal has" in " ".join(capsys.readouterr().out.split())


def test_an_endpoint_that_reveals_labels_alone_is_asked_for_labels_alone(
    tmp_path: Path, teacher: Normalised, grid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    box = tmp_path / "labels.yaml"
    with served(app_of(teacher, reveal="labels")) as url:
        box.write_text(f"base: {url}\nanswers: labels\nbatch: 16\n")
        asked = ("--grid", grid, "--out", str(tmp_path), "--blackbox", str(box), "--mlflow", "off")
        assert bench("run", *asked) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "the black box reveals labels at most" in out
    assert {key[1] for key in curves(tmp_path)} == {"labels"}


@pytest.mark.parametrize("agreement", [True, False])
def test_agreement_may_be_left_out_and_then_no_test_image_is_sent(
    tmp_path: Path, teacher: Normalised, grid: str, agreement: bool
) -> None:
    box = tmp_path / "box.yaml"
    with served(app_of(teacher)) as url:
        box.write_text(f"base: {url}\nagreement: {str(agreement).lower()}\n")
        asked = ("--grid", grid, "--method", "once", "--out", str(tmp_path), "--blackbox", str(box), "--mlflow", "off")
        assert bench("run", *asked) == 0
        assert counted(url) == 2 * 120 + 2 * PROBES + (TEST if agreement else 0)
    points = [point for curve in curves(tmp_path).values() for point in curve]
    assert all(("agreement" in point) == agreement and "accuracy" in point for point in points)


class Protocols:
    """A server that speaks what others speak, with a teacher of ours behind it. seen: what each request was."""

    def __init__(self, teacher: Normalised) -> None:
        self.ask, self.app, self.seen = black_box(teacher), FastAPI(), list[Any]()
        self._turn = threading.Lock()
        self.app.post("/v1/models/m:predict")(self.tensorflow)
        self.app.post("/hf")(self.hugging_face)
        self.app.put("/raw")(self.raw)
        self.app.post("/form")(self.form)
        self.app.post("/invocations")(self.mlflow)
        self.app.get("/health")(lambda: "ok")
        self.app.get("/v1/models/m")(lambda: {"model_version_status": []})

    def scores(self, images: Tensor) -> Tensor:
        with self._turn:
            self.seen.append(len(images))
            return self.ask(images)

    async def tensorflow(self, request: Request) -> Any:
        images = torch.tensor((await request.json())["instances"])
        return {"predictions": self.scores(images.permute(0, 3, 1, 2)).tolist()}

    async def mlflow(self, request: Request) -> Any:
        return {"predictions": self.scores(torch.tensor((await request.json())["inputs"])).tolist()}

    async def hugging_face(self, request: Request) -> Any:
        assert request.headers["Authorization"] == "Bearer a-secret"
        content = await request.json()
        [scores] = self.scores(of_png(base64.b64decode(content["inputs"])))
        best = scores.topk(min(5, content["parameters"]["top_k"]))
        return [
            {"label": f"digit {label}", "score": score} for score, label in zip(*map(Tensor.tolist, best), strict=True)
        ]

    async def raw(self, request: Request) -> Any:
        [scores] = self.scores(of_png(await request.body()))
        return {"outcome": {"confidences": (100 * scores).tolist()}, "model": {"version": 7}}

    async def form(self, request: Request) -> Any:
        head = f"Content-Type: {request.headers['Content-Type']}\n\n".encode()
        [picture] = email.message_from_bytes(head + await request.body()).get_payload()
        assert picture.get_param("name", header="Content-Disposition") == "picture"
        [scores] = self.scores(of_png(picture.get_payload(decode=True)))
        return {"best": f"digit {int(scores.argmax())}"}


def of_png(content: bytes) -> Tensor:
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return torch.from_numpy(pixels.copy()).float().div(255).view(1, 1, 8, 8)


NAMES = [f"digit {number}" for number in range(10)]
CUSTOM: dict[str, dict[str, Any]] = {
    "tfserving": {"adapter": "tfserving", "model": "m", "batch": 4},
    "mlflow": {"adapter": "mlflow"},
    "huggingface": {"adapter": "huggingface", "classes": NAMES, "concurrency": 2},
    "raw": {
        "adapter": "custom",
        "url": "{base}/raw",
        "method": "PUT",
        "images": {"encoding": "png"},
        "inputs": "uint8",
        "batch": 1,
        "answer": {"scores": "outcome.confidences", "scale": 100, "version": "model.version"},
    },
    "form": {
        "adapter": "custom",
        "url": "{base}/form",
        "form": {"picture": "$image"},
        "images": {"encoding": "png"},
        "inputs": "uint8",
        "batch": 1,
        "answers": "labels",
        "classes": NAMES,
        "answer": {"labels": "best"},
    },
}


@contextmanager
def client(box: Endpoint, folder: Path) -> Iterator[Client]:
    made = Client(box, 10, Journal(folder / "journal", {}), Bill(folder, 0.0, None), "test")
    try:
        yield made
    finally:
        made.close()


def described(base: str, **content: Any) -> Endpoint:
    box = read(f"{base}/hf" if content["adapter"] == "huggingface" else base, Endpoint, **content)
    assert isinstance(box, Endpoint)
    return box


@pytest.mark.parametrize("name", CUSTOM)
def test_each_protocol_carries_the_images_there_and_the_answers_back(
    name: str, tmp_path: Path, teacher: Normalised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret")
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    wanted = black_box(teacher)(images)
    server = Protocols(teacher)
    with served(server.app) as url, client(box := described(url, **CUSTOM[name]), tmp_path) as ask:
        answered = ask(images)
    if box.answers == "labels":
        assert answered.tolist() == wanted.argmax(dim=1).tolist()
    else:
        shown = ~answered.isnan()
        assert shown.sum(dim=1).unique().tolist() == [5 if box.answers == "top-5" else 10]
        torch.testing.assert_close(answered[shown], wanted[shown], atol=1e-6, rtol=1e-5)
        assert answered.nan_to_num(nan=-1.0).argmax(dim=1).tolist() == wanted.argmax(dim=1).tolist()
    assert sum(server.seen) == 7
    assert max(server.seen) <= box.batch
    assert count(tmp_path / "journal").answered == 7
    if name == "raw":
        assert ask.version == "7"


def test_what_is_not_revealed_is_never_passed_for_probabilities(tmp_path: Path, teacher: Normalised) -> None:
    headers = {"Authorization": "Bearer a-secret"}
    content = {**CUSTOM["huggingface"], "answers": "probs", "headers": headers, "retries": 0}
    told = pytest.raises(UsageError, match="no finite numbers")
    with served(Protocols(teacher).app) as url, client(described(url, **content), tmp_path) as ask, told:
        ask(torch.zeros(1, 1, 8, 8))
    assert count(tmp_path / "journal").unusable == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("base: http://x\nadapter: grpc\n", "unknown adapter 'grpc'"),
        ("base: http://x\nprize: 3\n", "unknown key 'prize'; did you mean price or"),
        ("base: http://x\nanswers: top\n", "answers 'top': wanted labels, probs"),
        ("base: http://x\nshape: [3, 32, 32]\n", "has images (3, 32, 32), but task digits-lenet has (1, 8, 8)"),
        ("base: http://x\nclasses: 12\n", "has classes 12, but task digits-lenet has 10"),
        ("price: 3\n", "wanted a mapping with base in it"),
        ("base: http://x\nprice: -1\n", "price: Input should be greater than or equal to 0"),
    ],
)
def test_a_bad_description_is_told_in_one_line(
    content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = tmp_path / "box.yaml"
    box.write_text(content)
    assert bench("run", "--out", str(tmp_path), "--blackbox", str(box)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--blackbox", "http://127.0.0.1:9", "--teacher", "x.pt"), "wanted one of them"),
        (("--blackbox", "missing.yaml"), "cannot be read"),
        (("--blackbox", "127.0.0.1:8080"), "'127.0.0.1:8080': wanted an address such as http://127.0.0.1:8080"),
        (("--task", "images:nowhere"), "have no labels: wanted a black box"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(
    arguments: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("run", "--out", str(tmp_path), *arguments) == 2
    assert told in capsys.readouterr().err


def test_images_without_labels_compare_students_with_the_black_box_alone(
    tmp_path: Path, teacher: Normalised, grid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    box = tmp_path / "box.yaml"
    with served(app_of(teacher)) as url:
        box.write_text(f"base: {url}\nshape: [1, 8, 8]\nclasses: 10\n")
        task = f"images:{tmp_path / 'pictures'}@mlp"
        asked = ("--grid", grid, "--method", "noise", "--task", task, "--blackbox", str(box), "--out", str(tmp_path))
        assert bench("run", *asked, "--mlflow", "off") == 0
        assert counted(url) == 2 * 2 * (60 + 120) + 20 + 2 * PROBES
    points = [point for curve in curves(tmp_path).values() for point in curve]
    assert all("agreement" in point and "accuracy" not in point for point in points)
    assert "no accuracy, for the images have no labels" in " ".join(capsys.readouterr().out.split())
    [paper] = (tmp_path / "mine" / "tables").glob("images-*.labels.float.tex")
    assert "Agreement with the black box in percent" in paper.read_text()


def test_a_box_that_is_gone_at_the_end_is_told_and_the_report_is_written(
    tmp_path: Path, teacher: Normalised, grid: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = UsageError("black box http://x says 401 Unauthorized")
    monkeypatch.setattr("bench.boxes.examined.changed", lambda *_: (_ for _ in ()).throw(gone))
    with served(app_of(teacher)) as url:
        asked = ("--grid", grid, "--method", "once", "--out", str(tmp_path), "--blackbox", url, "--mlflow", "off")
        assert bench("run", *asked) == 1
    assert "has changed cannot be seen: black box http://x says 401" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "mine" / "index.html").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_more_ends_a_command_in_one_line(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(number, "no room", "runs/x")
    monkeypatch.setattr("bench.cli.runs.keep_record", lambda *_: (_ for _ in ()).throw(full))
    asked = ("--method", "noise*", "--budget", "250", "--teachers", "1", "--seeds", "1", "--mlflow", "off")
    assert bench("run", *asked, "--out", str(tmp_path)) == 2
    assert capsys.readouterr().err == (
        "bench: no room: runs/x; what was done so far is kept, and the same command goes on from there\n"
    )
