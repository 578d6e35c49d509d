"""A black box behind a URL, asked with manners: few requests at once, no faster than it allows, again if it faltered.

Every attempt is in the journal before it is made and every answer before anyone sees it, so that a killed run neither
loses an answer nor pays for it twice. A request bears a name made of what it asks, the same at each attempt: an
endpoint that knows it already need not count it again.
"""

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import torch
from torch import Tensor

from bench.boxes.described import Endpoint
from bench.boxes.http import oip, wire
from bench.boxes.http.bill import Bill
from bench.boxes.http.turns import Turns
from bench.boxes.http.wire import Garbage
from bench.errors import UsageError, shown
from budgets.distinct import hashes
from budgets.journal import Failed, Journal
from results.store import digest

BUSY = {408, 425, 429, 500, 502, 503, 504}  # states of an endpoint that may pass
BEFORE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)  # failures before anything was sent
FIRST_WAIT = 0.3  # seconds until the second attempt, and twice as many until each further one
MOST_WAIT = 30.0  # seconds between two attempts, unless the endpoint asks for more
LONGEST = 300  # characters of what is told of an endpoint


class Faltered(Exception):
    """An attempt that gave no answer and may be made again.

    after: seconds that the endpoint asks for. charged: whether it may be on the bill.
    """

    def __init__(self, why: str, after: float = 0.0, *, charged: bool = False) -> None:
        super().__init__(why)
        self.after, self.charged = after, charged


class Changed(UsageError):
    """Another model answers than before."""


class _NotMade(Exception):
    """A request that was not sent, for another one has failed for good."""


class Client:
    """The box as an oracle sees it: float images N x C x H x W in [0, 1] -> probabilities N x K, or classes of N.

    name: of who asks, a part of each request's name. version: of the model that is wanted, or any. check: raises before
    a request where this process may send none any more. Raises UsageError, one line, for what asking again cannot mend.
    """

    def __init__(
        self,
        box: Endpoint,
        classes: int,
        journal: Journal,
        bill: Bill,
        name: str,
        version: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._box, self._classes, self._journal, self._bill, self._name = box, classes, journal, bill, name
        self._at, self._check = 0, check
        self._version = version
        self._model: oip.Model | None = None
        self._failure: Exception | None = None  # the first that cannot be mended
        self._not_before = 0.0  # on the monotonic clock
        try:
            headers = wire.headers_of(box)
            self._turns = Turns(bill.folder / "turns", box.concurrency, box.rate)
        except BaseException:
            journal.close()  # which nobody else has: this process may try again
            raise
        self._secrets = wire.secrets_of(box, headers)
        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Semaphore(box.concurrency)
        limits = httpx.Limits(max_keepalive_connections=box.concurrency)
        self._http = httpx.AsyncClient(headers=headers, timeout=box.timeout, limits=limits, trust_env=False)

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
        self._loop.run_until_complete(self._look(patience=0.0))  # whoever mistyped an address need not wait long

    async def _look(self, patience: float) -> None:
        box = self._box
        if box.health:
            await self._patiently(lambda: self._get(box.health), patience)
        if box.adapter == "oip2":
            if not box.model:
                self._box = box.model_copy(update={"model": await self._only_model(patience)})
            metadata = await self._patiently(lambda: self._get("{base}/v2/models/{model}"), patience)
            self._model = oip.model_of(metadata, f"model {self._box.model} of {box.base}")
            self._see_version(self._model.version)
            if self._model.datatype == "UINT8" and box.inputs != "uint8":
                told = f"model {self._box.model} of {box.base} takes images of 8 bits"
                raise UsageError(f"{told}: wanted a YAML with inputs: uint8")

    async def _only_model(self, patience: float) -> str:
        listed = await self._patiently(lambda: self._get("{base}/v2/repository/index", "POST"), patience)
        try:
            names = sorted({str(model["name"]) for model in listed})
        except wire.MISFITS:
            names = []
        if len(names) != 1:
            told = f"black box {self._box.base} has the models {', '.join(names) or '(none are listed)'}"
            raise UsageError(f"{self._line(told)}: say which with `model`")
        return names[0]

    async def _get(self, template: str, method: str = "GET") -> Any:
        """What a question that costs nothing is answered; None for what is no JSON."""
        url = wire.address(self._box, template)
        try:
            response = await self._http.request(method, url, json={} if method == "POST" else None)
        except httpx.RequestError as error:
            raise Faltered(self._line(f"{url}: {type(error).__name__} {error}")) from None
        self._check_state(response)
        try:
            return response.json()
        except wire.MISFITS:
            return None

    async def _all(self, pieces: list[tuple[int, Tensor]]) -> list[Tensor]:
        """Every piece to its end. Where one fails for good no other is begun, but an answer that is on its way is not
        thrown away."""
        if self._box.adapter == "oip2" and self._model is None:
            await self._look(self._box.patience)
        self._failure = None
        found = await asyncio.gather(*(self._piece(*piece) for piece in pieces))
        if self._failure:
            raise self._failure
        return [answered for answered in found if answered is not None]

    async def _piece(self, at: int, images: Tensor) -> Tensor | None:
        """The answers to one request's images, from the journal or from the endpoint; None where it failed."""
        try:
            sent = (images * 255).round().to(torch.uint8) if self._box.inputs == "uint8" else images
            prints = hashes(sent.cpu()).tobytes()
            kept = self._journal.find(at, prints)
            if kept is not None:
                return kept
            id = f"{self._name}-{at}-{digest(prints.hex())[:12]}"
            async with self._free:  # also between two attempts: an endpoint in need is not sent others meanwhile
                answered: Tensor = await self._patiently(lambda: self._attempt(at, images, id), self._box.patience)
                await asyncio.to_thread(
                    self._journal.keep, at, prints, id, answered
                )  # others need not wait for the disk
                return answered
        except Exception as error:
            self._failure = self._failure or error
            return None

    async def _patiently(self, attempt: Callable[[], Awaitable[Any]], patience: float) -> Any:
        """What the attempt gives at last; UsageError with the last reason when it has been made often enough.

        That is `retries` times more where it may be on the bill, and where it is not, also until `patience` is over.
        """
        begun, number, charged = time.monotonic(), 0, 0
        while True:
            try:
                return await attempt()
            except Faltered as error:
                faltered = error
            number, charged = number + 1, charged + faltered.charged
            wait = max(_backoff(number), faltered.after)
            enough = number > self._box.retries and time.monotonic() + wait > begun + patience
            if charged > self._box.retries or enough:
                told = f"gave no answer in {number} attempts: {faltered}"
                raise UsageError(f"black box {self._box.base} {told}") from faltered
            await asyncio.sleep(wait)

    async def _attempt(self, at: int, images: Tensor, id: str) -> Tensor:
        request = self._request(images, id)
        async with self._turns.one():
            await asyncio.sleep(self._not_before - time.monotonic())
            if self._failure:
                raise _NotMade
            self._reserve(at, len(images), id)
            try:
                response = await self._http.send(request)
                self._check_state(response)
                return self._answers(response, len(images), id)
            except (Faltered, UsageError, Garbage, httpx.RequestError) as error:
                failure: Exception = error
            raise self._told(failure, at, len(images), id)  # out of reach of a trace that quotes what is masked here

    def _reserve(self, at: int, n: int, id: str) -> None:
        """Put a request on the bill and in the journal, or in neither."""
        self._check()
        self._bill.reserve(n)
        try:
            self._journal.sent(at, n, id)
        except Exception:
            self._bill.give_back(n)
            raise

    def _request(self, images: Tensor, id: str) -> httpx.Request:
        box = self._box
        how = oip.request(box, self._model, images, id) if self._model else wire.request(box, images, id, self._classes)
        return self._http.build_request(box.method, wire.address(box, box.url), **how)

    def _answers(self, response: httpx.Response, n: int, id: str) -> Tensor:
        if self._model:
            answered, version = oip.answers(self._box, response, id, n, self._classes)
        else:
            answered, version = wire.answers(self._box, response, n, self._classes)
        self._see_version(version)
        return answered

    def _see_version(self, version: str) -> None:
        """Changed, where it is another than before."""
        version = self._line(version)
        if self._version and version and version != self._version:
            told = f"its model was version {self._version}, is {version}"
            raise Changed(f"black box {self._box.base} has changed: {told}")
        self._version = version or self._version

    def _told(self, error: Exception, at: int, n: int, id: str) -> Exception:
        """Note in the journal and on the bill how an attempt ended; returns what is to be raised."""
        kind = _kind_of(error)
        why = self._line(f"{type(error).__name__} {error}" if isinstance(error, httpx.RequestError) else str(error))
        self._journal.failed(kind, at, n, id, why)
        if kind == "refused":
            self._bill.give_back(n)
        return error if isinstance(error, Faltered | UsageError) else Faltered(why, charged=kind != "refused")

    def _check_state(self, response: httpx.Response) -> None:
        """Faltered for a state that may pass, UsageError for one that will not."""
        if response.is_success:
            return
        said = f"{response.request.url} says {response.status_code} {response.reason_phrase} {response.text}"
        told, after = self._line(said), _seconds(response.headers.get("Retry-After", ""))
        if response.status_code not in BUSY:
            raise UsageError(f"black box {told}")
        if after > self._box.patience:
            raise UsageError(f"black box {told} and asks to wait {after:,.0f} s; `patience` is {self._box.patience:g}")
        self._not_before = max(self._not_before, time.monotonic() + after)
        raise Faltered(told, after)

    def _line(self, text: str) -> str:
        """What an endpoint has said in one line of moderate length, without what is secret in headers and addresses."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        words = " ".join(shown(text).split())
        return "".join(letter if letter.isprintable() else "?" for letter in words[:LONGEST])


def _kind_of(error: Exception) -> Failed:
    """How a journal has it: `lost` where the request may have been answered, and nobody heard it."""
    if isinstance(error, Garbage | Changed | httpx.DecodingError):
        return "unusable"
    return "refused" if isinstance(error, (Faltered, UsageError, *BEFORE)) else "lost"


def _backoff(number: int) -> float:
    """Seconds to wait after so many attempts, somewhat more or less, so that not all come again at once."""
    return float(min(MOST_WAIT, FIRST_WAIT * 2 ** min(number - 1, 30)) + random.uniform(0, FIRST_WAIT))


def _seconds(text: str) -> float:
    """What Retry-After says, a number of seconds or a date, as seconds from now; 0 for nothing that one understands."""
    try:
        parsed = email.utils.parsedate_tz(text)
        return max(0.0, email.utils.mktime_tz(parsed) - time.time() if parsed else float(text))
    except wire.MISFITS:
        return 0.0
