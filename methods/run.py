"""What a method is given besides the oracle and its student."""

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from methods.images import Images
from methods.pool import Pool

NOTHING: Mapping[str, int] = {}


class Stateful(Protocol):
    """Anything whose state can be saved and restored: optimizers, modules, a Pool."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


class Run:
    """The device, the randomness and the tracked state of one run of a method.

    device: where the student lives and where images should be made.
    rng: the device's seeded generator, to be passed to every random call; weight initialisation and
        dropout, which take no generator, are seeded by the runner.
    round: how many rounds are complete; 0 unless the run was resumed.
    data: what a method whose `DATA` is not `"none"` asked for: N images, of which `run.data[index]` are floats in
        [0, 1]; else None.
    shown: what `show` named, each network with a copy that the runner keeps and measures.
    """

    def __init__(
        self,
        device: torch.device,
        rng: torch.Generator,
        *,
        data: Images | None = None,
        saved: dict[str, Any] | None = None,
    ) -> None:
        self.device = device
        self.rng = rng
        self.data = data
        self.shown: dict[str, tuple[nn.Module, nn.Module]] = {}
        self.round: int = saved["round"] if saved else 0
        self._saved = saved
        self._parts: dict[str, Stateful] | None = None

    def track(self, **parts: Stateful) -> None:
        """Name the objects that make up the method's state, once, before the first round.

        They are saved between rounds. In a resumed run this call puts them, and the random
        generators, back to where they were, so the next thing a method does is the next round.
        """
        if self._parts is not None:
            raise RuntimeError("run.track was called twice: name all parts in one call")
        self._parts = parts
        if self._saved is None:
            return
        for name, part in parts.items():
            for piece in self._saved.get("pieces", {}).get(name, ()):
                part.load_state_dict(piece)
            part.load_state_dict(self._saved["parts"][name])
        torch.set_rng_state(self._saved["cpu_rng"].cpu())
        self.rng.set_state(self._saved["rng"].cpu())  # generators of any device keep their state on the CPU
        self._saved = None

    def check_resumed(self) -> None:
        """RuntimeError if the run was resumed and its state is still not put back; the runner asks after each round."""
        if self._saved is not None:
            raise RuntimeError(
                "a resumed run went on without its state: name what survives a round with one call of "
                "run.track(...), before the first query"
            )

    def show(self, **networks: nn.Module) -> None:
        """Name networks to be measured beside the student and shown apart from it, once, after `track`.

        Each takes images and returns scores, N x K, such as the vote of an ensemble that a paper reports.
        """
        self.shown = {name: (network, copy.deepcopy(network).eval()) for name, network in networks.items()}

    def pools(self) -> dict[str, Pool]:
        """Those of the tracked parts that are pools, whose images can be saved once each."""
        return {name: part for name, part in (self._parts or {}).items() if isinstance(part, Pool)}

    def state_dict(self, pieces: Mapping[str, int] = NOTHING) -> dict[str, Any]:
        """The state between two rounds, for a later `Run(saved=...)`.

        pieces: pool -> up to which of its images it is saved elsewhere; such a `saved` has them under "pieces".
        """
        pools = {name: pool.state_dict(pieces.get(name, 0)) for name, pool in self.pools().items()}
        parts = (self._parts or {}).items()
        return {
            "round": self.round,
            "parts": pools | {name: part.state_dict() for name, part in parts if name not in pools},
            "cpu_rng": torch.get_rng_state(),
            "rng": self.rng.get_state(),
        }
