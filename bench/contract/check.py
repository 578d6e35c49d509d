"""The contract of a method, as checks that say in plain words what is wrong. Tests hold every method here to it."""

import gc
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError

import methods
from bench import strict_yaml
from bench.contract.plugins import faults
from bench.contract.trial import MOST_ROUNDS, Complaint, Trial
from bench.errors import UsageError, one_line
from budgets import Answers, Budget, Inputs, Oracle

QUERIES = 97  # no whole number of batches
MORE = 300  # whole batches, three times as many
KILLS = (1, 2, 3)
EXAMPLES = {"rounded": "round-2", "partial": "top-3"}  # of answers of those kinds


def parse_settings(method: ModuleType, given: Iterable[str]) -> dict[str, Any]:
    """The settings that KEY=VALUE texts stand for, KEY possibly `outer.inner`; UsageError for what Config refuses."""
    settings: dict[str, Any] = {}
    for text in given:
        path, separator, value = text.partition("=")
        *outer, key = path.split(".")
        if not separator or not key:
            raise UsageError(f"setting {text!r}: wanted KEY=VALUE")
        place = settings
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise UsageError(f"setting {text!r}: {name} is a value, wanted a group of settings")
        place[key] = strict_yaml.parse(value, f"setting {text!r}")
    try:
        method.Config(**settings)
    except ValidationError as error:
        raise UsageError(f"settings: {one_line(error, method.Config.model_fields)}") from error
    return settings


def check(method: ModuleType, settings: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with a method, each complaint one sentence; empty if it keeps to the contract.

    settings: of its Config, small enough for a budget of a few hundred queries on 8 x 8 pixels.
    """
    if unusable := faults(method):
        return unusable
    found: dict[str, str] = {}  # complaint -> where it was met first
    for kind in method.ANSWERS:
        answers = EXAMPLES.get(kind, kind)
        for where, complaint in _complaints(method, settings or {}, answers):
            found.setdefault(complaint, where)
    return [*describe(method), *(f"{where}: {complaint}" for complaint, where in found.items())]


def _complaints(method: ModuleType, settings: dict[str, Any], answers: Answers) -> Iterator[tuple[str, str]]:
    """Under which terms a claim does not hold, and the complaint."""

    def play(queries: int = QUERIES, inputs: Inputs = "float", **how: Any) -> Trial:
        return Trial(method, settings, Budget(queries, answers, inputs), **how)

    short, long, one = play(), play(MORE), play(1)
    rounded = [play(inputs="uint8")] if "uint8" in methods.inputs_of(method) else []
    for claim in CLAIMS:
        for trial in (short, long, one, *rounded):
            if (complaint := claim(trial)) and (trial.error is None or claim is runs):
                yield str(trial), complaint
                break
    if short.error or long.error:
        return  # of runs that broke off no two can be compared
    if complaint := same_seed_same_student(short, play(), play(seed=1)):
        yield answers, complaint
        return  # nor those of which no two are the same
    whole = short if short.rounds > max(KILLS) else long
    if complaint := resumes_where_it_was(whole, play(whole.budget.queries, kills=KILLS)):
        yield answers, complaint
    if method.PROTOCOL == "anytime" and (complaint := anytime_means_anytime(short, long)):
        yield answers, complaint


def describe(method: ModuleType) -> list[str]:
    """What its docstrings and constants lack."""
    documentation = method.__doc__ or ""
    ours = Path(method.__file__ or "").parent == Path(methods.__file__).parent
    results = getattr(method, "RESULTS", None)
    wanted = {
        f"the docstring has no paragraph '{heading}'": heading in documentation
        for heading in ("Differs from the paper:", "Differs from the released code:")
    }
    wanted |= {
        f"RESULTS is {results!r}: wanted a whole number, 1 or more, raised by hand when its results change": not ours
        or (type(results) is int and results >= 1),
        "Config has no docstring that says where its defaults come from": bool((method.Config.__doc__ or "").strip()),
        "Config takes unknown settings: wanted extra='forbid'": method.Config.model_config.get("extra") == "forbid",
        "Config can be changed: wanted frozen=True": bool(method.Config.model_config.get("frozen")),
    }
    return [*faults(method), *(complaint for complaint, met in wanted.items() if not met)]


def runs(trial: Trial) -> Complaint:
    return trial.error


def yields_rounds(trial: Trial) -> Complaint:
    if trial.rounds or trial.budget.queries < QUERIES:
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


def yields_figures(trial: Trial) -> Complaint:
    return trial.odd


def leaves_its_surroundings_alone(trial: Trial) -> Complaint:
    if not trial.changed:
        return None
    return f"it changes {' and '.join(trial.changed)} and leaves it so: put back what others share, before each yield"


def leaves_the_seed_alone(trial: Trial) -> Complaint:
    return "it seeds torch's global generator: the runner has done so, from the cell's seed" if trial.reseeded else None


CLAIMS: tuple[Callable[[Trial], Complaint], ...] = (
    runs,
    yields_rounds,
    yields_figures,
    ends,
    lets_the_budget_end_it,
    spends_its_budget,
    asks_through_the_oracle,
    holds_no_teacher,
    leaves_the_teacher_alone,
    leaves_its_surroundings_alone,
    leaves_the_seed_alone,
)


def same_seed_same_student(first: Trial, again: Trial, other: Trial) -> Complaint:
    """Of two runs with one seed and one with another."""
    if not torch.equal(first.weights(), again.weights()):
        return "the same seed gives another student: pass generator=run.rng to every random call"
    if torch.equal(first.weights(), other.weights()):
        return "another seed gives the same student: its randomness does not come from run.rng"
    return None


def resumes_where_it_was(unbroken: Trial, killed: Trial) -> Complaint:
    """Of a run and one like it that died on its way and was resumed."""
    if killed.error:
        return f"killed between two rounds and resumed, {killed.error}"
    for number, (wanted, got) in enumerate(zip_longest(unbroken.after, killed.after), start=1):
        if not (wanted and got and wanted[0] == got[0] and torch.equal(wanted[1], got[1])):
            return (
                f"killed between two rounds and resumed, it differs from round {number} on: name all that survives "
                "a round with run.track(...)"
            )
    return None


def anytime_means_anytime(short: Trial, long: Trial) -> Complaint:
    """Of two runs of which one has a larger budget."""
    within = [weights for spent, weights in long.after if spent <= short.budget.queries]
    if not within or not short.after or torch.equal(within[-1], short.after[-1][1]):
        return None
    return (
        f"its student after {short.budget.queries} queries is another one when {long.budget.queries} are to be had: "
        "wanted PROTOCOL = 'per_budget'"
    )


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
