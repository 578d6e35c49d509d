"""The contract of a method, as checks that say in plain words what is wrong. Tests hold every method here to it."""

import copy
import gc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.boxes.box import black_box
from budgets import Answers, Budget, BudgetExhausted, Oracle
from methods.run import Run

SHAPE, CLASSES, QUERIES = (1, 8, 8), 4, 97
MOST_ROUNDS = 5_000  # more, within a budget of a hundred queries, is a method that does not end

Complaint = str | None


class StillAsking(BaseException):
    """Ends a method that asks on after its budget is exhausted; no `except Exception` of its own holds it."""


class WatchedOracle(Oracle):
    """An oracle that notes the sizes of the batches it answered, and how often it had to refuse."""

    batches: list[int]
    refused: int

    def __call__(self, images: Tensor) -> Tensor:
        try:
            answers = super().__call__(images)
        except BudgetExhausted as end:
            self.refused += 1
            if self.refused > 3:
                raise StillAsking from end
            raise
        self.batches.append(len(images))
        return answers


class Trial:
    """One run of a method on a small teacher, with all that the checks look at afterwards.

    seen: images that the teacher was shown, through the oracle or round it.
    """

    def __init__(
        self, method: ModuleType, settings: dict[str, Any], answers: Answers, queries: int = QUERIES, seed: int = 0
    ) -> None:
        self.method, self.seen, self.rounds = method, 0, 0
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.teacher, self.student = _teacher(), _student()
            self.teacher_before = copy.deepcopy(self.teacher.state_dict())
            self.teacher.register_forward_hook(self._see)
            self.oracle = WatchedOracle(black_box(self.teacher), Budget(queries, answers), shape=SHAPE, classes=CLASSES)
            self.oracle.batches, self.oracle.refused = [], 0
            self.data = None if method.DATA == "none" else torch.rand(400, *SHAPE)
            self.data_before = copy.deepcopy(self.data)
            self._play(settings, Run(torch.device("cpu"), torch.manual_seed(seed), data=self.data))

    def weights(self) -> Tensor:
        """All of the student's weights and buffers in one vector."""
        return torch.cat([value.flatten().double() for value in self.student.state_dict().values()])

    def _play(self, settings: dict[str, Any], run: Run) -> None:
        """As the runner does it: round after round until the method or its budget ends."""
        try:
            for _ in self.method.distill(self.oracle, self.student, self.method.Config(**settings), run):
                self.rounds = run.round = run.round + 1
                if self.rounds > MOST_ROUNDS:
                    break
        except (BudgetExhausted, StillAsking):
            pass

    def _see(self, _: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        self.seen += len(inputs[0])


def _teacher() -> nn.Module:
    """A linear classifier at a scale where it meets all its classes."""
    layer = nn.Linear(64, CLASSES, bias=False)
    nn.init.normal_(layer.weight, 0, 0.5)
    return nn.Sequential(nn.Flatten(), layer)


def _student() -> nn.Module:
    """A convolution, batch norm and a linear layer: enough to have weights, buffers and modes."""
    convolution = nn.Conv2d(1, 4, 3, padding=1, stride=2)
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))


def check(method: ModuleType, settings: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with a method, each complaint one sentence; empty if it keeps to the contract.

    settings: of its Config, small enough for a budget of a hundred queries on 8 x 8 pixels.
    """
    chosen = settings or {}
    complaints = describe(method)
    for answers in method.ANSWERS:
        for queries in (QUERIES, 2 * QUERIES + 6, 1):
            trial = Trial(method, chosen, answers, queries)
            complaints += [f"{answers}, {queries} queries: {text}" for claim in CLAIMS if (text := claim(trial))]
        complaints += [f"{answers}: {text}" for text in same_seed_same_student(method, chosen, answers)]
    return list(dict.fromkeys(complaints))


def describe(method: ModuleType) -> list[str]:
    """What its docstrings and constants lack."""
    documentation = method.__doc__ or ""
    wanted = {
        f"the docstring has no paragraph '{heading}'": heading in documentation
        for heading in ("Differs from the paper:", "Differs from the released code:")
    }
    wanted |= {
        f"ANSWERS is {method.ANSWERS!r}: wanted some of 'labels', 'probs'": bool(method.ANSWERS)
        and set(method.ANSWERS) <= {"labels", "probs"},
        f"DATA is {method.DATA!r}: wanted 'none', 'train' or 'other'": method.DATA in {"none", "train", "other"},
        f"PROTOCOL is {method.PROTOCOL!r}: wanted 'anytime' or 'per_budget'": method.PROTOCOL
        in {"anytime", "per_budget"},
        "Config has no docstring that says where its defaults come from": bool((method.Config.__doc__ or "").strip()),
        "Config takes unknown settings: wanted extra='forbid'": method.Config.model_config.get("extra") == "forbid",
        "Config can be changed: wanted frozen=True": bool(method.Config.model_config.get("frozen")),
    }
    return [complaint for complaint, met in wanted.items() if not met]


def yields_rounds(trial: Trial) -> Complaint:
    if trial.rounds or trial.oracle.budget.queries < QUERIES:
        return None
    return "it never yields, so its student can never be measured"


def ends(trial: Trial) -> Complaint:
    return f"it did not end within {MOST_ROUNDS} rounds" if trial.rounds > MOST_ROUNDS else None


def lets_the_budget_end_it(trial: Trial) -> Complaint:
    if trial.oracle.refused <= 1:
        return None
    return "it goes on asking after BudgetExhausted: do not catch that exception, it is the end"


def spends_its_budget(trial: Trial) -> Complaint:
    left = trial.oracle.remaining
    if trial.method.DATA != "none" or not trial.oracle.batches or left < max(trial.oracle.batches):
        return None
    return (
        f"it left {left} queries, and its largest batch is {max(trial.oracle.batches)}: wanted less than one batch left"
    )


def asks_through_the_oracle(trial: Trial) -> Complaint:
    if trial.seen == trial.oracle.spent:
        return None
    return (
        f"the teacher saw {trial.seen} images and the oracle counted {trial.oracle.spent}: it was asked behind its back"
    )


def holds_no_teacher(trial: Trial) -> Complaint:
    places = [value for value in vars(trial.method).values() if not isinstance(value, ModuleType | type)]
    if not _reaches([trial.student, *places], trial.teacher, but=trial):
        return None
    return "it keeps a reference to the teacher: all it may have is the oracle's answers"


def leaves_the_teacher_alone(trial: Trial) -> Complaint:
    now = trial.teacher.state_dict()
    if all(torch.equal(value, now[key]) for key, value in trial.teacher_before.items()):
        return None
    return "it changes the teacher's weights"


def leaves_its_images_alone(trial: Trial) -> Complaint:
    if trial.data is None or trial.data_before is None or torch.equal(trial.data, trial.data_before):
        return None
    return "it changes the images it was given (run.data): work on a copy"


CLAIMS: tuple[Callable[[Trial], Complaint], ...] = (
    yields_rounds,
    ends,
    lets_the_budget_end_it,
    spends_its_budget,
    asks_through_the_oracle,
    holds_no_teacher,
    leaves_the_teacher_alone,
    leaves_its_images_alone,
)


def same_seed_same_student(method: ModuleType, settings: dict[str, Any], answers: Answers) -> list[str]:
    """The complaints of a method that is random beyond its seed, or not random at all."""
    first, again, other = (Trial(method, settings, answers, seed=seed).weights() for seed in (0, 0, 1))
    if not torch.equal(first, again):
        return ["the same seed gives another student: pass generator=run.rng to every random call"]
    if torch.equal(first, other):
        return ["another seed gives the same student: its randomness does not come from run.rng"]
    return []


def _reaches(places: list[Any], target: object, but: object) -> bool:
    """Whether the target is found by following references from the places, through containers, closures and modules."""
    waiting, met = list(places), {id(but)}
    while waiting:
        place = waiting.pop()
        if place is target:
            return True
        if id(place) in met or isinstance(place, ModuleType | type | Oracle):
            continue
        met.add(id(place))
        waiting += [found for found in gc.get_referents(place) if not _is_globals(found)]
    return False


def _is_globals(found: object) -> bool:
    """Whether it is the namespace of some module, which every function refers to."""
    return isinstance(found, dict) and "__builtins__" in found
