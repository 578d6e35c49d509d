"""What a method may ask of the teacher, and the meter that counts it."""

from budgets.budget import PRESETS, Answers, Budget, BudgetError, Inputs, Preset, parse_queries
from budgets.oracle import BudgetExhausted, Oracle

__all__ = [
    "PRESETS",
    "Answers",
    "Budget",
    "BudgetError",
    "BudgetExhausted",
    "Inputs",
    "Oracle",
    "Preset",
    "parse_queries",
]
