"""A server that fails as endpoints do, through real sockets: faults by the number of a request, and its own counts."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import uvicorn
from torch import Tensor

from bench.boxes import serving

NAME, SHAPE, CLASSES = "digits-lenet", (1, 8, 8), 10
Model = Callable[[Tensor], Tensor]
Scores = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answer:
    """What the server would say."""

    state: int
    headers: dict[str, str]
    content: bytes


@dataclass
class Exchange:
    """A request for answers, in the hands of a fault. model: what answers it."""

    server: "Faulty"
    model: Any
    scope: Any
    receive: Any
    send: Any
    body: bytes = b""

    async def read(self) -> None:
        more = True
        while more:
            message = await self.receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)

    @property
    def said(self) -> dict[str, Any]:
        """The JSON of it."""
        length = dict(self.scope["headers"])[serving.LENGTH.lower().encode()]
        said: dict[str, Any] = json.loads(self.body[: int(length)])
        return said

    @property
    def images(self) -> int:
        """How many it is about."""
        return int(self.said["inputs"][0]["shape"][0])

    async def answered(self) -> Answer:
        """What the model answers, which is charged from then on."""
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await self.model(self.scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in said[0]["headers"]}
        if said[0]["status"] == 200:
            self.server.billed += self.images
            self.server.answered[self.said["id"]] = self.images
        return Answer(said[0]["status"], headers, b"".join(message.get("body", b"") for message in said[1:]))

    async def say(self, answer: Answer, most: int | None = None) -> None:
        """Send it, or no more of its content than the first bytes of it."""
        headers = {**answer.headers, "content-length": str(len(answer.content))}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": answer.state, "headers": raw})
        await self.send({"type": "http.response.body", "body": answer.content[:most], "more_body": most is not None})

    def hang_up(self) -> None:
        self.send.__self__.transport.abort()  # of uvicorn's request: an app cannot ask for it


Fault = Callable[[Exchange], Awaitable[None]]


async def none(exchange: Exchange) -> None:
    """An answer as it should be."""
    await exchange.say(await exchange.answered())


async def dropped(exchange: Exchange) -> None:
    """The connection ends before the request is read."""
    exchange.hang_up()


async def lost(exchange: Exchange) -> None:
    """The connection ends when the model has answered."""
    await exchange.answered()
    exchange.hang_up()


async def cut(exchange: Exchange) -> None:
    """The connection ends in the middle of the answer."""
    answer = await exchange.answered()
    await exchange.say(answer, len(answer.content) // 2)
    await asyncio.sleep(0.05)  # for the half to be on its way
    exchange.hang_up()


def state(number: int, text: str = "", **headers: str) -> Fault:
    """Another state than 200, and the model is not asked. A header Retry_After is Retry-After."""

    async def fault(exchange: Exchange) -> None:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        await exchange.say(Answer(number, said, text.encode()))

    return fault


def instead(content: bytes, **headers: str) -> Fault:
    """The model answers, and something else is sent."""

    async def fault(exchange: Exchange) -> None:
        await exchange.answered()
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        await exchange.say(Answer(200, said, content))

    return fault


def spoilt(change: Callable[[Scores], Scores], **other: Any) -> Fault:
    """The model answers, and its scores are changed, or what else is in the answer."""

    async def fault(exchange: Exchange) -> None:
        answer = await exchange.answered()
        length = int(answer.headers[serving.LENGTH.lower()])
        whole = json.loads(answer.content[:length])
        (output,) = whole["outputs"]
        scores = change(np.frombuffer(answer.content[length:], "<f4").reshape(output["shape"]).copy())
        output |= {"shape": list(scores.shape), "parameters": {"binary_data_size": scores.nbytes}}
        header = json.dumps({**whole, **other}).encode()
        headers = {"content-type": "application/octet-stream", serving.LENGTH: str(len(header))}
        await exchange.say(Answer(200, headers, header + scores.astype("<f4").tobytes()))

    return fault


def slow(seconds: float) -> Fault:
    """The model answers, and takes its time."""

    async def fault(exchange: Exchange) -> None:
        answer = await exchange.answered()
        await asyncio.sleep(seconds)
        await exchange.say(answer)

    return fault


def away(seconds: float) -> Fault:
    """The answer is lost with the server, which is back at the same address after so many seconds."""

    async def fault(exchange: Exchange) -> None:
        await exchange.answered()
        exchange.server.go_away(seconds)

    return fault


def becomes(model: Model, version: str) -> Fault:
    """From this request on another model answers."""

    async def fault(exchange: Exchange) -> None:
        exchange.server.become(model, version)
        exchange.model = exchange.server.model
        await none(exchange)

    return fault


@dataclass(frozen=True)
class Asked:
    """A request for answers. at: when it came, on the monotonic clock."""

    at: float
    images: int
    headers: dict[str, str]


@dataclass
class Faulty:
    """A model served at a port of this machine, with faults.

    faults: what becomes of the first, the second, ... request for answers, counted from 1; `always`: of all others.
    pause: seconds that each request takes at least. images: those that the model answered. billed: those of all
    requests that were answered, heard or not, which is what a provider charges who knows no request again. answered:
    the images of each of those by its name. asked: all that were read or dropped. most: requests that were there at
    once.
    """

    network: Model
    version: str = "1"
    faults: dict[int, Fault] = field(default_factory=dict)
    always: Fault = none
    pause: float = 0.0
    images: int = 0
    billed: int = 0
    most: int = 0
    answered: dict[str, int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._port, self._here, self._first = 0, 0, 0
        self._server: uvicorn.Server | None = None
        self._back = threading.Lock()
        self.become(self.network, self.version)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def become(self, network: Model, version: str) -> None:
        """Serve another model, which knows no request of the one before."""
        self.network, self.version = network, version

        def answer(images: Tensor) -> Tensor:
            self.images += len(images)
            return network(images)

        self.model = serving.app(answer, NAME, version, SHAPE, CLASSES)

    def plan(self, faults: dict[int, Fault] | None = None, always: Fault = none) -> None:
        """Another schedule, whose first request is the next."""
        self._first, self.faults, self.always = len(self.asked), faults or {}, always

    def start(self) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._serve,
                interface="asgi3",
                lifespan="off",
                ws="none",
                http="h11",
                log_config=None,
                log_level="critical",
            )
        )
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def stop(self) -> None:
        with self._back:  # whoever went away for a while comes back before
            assert self._server
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()

    def go_away(self, seconds: float) -> None:
        """End every connection, take no other from now on, and be back in so many seconds; in uvicorn's loop."""
        assert self._server
        for listener in self._server.servers:  # before the connections: nobody comes back, and loses an answer again
            listener.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        threading.Thread(target=self._restart, args=(seconds,)).start()

    def _restart(self, seconds: float) -> None:
        """Be away for so long, and come back without a memory of requests."""
        with self._back:
            assert self._server
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
            time.sleep(seconds)
            self.become(self.network, self.version)
            self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith("/infer"):
            await self.model(scope, receive, send)
            return
        exchange = Exchange(self, self.model, scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        number = len(self.asked) - self._first + 1
        fault, place = self.faults.get(number, self.always), len(self.asked)
        self.asked.append(Asked(time.monotonic(), 0, headers))
        self._here += 1
        self.most = max(self.most, self._here)
        try:
            if fault is not dropped:
                await exchange.read()
                self.asked[place] = Asked(self.asked[place].at, exchange.images, headers)
            await asyncio.sleep(self.pause)
            await fault(exchange)
        finally:
            self._here -= 1
