"""Break a run of a method off, go on from what a checkpoint holds, and compare with the run that was not broken."""

import copy

import torch
from support import CPU, RecordingTeacher, make_oracle, make_run, small_student
from torch import nn

from budgets import BudgetExhausted, Oracle
from methods import METHODS
from methods.run import Run


def play(name: str, oracle: Oracle, student: nn.Module, run: Run, stop_after: int = 0, **settings: object) -> object:
    """Run to the end as the runner does. Returns a copy of all state as it was after round `stop_after`."""
    method, saved = METHODS[name], None
    try:
        for _ in method.distill(oracle, student, method.Config(**settings), run):
            run.round += 1
            if run.round == stop_after:
                saved = copy.deepcopy((student.state_dict(), oracle.state_dict(), run.state_dict()))
    except BudgetExhausted:
        pass
    return saved


def assert_resuming_changes_nothing(name: str, queries: int, answers: str, stop_after: int, **settings: object) -> None:
    student, oracle, run = small_student(), make_oracle(RecordingTeacher(), queries, answers), make_run()
    saved = play(name, oracle, student, run, stop_after, **settings)
    assert saved is not None
    assert run.round > stop_after
    resumed, resumed_oracle = small_student(seed=7), make_oracle(RecordingTeacher(), queries, answers)
    resumed.load_state_dict(saved[0])
    resumed_oracle.load_state_dict(saved[1])
    resumed_run = Run(CPU, torch.manual_seed(99), saved=saved[2])
    play(name, resumed_oracle, resumed, resumed_run, **settings)
    assert resumed_run.round == run.round
    assert resumed_oracle.spent == oracle.spent
    for key, value in student.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
