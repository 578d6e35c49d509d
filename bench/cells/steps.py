"""How often a student was updated, whatever the method and its optimizers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


class Steps:
    """The number of steps of any optimizer that the student's parameters went through, from `done` on."""

    def __init__(self, student: nn.Module, done: int = 0) -> None:
        self._of, self.done = next(student.parameters()), done

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count while this is open."""
        handle = register_optimizer_step_post_hook(self._stepped)
        try:
            yield
        finally:
            handle.remove()

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        self.done += any(part is self._of for group in optimizer.param_groups for part in group["params"])
