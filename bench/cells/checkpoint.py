"""Save and restore a running cell."""

import io
from pathlib import Path
from typing import Any

import torch

from bench.errors import UsageError
from results.store import write_bytes


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path, code: str, device: torch.device) -> dict[str, Any] | None:
    """The saved state, or None where there is none or another version of the code wrote it.

    Raises UsageError for a file that cannot be read: it is left for a person to look at.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state if state["code"] == code else None
    except Exception as error:
        raise UsageError(f"{path} cannot be read ({type(error).__name__}); delete it to start the cell over") from error
