"""Whose turn it is to send a request: few at once and none too soon, among all processes that ask one endpoint."""

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from bench.errors import UsageError

POLL = 0.01  # seconds until a process looks again whether another has ended its turn


class Turns:
    """Turns that are taken in a folder, so that a process that is killed holds none.

    concurrency: requests at once. rate: requests a second, evenly spaced; 0 for as many as there are.
    """

    def __init__(self, folder: Path, concurrency: int, rate: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._concurrency, self._rate = folder, concurrency, rate

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A turn, once there is one."""
        while (place := self._free()) is None:
            await asyncio.sleep(POLL)
        with place:  # which lets go of its lock when it is closed
            if self._rate:
                await asyncio.sleep(self._delay())
            yield

    def _free(self) -> IO[str] | None:
        for number in range(self._concurrency):
            file = (self._folder / f"turn-{number}").open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
            except OSError as error:
                file.close()
                told = f"{self._folder}: no locks on this file system ({error.strerror}), by which endpoints are shared"
                raise UsageError(f"{told}; choose another --out") from error
            else:
                return file
        return None

    def _delay(self) -> float:
        """Seconds until the next moment that is nobody else's, which is taken."""
        with (self._folder / "next").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            now, due = time.time(), float(file.read() or 0.0)
            # Of a clock that was set, or of requests at another rate, where it lies further off than turns can.
            moment = due if now < due < now + (self._concurrency + 1) / self._rate else now
            file.truncate(0)
            file.write(repr(moment + 1 / self._rate))
        return moment - now
