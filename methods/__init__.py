"""The methods: each a module that reads like its paper, listed here by name.

A method module has

- a docstring: the paper with a link, the idea, and *Differs from* what was published or released;
- `ANSWERS`: the kinds of answer it can learn from: `"labels"`, `"probs"`, `"rounded"` (probabilities of few decimals),
  and `"partial"` (NaN for the classes of which nothing was revealed);
- `INPUTS`, if it cannot do with both: the kinds of image it can send, `"float"` or `"uint8"`;
- `DATA`: `"none"`, or what it needs besides the oracle (`"train"`: the teacher's own training images,
  `"other"`: images of another data set);
- `PROTOCOL`: `"anytime"` if its student after B queries does not depend on how many will follow, so
  that one run gives the whole curve, else `"per_budget"`;
- `RESULTS`: the version of its results, raised by hand when a change makes any of them differ; a method from
  outside needs none, its version is a hash of its code;
- `Config`: its settings, frozen and typed, each default from one named table or script;
- `distill(oracle, student, config, run)`: a generator that trains `student` in place and yields a few
  figures after each round. It holds no test data, clock, logger, seed or query count: the oracle,
  by raising BudgetExhausted, ends the loop.
"""

from types import ModuleType
from typing import get_args

from budgets import Inputs
from methods import (
    dfhl_rs,
    dfme,
    dfms,
    dip_kd,
    disguide,
    dual_students,
    ideal,
    knockoff,
    maze,
    noise,
    qedg,
    real,
    sketch,
    zsdb3kd,
)

_ALL: tuple[Inputs, ...] = get_args(Inputs)
METHODS: dict[str, ModuleType] = {
    "ideal": ideal,
    "dfme": dfme,
    "maze": maze,
    "disguide": disguide,
    "dual_students": dual_students,
    "dfms": dfms,
    "zsdb3kd": zsdb3kd,
    "qedg": qedg,
    "dfhl_rs": dfhl_rs,
    "dip_kd": dip_kd,
    "sketch": sketch,
    "noise": noise,
    "real": real,
    "knockoff": knockoff,
}


def inputs_of(method: ModuleType) -> tuple[Inputs, ...]:
    """The kinds of image that a method can send."""
    return tuple(getattr(method, "INPUTS", _ALL))
