"""`bench serve`."""

import ipaddress
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Machine
from bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from fastapi import FastAPI

    from bench.tasks.networks import Normalised
    from bench.tasks.table import Task

PROTOCOLS = ("oip2", "mlflow")
PIECE = 500  # images that the network is given at once
GRACE = 10  # seconds that requests under way have to end in
TASK_HELP = "Whose teacher; folder:PATH makes a task of a folder of images."
PROTOCOL_HELP = "oip2, the Open Inference Protocol, version 2, or mlflow, MLflow's own scoring server."


def serve(
    machine: Machine,
    task: Annotated[str, typer.Argument(metavar="TASK", help=TASK_HELP)],
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 is any that is free.")] = 8080,
    protocol: Annotated[str, typer.Option("--protocol", help=PROTOCOL_HELP)] = "oip2",
    reveal: Annotated[str, typer.Option("--reveal", help="What an answer is: probs or labels.")] = "probs",
) -> None:
    """Serve a task's trained teacher over HTTP, as a black box."""
    from bench.boxes.serving import REVEALS
    from bench.cli import show
    from bench.cli.work import console_of

    signal.signal(signal.SIGTERM, _end)
    for option, given, known in (("protocol", protocol, PROTOCOLS), ("reveal", reveal, REVEALS)):
        if given not in known:
            raise unknown(option, given, known)
    console, (name, described) = console_of(), _named(task)
    network, version = _teacher(task, described, machine)
    with tempfile.TemporaryDirectory() as folder, _listener(host, port) as listener:
        made = _app(network, name, described, version, protocol, reveal, Path(folder) / "model")
        if not _is_loopback(listener):
            show.warning(console, f"{host} is no loopback address: anybody who reaches it may ask it")
        address = _address(host, listener)
        console.print(_how_to_ask(name, described, protocol, address), markup=False, soft_wrap=True)
        _run(made, listener)


def _end(*_: object) -> None:
    """Whoever ends a server by a signal has had what was asked for."""
    raise SystemExit(0)


def _named(given: str) -> "tuple[str, Task]":
    """The task with its name; UsageError for an unknown one, or an unknown defence."""
    from bench.boxes.defences import defended_task
    from bench.tasks import image_folder

    folders, names = image_folder.split([given])
    name = image_folder.register(folders[0]) if folders else names[0]
    return name, defended_task(name)


def _teacher(given: str, task: "Task", machine: Machine) -> "tuple[Normalised, str]":
    """The trained teacher, on its device, with its hash; UsageError where there is none."""
    import torch

    from bench.boxes import teachers
    from bench.provenance import set_precision

    record, slot = teachers.record_of(task, machine.out), machine.slots[0]
    if record is None:
        raise UsageError(f"there is no teacher of {given} in {machine.out}; bench teachers --task {given} trains it")
    # As cells compute, so that the answers are theirs to the last digit.
    torch.set_num_threads(slot.threads)
    set_precision()
    return teachers.load(task, machine.out, torch.device(slot.device)), record.hash


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens there already: who asks before the server is ready waits; UsageError where it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"host {host!r}: wanted an address or a name of this machine") from error
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UsageError(f"cannot listen at {host}, port {port}: {why}; --host and --port choose another") from error


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _address(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _app(
    network: "Normalised", name: str, task: "Task", version: str, protocol: str, reveal: str, folder: Path
) -> "FastAPI":
    """The server of a teacher; folder: where MLflow's model is to lie."""
    import torch

    from bench.boxes.box import black_box
    from bench.boxes.defences import defended
    from bench.boxes.serving import app, mlflow_app
    from bench.mirror.server import ENVIRONMENT
    from bench.tasks.data import sources

    source, device = sources.source_of(task.dataset), network.mean.device
    ask = defended(black_box(network), task.defence)
    if protocol == "mlflow":
        if task.defence:
            raise UsageError(f"--protocol mlflow serves a network as it is: wanted oip2 with {name}")
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        return mlflow_app(network, source.shape, reveal, device, folder)

    def answer(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([ask(piece.to(device)).cpu() for piece in images.split(PIECE)])

    return app(answer, name, version, source.shape, source.classes, reveal)


def _how_to_ask(name: str, task: "Task", protocol: str, address: str) -> str:
    """The URL of the model, and the command that asks it."""
    from bench.grids.definition import shipped

    command = f"bench run --grid {task.dataset if task.dataset in shipped() else 'GRID'} --blackbox"
    if protocol == "oip2":
        return f"{address}/v2/models/{name} answers: {command} {address}"
    return f"{address}/invocations answers: {command} {address} --adapter mlflow"


def _run(made: "FastAPI", listener: socket.socket) -> None:
    """Serve until a signal says that it is enough; uvicorn raises that signal again when all requests have ended."""
    import uvicorn

    config = uvicorn.Config(
        made, lifespan="off", ws="none", access_log=False, log_level="warning", timeout_graceful_shutdown=GRACE
    )
    uvicorn.Server(config).run(sockets=[listener])
