"""How many queries a method may spend, and what one answer reveals."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from budgets.answers import Answers, AnswersError, kind_of

Inputs = Literal["float", "uint8"]

MOST = 10**12  # queries: more is a slip of the hand
_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000}
_NUMBER = re.compile(r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)([km]?)", re.IGNORECASE)


class BudgetError(ValueError):
    """A budget that cannot be meant: the message says what was given and what is wanted."""


@dataclass(frozen=True)
class Budget:
    """A number of queries under fixed terms.

    queries: images that may be sent to the teacher; a repeated image is a query again.
    answers: what one answer reveals, such as the top-1 class (`labels`) or all class probabilities (`probs`);
        answers.py has the others.
    inputs: `float` images in [0, 1], or `uint8`, where the oracle rounds to the 256 levels that a
        real image API receives.
    """

    queries: int
    answers: Answers = "labels"
    inputs: Inputs = "float"

    def __post_init__(self) -> None:
        if type(self.queries) is not int or self.queries < 1:
            raise BudgetError(f"budget {self.queries!r}: wanted a whole number of queries, 1 or more")
        if self.queries > MOST:
            raise BudgetError(f"budget {_short(self.queries)}: wanted {MOST:,} queries at most")
        try:
            kind_of(self.answers)
        except AnswersError as error:
            raise BudgetError(str(error)) from error
        if self.inputs not in get_args(Inputs):
            raise BudgetError(f"inputs {self.inputs!r}: wanted one of {', '.join(get_args(Inputs))}")


@dataclass(frozen=True)
class Preset:
    """A budget that a paper or its released script uses, with the place it comes from."""

    queries: int
    source: str


PRESETS = {
    "qedg-grey": Preset(5_000, "QEDG (AAAI 2025), released scripts for MNIST and Fashion-MNIST"),
    "qedg-colour": Preset(30_000, "QEDG (AAAI 2025), released scripts for SVHN and CIFAR-10"),
    "ideal-mnist": Preset(25_000, "IDEAL (ICLR 2023), README command: 100 rounds x 250 images, as claimed"),
    "ideal-mnist-counted": Preset(1_262_500, "the same command with every image sent counted: 250 x 100 x 101 / 2"),
    "dfme-svhn": Preset(2_000_000, "DFME (CVPR 2021), Table 1, SVHN"),
    "dfms": Preset(8_000_000, "DFMS (CVPR 2022), CIFAR-10, hard labels"),
    "dfme-cifar10": Preset(20_000_000, "DFME (CVPR 2021), Table 1, CIFAR-10"),
}


def parse_queries(given: str | int) -> int:
    """The number of queries meant by `2500`, `"2.5k"`, `"20M"` or the name of a preset.

    Raises BudgetError for anything else, zero and fractions of a query among them.
    """
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given].queries
    match = _NUMBER.fullmatch(str(given).replace("_", "").strip())
    queries = Decimal(match[1].replace(",", "")) * _SUFFIXES[match[2].lower()] if match else Decimal(0)
    if isinstance(given, bool) or not 1 <= queries <= MOST or queries != int(queries):
        raise BudgetError(
            f"budget {_short(given)}: wanted a whole number of queries such as 2500, 2.5k or 20M, "
            f"or a preset ({', '.join(PRESETS)})"
        )
    return int(queries)


def _short(given: object) -> str:
    """What was given, cut where it is endless."""
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:40]}..."
