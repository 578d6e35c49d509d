"""Save and restore a running cell."""

import time
from pathlib import Path
from typing import Any

import torch

from bench.errors import UsageError
from results.store import write_with

FORMAT = 2  # of what is saved; in the first, the meter kept a hash of each image
LEAST = 20.0  # seconds between two checkpoints
COST = 20  # a checkpoint may take one part in so many of the time


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    write_with(path, lambda file: torch.save(state, file))


def load(path: Path, key: object, device: torch.device) -> tuple[dict[str, Any] | None, str]:
    """The state saved under that key, and why there is none where a file of another key is there.

    Raises UsageError for a file that cannot be read: it is left for a person to look at.
    """
    if not path.exists():
        return None, ""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        saved_under = state["key"]
    except Exception as error:
        raise UsageError(f"{path} cannot be read ({type(error).__name__}); delete it to start the cell over") from error
    return (state, "") if saved_under == key else (None, f"its checkpoint is of {saved_under}, not of {key}")


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
