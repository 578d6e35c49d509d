"""Grids: what a file means, what filters and settings leave of it, and what a bad one is told."""

import gc
import json
import time
from pathlib import Path

import pytest
from support import CPU, digits_cell

from bench.cells.cell import Cell
from bench.cells.run import run_cell
from bench.cli.runs import NOT_RUNS
from bench.errors import UsageError
from bench.grids import definition as grids
from bench.grids import plan as plans
from bench.grids.definition import Grid
from bench.grids.plan import Planned, plan, runs_of
from bench.grids.select import choose, configure
from bench.tasks.table import TASKS, task_of
from budgets import Budget
from methods import METHODS
from results.records import TeacherRecord

NO_DATA = Path("no-data")


def small(**changes: object) -> Grid:
    content: dict[str, object] = {
        "description": "a test",
        "tasks": ["digits-lenet"],
        "methods": {"once": {"method": "ideal"}, "noise": None},
        "budgets": [250, "1k"],
        "seeds": 2,
        **changes,
    }
    return Grid(**content)  # type: ignore[arg-type]


def planned(definition: Grid, root: Path = Path("nowhere")) -> list[Planned]:
    return plan(runs_of(definition), root, NO_DATA, gpu=False)


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_every_shipped_grid_plans() -> None:
    for name in grids.shipped():
        short, definition = grids.load(name)
        assert short == name
        assert planned(definition)


def test_each_run_meets_one_of_the_teachers_of_its_task() -> None:
    runs = planned(small(answers=["labels"], seeds=2, teachers=3, budgets=[250]))
    assert [(run.teacher_seed, run.seed) for run in runs if run.label == "noise"] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)
    ]  # fmt: skip
    only = choose(runs, {"teacher": ["2"]})
    assert {run.teacher_seed for run in only} == {2}


def test_a_method_sends_only_the_images_it_can() -> None:
    runs = planned(small(methods={"dfme": None, "noise": None}, answers=["probs"], seeds=1, inputs=["float", "uint8"]))
    assert {(run.label, run.budget.inputs) for run in runs} == {
        ("dfme", "float"), ("noise", "float"), ("noise", "uint8")
    }  # fmt: skip


def test_an_anytime_method_runs_once_for_all_budgets_and_a_per_budget_method_once_for_each() -> None:
    runs = planned(small(answers=["labels"], seeds=1))
    assert [(run.label, run.budget.queries, run.budgets, run.protocol) for run in runs] == [
        ("once", 1000, (250, 1000), "anytime"),
        ("noise", 250, (250,), "per_budget"),
        ("noise", 1000, (1000,), "per_budget"),
    ]


def test_a_grid_may_ask_for_one_run_a_budget_of_all_methods() -> None:
    runs = planned(small(answers=["labels"], seeds=1, per_budget=True))
    assert [run.budget.queries for run in runs if run.label == "once"] == [250, 1000]
    assert {run.protocol for run in runs} == {"per_budget"}


def test_a_budget_at_which_no_point_is_measured_on_the_way_gets_a_run_of_its_own() -> None:
    runs = planned(small(answers=["labels"], seeds=1, budgets=[250, 777, 1000]))
    assert [run.budgets for run in runs if run.label == "once"] == [(777,), (250, 1000)]


def test_a_method_meets_only_the_answers_it_can_learn_from() -> None:
    runs = planned(small(methods={"dfme": None, "noise": None, "mine": {"method": "noise", "answers": ["labels"]}}))
    tracks = {(run.label, run.budget.answers) for run in runs}
    assert tracks == {("dfme", "probs"), ("noise", "labels"), ("noise", "probs"), ("mine", "labels")}


def test_exclusions_take_out_what_all_their_globs_match() -> None:
    runs = planned(small(exclude=[{"method": "ideal", "budget": "1k"}, {"seed": "1"}, {"answers": "probs"}]))
    assert [(run.label, run.budgets, run.seed) for run in runs] == [
        ("once", (250,), 0),
        ("noise", (250,), 0),
        ("noise", (1000,), 0),
    ]


@pytest.mark.parametrize(
    ("bound", "left"), [(">=1k", [250]), (">250", [250]), ("<1k", [1000]), ("<=1k", []), ("250", [1000]), ("1*", [250])]
)
def test_a_budget_is_excluded_by_number_glob_or_bound(bound: str, left: list[int]) -> None:
    runs = planned(small(methods={"noise": None}, answers=["labels"], seeds=1, exclude=[{"budget": bound}]))
    assert [run.budget.queries for run in runs] == left


def test_an_entry_may_enter_some_tasks_alone_and_have_settings_of_its_own_there() -> None:
    entry = {"config": {"kind": "multiscale"}, "tasks": ["digits*"], "where": {"*-mlp": {"scales": 2}}}
    definition = small(tasks=["digits-lenet", "digits-mlp", "mnist-mlp"], methods={"noise": entry, "real": None})
    settings = {run.task: json.loads(run.config) for run in planned(definition) if run.method == "noise"}
    assert settings.keys() == {"digits-lenet", "digits-mlp"}
    assert {task: config["scales"] for task, config in settings.items()} == {"digits-lenet": 6, "digits-mlp": 2}
    assert {config["kind"] for config in settings.values()} == {"multiscale"}
    set_by_hand = configure(definition, ["noise.scales=3"])
    assert {json.loads(run.config)["scales"] for run in planned(set_by_hand) if run.method == "noise"} == {3}


def test_a_file_may_stand_for_a_part_of_another_grid() -> None:
    name, part = grids.load("paper-small")
    _, whole = grids.load("paper")
    assert name == "paper-small"
    assert part.description != whole.description
    in_whole = [run for run in planned(whole) if run.task.startswith(("mnist", "fmnist"))]
    assert planned(part) == in_whole


def test_a_part_may_have_seeds_of_its_own_and_leave_out_more() -> None:
    _, part = grids.load("paper-lite")
    runs = planned(part)
    assert {run.seed for run in runs} == {0, 1, 2}
    assert {n for run in runs for n in run.budgets} == {5_000, 25_000}
    qedg = {(run.task, n) for run in runs if run.label == "qedg" for n in run.budgets}
    assert ("cifar10-cnn3", 25_000) in qedg
    assert ("cifar10-resnet34-resnet18", 5_000) in qedg
    assert ("cifar10-resnet34-resnet18", 25_000) not in qedg
    assert not any(run.budget.queries > 1_000_000 or run.label == "dfms-reduced" for run in runs)


def test_filters_select_exactly_what_they_name() -> None:
    _, paper = grids.load("paper")
    filters = {"task": ["mnist*"], "budget": ["5k,25k"], "method": ["ideal,noise*"], "seed": ["0"]}
    runs = choose(runs_of(paper), filters)
    assert {run.task for run in runs} == {"mnist-mlp", "mnist-lenet", "mnist-lenet5", "mnist-alexnet"}
    assert {run.method for run in runs} == {"ideal", "noise"}
    assert {n for run in runs for n in run.budgets} == {5_000, 25_000}


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"task": ["digits-lenett"]}, "unknown task 'digits-lenett'; did you mean digits-lenet?"),
        ({"method": ["ideel"]}, "unknown method 'ideel'; did you mean ideal?"),
        ({"budget": ["300"]}, "unknown budget '300'; did you mean"),
        ({"budget": ["25k5"]}, "budget '25k5': wanted a whole number"),
        ({"dataset": ["digit"]}, "unknown dataset 'digit'; did you mean digits?"),
    ],
)
def test_a_filter_that_matches_nothing_is_told_the_nearest_names(filters: dict[str, list[str]], told: str) -> None:
    with pytest.raises(UsageError) as error:
        choose(runs_of(small()), filters)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_settings_reach_every_entry_of_the_method_and_nested_keys() -> None:
    entries = {"noise-a": {"method": "noise"}, "noise-b": {"method": "noise"}, "ideal": None}
    changed = configure(small(methods=entries), ["noise*.recipe.lr=0.5", "ideal.batch_size=10"])
    assert [changed.methods[name].config for name in ("noise-a", "noise-b", "ideal")] == [
        {"recipe": {"lr": 0.5}},
        {"recipe": {"lr": 0.5}},
        {"batch_size": 10},
    ]
    assert '"lr":0.5' in planned(changed)[0].config


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("noise.kinds=uniform", "method noise: unknown key 'kinds'; did you mean kind?"),
        (
            "noise.kind=perlin",
            "method noise: kind: Input should be 'uniform', 'multiscale' or 'shapes', given 'perlin'",
        ),
        ("noise=3", "setting 'noise=3': wanted METHOD.KEY=VALUE"),
        ("nois.kind=uniform", "unknown method 'nois'; did you mean noise?"),
    ],
)
def test_a_bad_setting_is_told_in_one_line(setting: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        planned(configure(small(), [setting]))
    assert str(error.value) == told


GOOD = """
description: a test
tasks: [digits-lenet]
methods: {noise: }
budgets: [250]
seeds: 1
"""


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (GOOD, "{}", "description: Field required"),
        (GOOD, "just words", "wanted a mapping with description, tasks"),
        (GOOD, "a: [", "is not YAML"),
        ("seeds: 1", "seed: 3", "unknown key 'seed'; did you mean seeds?"),
        ("[250]", "[0]", "budget 0: wanted a whole number"),
        ("[250]", "[25k5]", "budget '25k5': wanted a whole number"),
        ("seeds: 1", "seeds: 0", "seeds 0: wanted how many, 1 or more"),
        ("digits-lenet", "digits-lenett", "unknown task 'digits-lenett'; did you mean"),
        ("noise", "nois", "unknown method 'nois'; did you mean"),
        ("noise: ", "noise: {tasks: [digit]}", "unknown task 'digit'; did you mean digits"),
        ("noise: ", "noise: {where: {digit: {scales: 2}}}", "unknown task 'digit'; did you mean digits"),
        (
            "noise: ",
            "noise: {where: {digits: {scale: 2}}}",
            "method noise: unknown key 'scale'; did you mean scales or shapes?",
        ),
        (GOOD, "description: a part\nof: papper\nfilters: {}", "unknown grid 'papper'; did you mean paper"),
        (GOOD, "description: a part\nof: digits\nfilters: {tasks: [a]}", "filters.tasks"),
        (GOOD, "description: a part\nof: digits\ntasks: [mnist-lenett]", "unknown task 'mnist-lenett'; did you mean"),
        (GOOD, "description: a part\nof: digits\nseeds: 0", "seeds 0: wanted how many"),
        (GOOD, "description: a part\nof: digits\nexclude: [{methods: a}]", "unknown axis to exclude by 'methods'"),
        (GOOD, "description: a part\nof: digits\nbudgets: [0]", "budget 0: wanted a whole number"),
        (GOOD, "description: a part\nof: digits\ntasks: [digits-lenet+flips-9]", "defence 'flips-9': wanted"),
        ("seeds: 1", "seeds: 1\nexclude: [{tusk: a}]", "unknown axis to exclude by 'tusk'"),
        ("seeds: 1", "seeds: 1000000000", "seeds 1000000000: wanted those below 1,000"),
        ("seeds: 1", "seeds: [5, 1000]", "wanted those below 1,000"),
        ("seeds: 1", "seeds: 1\nseeds: 2", "the key 'seeds' twice in line 7"),
        ("[250]", "[1e30k]", "budget '1e30k': wanted a whole number"),
        ("[250]", f"[1{30 * '0'}]", "wanted a whole number"),
        ("noise: ", "noise: {config: {recipe: {lr: .inf}}}", "method noise: a setting is infinite or no number"),
        ("noise: ", "1: {method: noise}", "a key that is no text"),
        (GOOD, "description: a part\nof: {path}\nfilters: {task: ['*']}", "is a part of itself"),
    ],
)
def test_a_bad_grid_file_is_told_in_one_line(tmp_path: Path, good: str, bad: str, told: str) -> None:
    text = GOOD.replace(good, bad).replace("{path}", str(tmp_path / "mine.yaml"))
    with pytest.raises(UsageError) as error:
        planned(grids.load(written(tmp_path, text))[1])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_grid_of_a_file_finds_it_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(GOOD)
    part = written(tmp_path, "description: a part\nof: whole.yaml\nseeds: 3")
    assert grids.load(part)[1].seeds == [0, 1, 2]


def test_a_filter_of_budgets_is_one_of_those_that_an_entry_has_of_its_own() -> None:
    whole = small(budgets=["100", "200"], methods={"noise": None, "ideal": {"budgets": ["200", "300"]}})
    at = {
        text: {label: entry.budgets or left.budgets for label, entry in left.methods.items()}
        for text in ("200", "100", "300", "100,300")
        for left in [grids.narrowed(whole, {"budget": [text]})]
    }
    assert at["200"] == {"noise": [200], "ideal": [200]}
    assert at["100"] == {"noise": [100]}
    assert at["300"] == {"ideal": [300]}
    assert at["100,300"] == {"noise": [100], "ideal": [300]}


def test_settings_of_a_task_hold_where_a_black_box_stands_for_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "digits-lenet@box-1", task_of("digits-lenet"))
    special = {"tasks": ["digits-lenet"], "where": {"digits-lenet": {"scales": 2}}}
    runs = [runs_of(small(tasks=[task], methods={"noise": special})) for task in ("digits-lenet", "digits-lenet@box-1")]
    plain, attached = ([run.config for run in of] for of in runs)
    assert plain == attached != []


def test_a_grid_of_another_has_its_methods_on_tasks_and_budgets_of_its_own() -> None:
    whole, other = grids.load("mnist-low")[1], grids.load("fmnist-low")[1]
    assert other.methods == whole.methods
    assert other.tasks == ["fmnist-lenet5", "fmnist-lenet"]
    assert other.budgets == [1_000, 5_000, 25_000]


def test_no_shipped_grid_has_a_name_that_its_run_could_not_have() -> None:
    assert not NOT_RUNS & set(grids.shipped())


def test_an_unknown_grid_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown grid 'papper'; did you mean paper"):
        grids.load("papper")


def test_a_missing_grid_file_is_told_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read: No such file"):
        grids.load(str(tmp_path / "absent.yaml"))


def test_what_cannot_run_here_is_planned_with_its_reason() -> None:
    _, paper = grids.load("paper")
    runs = planned(paper)
    reasons = {run.task: run.reason for run in runs}
    assert reasons["cifar10-resnet18"] == "no GPU here; --device cpu runs it all the same"
    assert reasons["mnist-lenet5"] is not None
    assert reasons["mnist-lenet5"].startswith("data set mnist is not in no-data")
    assert {run.state for run in runs} == {"cannot run"}


def test_a_plan_knows_what_is_done_failed_or_stale(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"recipe": {"passes": 1, "min_steps": 1}}
    definition = small(methods={"noise": {"config": config}}, answers=["labels"], budgets=[40, 50, 60], seeds=1)
    first, second, _ = planned(definition, trained)
    assert first.cell
    assert second.cell
    run_cell(first.cell, trained, NO_DATA, CPU)
    (trained / "cells" / second.cell.name()).mkdir()
    (trained / "cells" / second.cell.name() / "failed.json").write_text('{"reason": "no"}')
    assert [run.state for run in planned(definition, trained)] == ["done", "failed", "to do"]
    monkeypatch.setattr(METHODS["noise"], "RESULTS", 99)
    assert [run.state for run in planned(definition, trained)] == ["stale", "failed", "to do"]


def test_a_plan_of_a_hundred_thousand_cells_takes_under_two_seconds(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "record_of", lambda *_: TeacherRecord("feedfacecafebeef", 0.99, 0.99))
    (trained / "cells" / "something").mkdir(parents=True)
    methods = {f"noise-{i}": {"method": "noise", "config": {"scales": i + 2}} for i in range(50)}
    definition = small(methods=methods, budgets=list(range(1, 101)), seeds=20, answers=["labels"])
    gc.freeze()  # what other tests have left behind is not to be searched for garbage on this one's time
    start = time.process_time()
    runs = planned(definition, trained)
    taken = time.process_time() - start
    gc.unfreeze()
    assert len(runs) == 100_000
    assert taken < 2


def test_an_identity_is_stable_across_machines_and_holds_no_path(trained: Path) -> None:
    cell = Cell("digits-lenet", "noise", '{"kind":"uniform"}', Budget(250), 0, "feedfacecafebeef")
    assert cell.name() == "digits-lenet.noise.250-labels.t0.s0.f8756c76c8c6"
    assert not any(str(trained) in str(value) for value in digits_cell(trained, "noise", 50).identity().values())


def test_an_identity_changes_with_everything_a_result_depends_on() -> None:
    base = ("digits-lenet", "noise", "{}", Budget(250), 0, "a")
    others = [
        ("digits-mlp", *base[1:]),
        (*base[:1], "real", *base[2:]),
        (*base[:2], '{"kind":"multiscale"}', *base[3:]),
        (*base[:3], Budget(251), *base[4:]),
        (*base[:3], Budget(250, "probs"), *base[4:]),
        (*base[:3], Budget(250, inputs="uint8"), *base[4:]),
        (*base[:4], 1, "a"),
        (*base[:5], "b"),
        (*base, "test", 1),
    ]
    assert len({Cell(*values).name() for values in [base, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    "values",
    [
        ("nowhere", "noise", "{}", Budget(250), 0, "a"),
        ("digits-lenet", "nothing", "{}", Budget(250), 0, "a"),
        ("digits-lenet", "dfme", "{}", Budget(250, "labels"), 0, "a"),
        ("digits-lenet", "noise", "{}", Budget(250), -1, "a"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(UsageError):
        Cell(*values)  # type: ignore[arg-type]
