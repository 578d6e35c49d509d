"""Save and restore a running cell."""

import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.errors import UsageError
from methods.pool import Pool
from methods.run import Run
from results.claims import guard
from results.store import write_with

FORMAT = 3  # of what is saved; in the second, pools were written anew each time
LEAST = 20.0  # seconds between two checkpoints
COST = 20  # a checkpoint may take one part in so many of the time
PIECE = 2**26  # bytes of a pool that get a file of their own


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    write_with(path, lambda file: torch.save(state, file))


class Checkpoint:
    """The checkpoint of a cell: checkpoint.pt, which alone says what is saved, and the pieces that it names.

    What is in a pool stays as it is, so it is written once: PIECE bytes of it at a time into a file of their own, which
    is never written again, and what is left over into checkpoint.pt. A file that checkpoint.pt does not name counts for
    nothing; it is of an attempt that was killed, or not needed any more, and goes once the next checkpoint is in place.

    key: what a later attempt must have in common with this one.
    """

    def __init__(self, folder: Path, key: object) -> None:
        self._folder, self._file, self._key = folder, folder / "checkpoint.pt", key
        self._pieces: dict[str, list[tuple[str, int]]] = {}  # of each pool, files and up to which image they go

    def load(self, device: torch.device) -> tuple[dict[str, Any] | None, str]:
        """What was saved under this key, and why there is nothing where a file of another key is there.

        Raises UsageError for a file that cannot be read: it is left for a person to look at.
        """
        if not self._file.exists():
            return None, ""
        state = self._read("checkpoint.pt", device)
        if state.get("key") != self._key:
            return None, f"its checkpoint is of {state.get('key')}, not of {self._key}"
        self._pieces = state["pieces"]
        state["run"]["pieces"] = {
            name: self._read_all([file for file, _ in pieces], device) for name, pieces in self._pieces.items()
        }
        return state, ""

    def save(self, run: Run, **state: Any) -> None:
        """Write all that is new; until its last step the checkpoint before this one is what counts."""
        self._pieces = {name: list(self._saved(name, pool)) for name, pool in run.pools().items()}
        last = {name: pieces[-1][1] for name, pieces in self._pieces.items() if pieces}
        save(self._file, {"key": self._key, "pieces": self._pieces, "run": run.state_dict(last), **state})
        self._tidy()

    def remove(self) -> None:
        """Leave nothing of it."""
        self._file.unlink(missing_ok=True)
        self._pieces = {}
        self._tidy()

    def _saved(self, name: str, pool: Pool) -> Iterator[tuple[str, int]]:
        """The pieces in which the pool is saved, those that are not yet on the disk written now."""
        first = done = pool.added - len(pool)  # what the pool has forgotten nobody will read
        for file, stop in self._pieces.get(name, []):
            if stop > first:
                done = stop
                yield file, stop
        count = max(1, PIECE // max(1, pool.bytes_each))
        while pool.added - done >= count:
            file = f"rows-{secrets.token_hex(6)}.pt"
            save(self._folder / file, pool.state_dict(done, done + count))
            done += count
            yield file, done

    def _tidy(self) -> None:
        guard(self._folder)
        named = {file for pieces in self._pieces.values() for file, _ in pieces}
        for pattern in ("rows-*.pt", ".rows-*", ".checkpoint.pt.*"):
            for file in self._folder.glob(pattern):
                if file.name not in named:
                    file.unlink()

    def _read_all(self, files: Iterable[str], device: torch.device) -> Iterator[dict[str, Any]]:
        """One after the other, so that no more than one is held beside the pool that takes it in."""
        for file in files:
            yield self._read(file, device)

    def _read(self, file: str, device: torch.device) -> dict[str, Any]:
        try:
            return dict(torch.load(self._folder / file, map_location=device, weights_only=True))
        except Exception as error:
            raise UsageError(
                f"{self._folder / file} cannot be read ({type(error).__name__}); delete {self._file.name} to start the "
                "cell over"
            ) from error


class Pace:
    """Says when a checkpoint is due: not too often, and ever less often the longer one takes to write.

    least: seconds.
    """

    def __init__(self, least: float = LEAST) -> None:
        self._least = self._interval = least
        self._last = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._interval

    def saved(self, seconds: float) -> None:
        """Take in that one was written in so many seconds."""
        self._interval = max(self._least, COST * seconds)
        self._last = time.monotonic()
