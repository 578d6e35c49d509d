"""The meter: the only door to the teacher, and the only counter of what went through it."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from budgets.answers import reveal
from budgets.budget import Budget
from budgets.distinct import Distinct

RESULTS = 1  # of the meter: what is counted, sent and answered


class BudgetExhausted(Exception):
    """The batch would cost more than what is left. Nothing was sent and nothing was charged."""


class Oracle:
    """Answers batches of images and charges each image, repeats included, before it is sent.

    ask: float images N x C x H x W in [0, 1] -> class probabilities N x K, NaN where the black box reveals none, or the
    top-1 classes of N, where it reveals no more.
    shape, classes: (C, H, W) and K, what the documentation of an image API would tell.
    """

    __slots__ = ("__ask", "__budget", "__distinct", "__spent", "__turn", "classes", "shape")

    def __init__(
        self,
        ask: Callable[[Tensor], Tensor],
        budget: Budget,
        *,
        shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        self.__budget = budget
        self.shape = shape
        self.classes = classes
        self.__ask = ask
        self.__turn = threading.Lock()
        self.__spent = 0
        self.__distinct = Distinct(budget.queries)

    @property
    def budget(self) -> Budget:
        """How many queries in all, and what an answer reveals."""
        return self.__budget

    @property
    def spent(self) -> int:
        """Images charged so far."""
        return self.__spent

    @property
    def remaining(self) -> int:
        """Images that may still be sent."""
        return self.budget.queries - self.__spent

    @property
    def distinct(self) -> int:
        """Different images among those sent, told apart by a 64-bit hash of the bytes sent."""
        return len(self.__distinct)

    def __call__(self, images: Tensor) -> Tensor:
        """Ask the teacher about float images N x C x H x W in [0, 1].

        Returns the top-1 classes, int64 of N, or the probabilities, float of N x K, as the budget says (NaN where it
        reveals none), without a gradient. Raises BudgetExhausted when the budget does not cover all N, and
        ValueError for what no image API would take; neither charges anything.
        """
        sent = self._as_sent(images.as_subclass(Tensor))
        with self.__turn:
            if len(sent) > self.remaining:
                left = f"{self.remaining} of {self.budget.queries} queries left"
                raise BudgetExhausted(f"{len(sent)} images asked, {left}")
            self.__spent += len(sent)
            self.__distinct.add(sent)
        answered = self.__ask(sent / 255 if sent.dtype == torch.uint8 else sent).detach().clone()
        return reveal(answered, self.budget.answers)

    def _as_sent(self, images: Tensor) -> Tensor:
        """A private copy of the images as they cross the wire: float32, or uint8 when the budget says so."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape or len(images) == 0:
            raise ValueError(f"images of shape {tuple(images.shape)}: wanted N x {' x '.join(map(str, self.shape))}")
        if not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}: wanted floats in [0, 1]")
        low, high = torch.stack(images.detach().aminmax()).tolist()  # one wait for a GPU, not two
        if not 0 <= low <= high <= 1:
            raise ValueError(f"images between {low:.4g} and {high:.4g}: wanted [0, 1]")
        sent = images.detach().to(torch.float32, copy=True)
        return sent.mul_(255).round_().to(torch.uint8) if self.budget.inputs == "uint8" else sent

    def state_dict(self) -> dict[str, Any]:
        """The count, to be carried over a restart."""
        return {"spent": self.__spent, "distinct": self.__distinct.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an earlier count; ValueError above the budget, or below what is spent here."""
        if not self.__spent <= state["spent"] <= self.budget.queries:
            raise ValueError(f"{state['spent']} queries spent: wanted {self.__spent} to {self.budget.queries}")
        self.__spent = state["spent"]
        self.__distinct.load_state_dict(state["distinct"])
