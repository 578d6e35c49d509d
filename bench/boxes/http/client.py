"""A black box behind a URL, asked with manners: few requests at once, no faster than it allows, again if it faltered.

Every attempt is in the journal before it is made and every answer before anyone sees it, so that a killed run neither
loses an answer nor pays for it twice. A request bears a name made of what it asks, the same at each attempt: an
endpoint that knows it already need not count it again.
"""

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import torch
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from torch import Tensor

from bench.boxes.described import Endpoint
from bench.boxes.http import oip, wire
from bench.boxes.http.bill import Bill
from bench.boxes.http.wire import Garbage
from bench.errors import UsageError
from budgets.journal import Failed, Journal
from budgets.oracle import fingerprints
from results.store import digest

BUSY = {408, 425, 429, 500, 502, 503, 504}  # states of an endpoint that may pass
BEFORE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)  # failures before anything was sent
MOST_WAIT = 30.0  # seconds between two attempts, unless the endpoint asks for more


class Faltered(Exception):
    """An attempt that gave no answer and may be made again. after: seconds that the endpoint asks for."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class Changed(UsageError):
    """Another model answers than before."""


class Client:
    """The box as an oracle sees it: float images N x C x H x W in [0, 1] -> probabilities N x K, or classes of N.

    name: of who asks, a part of each request's name. Raises UsageError, one line, for what cannot be mended by asking
    again.
    """

    def __init__(self, box: Endpoint, classes: int, journal: Journal, bill: Bill, name: str) -> None:
        self._box, self._classes, self._journal, self._bill, self._name = box, classes, journal, bill, name
        self._at = 0
        self._version = ""
        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Semaphore(box.concurrency)
        self._pace = AsyncLimiter(box.rate, 1.0) if box.rate else None
        headers = wire.headers_of(box)
        self._http = httpx.AsyncClient(headers=headers, timeout=box.timeout, trust_env=False)
        self._model: oip.Model | None = None

    def __call__(self, images: Tensor) -> Tensor:
        pieces, starts = images.split(self._box.batch), range(self._at, self._at + len(images), self._box.batch)
        answered = self._loop.run_until_complete(self._all(list(zip(starts, pieces, strict=True))))
        self._at += len(images)
        return torch.cat(answered).to(images.device)

    def resume(self, spent: int) -> None:
        """Go on behind so many images: what the journal knows from there on is not asked again."""
        self._at = spent

    @property
    def version(self) -> str:
        """The version of the model, as the latest answer or its metadata name it."""
        return self._version

    def close(self) -> None:
        self._loop.run_until_complete(self._http.aclose())
        self._loop.close()
        self._journal.close()

    def look(self) -> None:
        """See that the endpoint is there, and what model it has; no image is sent. UsageError where it is not."""
        self._loop.run_until_complete(self._look())

    async def _look(self) -> None:
        box = self._box
        if box.health:
            await self._patiently(lambda: self._get(wire.address(box, box.health)))
        if box.adapter == "oip2":
            self._model = await self._described()
            self._version = self._model.version

    async def _described(self) -> oip.Model:
        name = self._box.model or await self._only_model()
        metadata = await self._patiently(lambda: self._get(f"{self._box.base.rstrip('/')}/v2/models/{name}"))
        self._box = self._box.model_copy(update={"model": name})
        return oip.model_of(metadata, f"model {name} of {self._box.base}")

    async def _only_model(self) -> str:
        index = f"{self._box.base.rstrip('/')}/v2/repository/index"
        listed = await self._patiently(lambda: self._get(index, "POST"))
        names = sorted({str(model["name"]) for model in listed})
        if len(names) != 1:
            raise UsageError(f"black box {self._box.base} has the models {', '.join(names)}: say which with `model`")
        return names[0]

    async def _get(self, url: str, method: str = "GET") -> Any:
        """What a question that costs nothing is answered."""
        try:
            response = await self._http.request(method, url, json={} if method == "POST" else None)
        except httpx.TransportError as error:
            raise Faltered(f"{url}: {type(error).__name__} {error}".strip()) from error
        self._check_state(response)
        try:
            return response.json()
        except ValueError:
            return None

    async def _all(self, pieces: list[tuple[int, Tensor]]) -> list[Tensor]:
        """Every piece to its end, also where one failed: an answer that is on its way is not thrown away."""
        if self._box.adapter == "oip2" and self._model is None:
            await self._look()
        found = await asyncio.gather(*(self._piece(*piece) for piece in pieces), return_exceptions=True)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return [result for result in found if isinstance(result, Tensor)]

    async def _piece(self, at: int, images: Tensor) -> Tensor:
        """One request's images, from the journal or from the endpoint."""
        prints = fingerprints((images * 255).round().to(torch.uint8) if self._box.inputs == "uint8" else images)
        kept = self._journal.find(at, prints)
        if kept is not None:
            return kept
        id = f"{self._name}-{at}-{digest(prints.hex())[:12]}"
        answered: Tensor = await self._patiently(lambda: self._attempt(at, images, id))
        self._journal.keep(at, prints, id, answered)
        return answered

    async def _patiently(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """What the attempt gives at last; UsageError with the last reason when it has been made often enough."""
        again = AsyncRetrying(
            stop=stop_after_attempt(self._box.retries + 1),
            wait=_wait,
            retry=retry_if_exception_type(Faltered),
            reraise=True,
        )

        async def once() -> Any:  # tenacity awaits a coroutine function, and no lambda that gives a coroutine
            return await attempt()

        try:
            return await again(once)
        except Faltered as error:
            attempts = self._box.retries + 1
            raise UsageError(f"black box {self._box.base} gave no answer in {attempts} attempts: {error}") from error

    async def _attempt(self, at: int, images: Tensor, id: str) -> Tensor:
        n = len(images)
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._free)
            if self._pace:
                await turn.enter_async_context(self._pace)
            self._bill.reserve(n)
            self._journal.sent(at, n, id)
            try:
                response = await self._send(images, id)
                self._check_state(response)
                return self._answers(response, n, id)
            except (Faltered, UsageError, Garbage, httpx.TransportError) as error:
                raise self._told(error, at, n, id) from error

    async def _send(self, images: Tensor, id: str) -> httpx.Response:
        box = self._box
        how = oip.request(box, self._model, images, id) if self._model else wire.request(box, images, id, self._classes)
        return await self._http.request(box.method, wire.address(box, box.url), **how)

    def _answers(self, response: httpx.Response, n: int, id: str) -> Tensor:
        if self._model:
            answered, version = oip.answers(self._box, response, id, n, self._classes)
        else:
            answered, version = wire.answers(self._box, response, n, self._classes)
        if self._version and version and version != self._version:
            told = f"its model was version {self._version}, is {version}"
            raise Changed(f"black box {self._box.base} has changed: {told}")
        self._version = version or self._version
        return answered

    def _told(self, error: Exception, at: int, n: int, id: str) -> Exception:
        """Note in the journal and on the bill how an attempt ended; returns what is to be raised."""
        kind: Failed = "refused" if isinstance(error, Faltered | UsageError | BEFORE) else "lost"
        kind = "unusable" if isinstance(error, Garbage | Changed) else kind
        why = f"{type(error).__name__} {error}".strip() if isinstance(error, httpx.TransportError) else str(error)
        self._journal.failed(kind, at, n, id, why)
        if kind == "refused":
            self._bill.give_back(n)
        return error if isinstance(error, Faltered | UsageError) else Faltered(why)

    def _check_state(self, response: httpx.Response) -> None:
        """Faltered for a state that may pass, UsageError for one that will not."""
        if response.is_success:
            return
        said = " ".join(response.text.split())[:200]
        told = f"{response.request.url} says {response.status_code} {response.reason_phrase} {said}".strip()
        if response.status_code in BUSY:
            raise Faltered(told, _seconds(response.headers.get("Retry-After", "")))
        raise UsageError(f"black box {told}")


_BACKOFF = wait_exponential_jitter(initial=0.3, max=MOST_WAIT, jitter=0.3)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt: longer each time, and as long as the endpoint asks for."""
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), error.after if isinstance(error, Faltered) else 0.0)


def _seconds(text: str) -> float:
    """What Retry-After says, a number of seconds or a date, as seconds from now; 0 for nothing that one understands."""
    try:
        return max(0.0, float(text))
    except ValueError:
        parsed = email.utils.parsedate_tz(text)
        return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else 0.0
