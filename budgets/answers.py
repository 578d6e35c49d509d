"""What one answer of a black box reveals: the terms of a budget, and a box's answer cut down to them.

labels     the top-1 class
probs      all class probabilities
round-D    those, rounded to D decimals
top-K      those of the K likeliest classes
above-T    those of at least T, such as above-0.5
"""

import re
from typing import Literal, get_args

import torch
from torch import Tensor

Answers = str
Kind = Literal["labels", "probs", "rounded", "partial"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NOTHING = -1  # in the place of a top-1 class of which nothing was revealed
_TERMS = re.compile(r"(round|top|above)-(\d+(?:\.\d+)?)")


class AnswersError(ValueError):
    """Terms that no answer can have; the message says what was given and what is wanted."""


def kind_of(answers: Answers) -> Kind:
    """What a method must be able to learn from: `partial` answers lack some classes. Raises AnswersError."""
    if answers in ("labels", "probs"):
        return "labels" if answers == "labels" else "probs"
    rule, number = _parsed(answers)
    whole = number == int(number)
    if (rule == "round" and whole and number <= 6) or (rule == "top" and whole and number >= 1):
        return "rounded" if rule == "round" else "partial"
    if rule == "above" and 0 < number < 1:
        return "partial"
    raise _wrong(answers)


def reveal(answered: Tensor, answers: Answers) -> Tensor:
    """A box's answer as the terms reveal it.

    answered: top-1 classes, int64 of N, or probabilities, float of N x K, NaN where the box keeps one to itself.
    Returns the same shapes: `labels` the classes, all others probabilities, NaN where the terms reveal none. Raises
    ValueError where the box reveals less than the terms promise.
    """
    if kind_of(answers) in ("probs", "rounded") and answered.isnan().any():
        raise ValueError(f"the black box keeps some probabilities to itself: wanted what {answers} reveals")
    return cut(answered, answers)


def cut(answered: Tensor, answers: Answers) -> Tensor:
    """As `reveal`, but what the box keeps to itself stays NaN: to look for it makes a GPU wait."""
    if answers == "labels":
        return top_1(answered)
    if answered.ndim != 2:
        raise ValueError(f"the black box reveals top-1 classes alone: wanted what {answers} reveals")
    if kind_of(answers) == "partial":
        return _partial(answered, answers)
    return answered if answers == "probs" else answered.round(decimals=int(_parsed(answers)[1]))


def top_1(answered: Tensor) -> Tensor:
    """The top-1 classes, int64 of N, of an answer as `reveal` takes it; NOTHING for one that reveals nothing."""
    if answered.ndim == 1:
        return answered
    return answered.nan_to_num(nan=-1.0).argmax(dim=1).masked_fill(answered.isnan().all(dim=1), NOTHING)


def covers(offered: Answers, wanted: Answers) -> bool:
    """Whether a box that offers answers of the first terms can give those of the second."""
    if wanted == offered or offered == "probs":
        return True
    if offered == "labels":
        return False
    if wanted == "labels":
        return _parsed(offered)[0] != "above"  # below its threshold such a box says nothing
    (has, much), (rule, number) = _parsed(offered), _parsed(wanted) if wanted != "probs" else ("", 0.0)
    return has == rule and (number >= much if rule == "above" else number <= much)


def _partial(answered: Tensor, answers: Answers) -> Tensor:
    rule, number = _parsed(answers)
    if rule == "above":
        return answered.masked_fill(~(answered >= number), torch.nan)
    kept = answered.nan_to_num(nan=-1.0).topk(min(int(number), answered.shape[1]), dim=1).indices
    hidden = torch.ones_like(answered, dtype=torch.bool).scatter_(1, kept, value=False)
    return answered.masked_fill(hidden, torch.nan)


def _parsed(answers: Answers) -> tuple[str, float]:
    match = _TERMS.fullmatch(answers) if isinstance(answers, str) else None
    if not match:
        raise _wrong(answers)
    return match[1], float(match[2])


def _wrong(answers: object) -> AnswersError:
    return AnswersError(
        f"answers {str(answers)[:40]!r}: wanted labels, probs, round-D, top-K or above-T, such as top-5"
    )
