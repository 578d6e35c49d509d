"""What a method may ask of the teacher, and the meter that counts it."""

from budgets.answers import KINDS, Answers, kind_of
from budgets.budget import PRESETS, Budget, BudgetError, Inputs, Preset, parse_queries
from budgets.oracle import BudgetExhausted, Oracle

__all__ = [
    "KINDS",
    "PRESETS",
    "Answers",
    "Budget",
    "BudgetError",
    "BudgetExhausted",
    "Inputs",
    "Oracle",
    "Preset",
    "kind_of",
    "parse_queries",
]
