"""The search for settings: what is searched, what a trial may see, and that no trial is lost or counted twice."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image
from support import CPU, QUICK, bench, digits_cell
from torch import Tensor

from bench.cells import assemble, exam
from bench.cells.run import CellFailed, How, run_cell
from bench.cli import tune
from bench.errors import UsageError
from bench.grids import definition as grids
from bench.grids.definition import Grid
from bench.grids.plan import plan, runs_of
from bench.tasks.data import sources
from bench.tuning import outcome as outcomes
from bench.tuning import study as studies
from bench.tuning import worker as workers
from bench.tuning.study import Places, Study, Terms
from methods import METHODS
from methods.search import Choice, Range, including, space, value_at, with_values
from results.claims import lock
from results.store import read_json

NO_DATA = Path("no-data")
OFF = ["--mlflow", "off", "--final-seeds", "0"]
TASK = ["--task", "digits-lenet", "--budget", "100"]
FAST = ["--set", "recipe.min_steps=4", "--set", "recipe.passes=2"]


def study(
    root: Path, method: str = "noise", budget: int = 100, terms: Terms | None = None, **settings: object
) -> Study:
    """A study on the digits that starts from quick settings; those given are not searched."""
    config = {**QUICK[method], **settings}
    definition = Grid(
        description="a test",
        tasks=["digits-lenet"],
        methods={method: {"config": config}},  # type: ignore[dict-item]
        budgets=[budget],
        answers=METHODS[method].ANSWERS[:1],
        seeds=[0],
    )
    (item,) = plan(runs_of(definition), root, NO_DATA, gpu=False)
    return studies.study_of(item, terms or Terms(held_out=50), list(settings), None, Places(root, NO_DATA))


def search(searching: Study, root: Path, total: int) -> optuna.Study:
    """Work on the study in this process until it has so many trials."""
    places = Places(root, NO_DATA)
    workers.work_on_trials(searching, total, places, CPU, lambda *_: None)
    return studies.open_study(searching, places)


def states(searched: optuna.Study) -> list[str]:
    return [trial.state.name for trial in searched.trials]


# What is searched


def test_studies_of_floats_and_of_8_bits_have_names_of_their_own(trained: Path) -> None:
    grid = Grid(
        description="a test",
        tasks=["digits-lenet"],
        methods={"noise": {"config": QUICK["noise"]}},  # type: ignore[dict-item]
        budgets=[100],
        answers=["labels"],
        inputs=["float", "uint8"],
        seeds=[0],
    )
    items, terms = plan(runs_of(grid), trained, NO_DATA, gpu=False), Terms("validation")
    names = [studies.study_of(item, terms, [], None, Places(trained, NO_DATA)).name for item in items]
    assert names == ["noise-digits-lenet-100-labels-validation", "noise-digits-lenet-100-labels-validation-uint8"]


def test_a_grid_is_tuned_for_the_folders_that_are_named(tmp_path: Path) -> None:
    images = torch.rand(8, 1, 8, 8).mul(255).to(torch.uint8)
    for n, image in enumerate(images):
        file = tmp_path / "pets" / ("train", "test")[n % 2] / ("cat", "dog")[n // 4] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(file)
    folder = f"folder:{tmp_path / 'pets'}@lenet5"
    alone, _ = tune._to_tune(None, [folder], None, None, "digits", [])
    beside, _ = tune._to_tune(None, [folder, "digits-lenet"], None, None, "digits", [])
    assert len(alone.tasks) == 1
    assert "pets" in alone.tasks[0]
    assert beside.tasks == ["digits-lenet", *alone.tasks]


def test_trials_are_run_as_the_command_says(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(*places: Any, how: How, **more: Any) -> None:
        seen.append(how)
        run_cell(*places, how=how, **more)

    monkeypatch.setattr(workers, "run_cell", watched)
    how = How(checkpoint_seconds=7.0)
    workers.work_on_trials(study(trained), 1, Places(trained, NO_DATA, how=how), CPU, lambda *_: None)
    assert seen == [how]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_tuned_and_what_is_drawn_is_a_config(name: str) -> None:
    config = METHODS[name].Config
    notes, defaults = space(config), config().model_dump(mode="json")
    assert len(notes) >= 4
    assert "relabel" not in notes, "the accounting is no setting to choose by its result"
    assert all(including(note, value_at(defaults, key)) == note for key, note in notes.items()), "default out of range"
    searched = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        drawn = workers.suggest(searched.ask(), notes)
        settings = config(**with_values(defaults, drawn)).model_dump(mode="json")
        assert {key: value_at(settings, key) for key in notes} == drawn


def test_a_note_reaches_nested_settings_and_their_types_and_choices() -> None:
    assert {"search.halvings", "lr"} <= space(METHODS["zsdb3kd"].Config).keys()
    found = space(METHODS["ideal"].Config)
    assert found["batch_size"] == Range(10, 500, log=True, whole=True)
    assert found["reset_generator"] == Choice((False, True))
    assert found["augment"] == Choice(("none", "crop", "flip", "crop_flip"))


def test_settings_are_changed_in_a_copy_and_a_range_is_widened_to_hold_where_it_starts() -> None:
    settings = {"lr": 1, "recipe": {"passes": 2, "lr": 3}}
    assert with_values(settings, {"recipe.lr": 4}) == {"lr": 1, "recipe": {"passes": 2, "lr": 4}}
    assert settings["recipe"] == {"passes": 2, "lr": 3}
    assert including(Range(2, 5), 9) == Range(2, 9)
    assert including(Choice((1, 2)), 3) == Choice((1, 2, 3))


# What a trial may see


class Poison(sources.Split):
    """A split that cannot be looked at."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Tensor:
        raise AssertionError(f"somebody looked at the test split's {name}")


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits with a test split that nobody can look at."""
    load = sources.load

    def loaded(name: str, folder: Path) -> sources.Dataset:
        return replace(load(name, folder), test=Poison())

    monkeypatch.setattr(sources, "load", loaded)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("objective", ["agreement", "validation"])
@pytest.mark.parametrize("method", ["noise", "real"])
def test_a_study_never_looks_at_the_test_split(trained: Path, objective: Any, method: str) -> None:
    terms = Terms(objective, held_out=50)
    searched = search(study(trained, method, terms=terms), trained, 3)
    assert states(searched) == ["COMPLETE"] * 3
    with pytest.raises(CellFailed, match="looked at the test split"):
        run_cell(digits_cell(trained, method, 100), trained, NO_DATA, CPU)


def test_a_trial_that_reads_the_test_split_fails(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def peek(_: Any, dataset: sources.Dataset, *__: Any) -> exam.Exam:
        return exam.Exam(dataset.test.images, {"accuracy": dataset.test.labels})

    monkeypatch.setattr(assemble, "exam_of", peek)
    searched = search(study(trained), trained, 1)
    (trial,) = searched.trials
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["reason"] == "PermissionError: a trial may not see the test split, not even its images"


def test_an_exam_is_part_of_a_cell_unless_it_is_the_test_split(trained: Path) -> None:
    cell = digits_cell(trained, "noise", 100)
    assert "exam" not in cell.identity()
    assert replace(cell, exam="validation").name() != cell.name()


def test_held_out_answers_are_asked_once_and_charged(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searching = study(trained)
    searched = search(searching, trained, 2)
    assert outcomes.charged(searching, searched) == 50 + 2 * 100
    monkeypatch.setattr(exam, "Oracle", lambda *_, **__: pytest.fail("the teacher was asked again"))
    assert study(trained) == searching


def test_transfer_tries_settings_on_another_task_and_its_validation_split(trained: Path) -> None:
    searching = study(trained, terms=Terms("transfer", proxy="digits-mlp"))
    cells = searching.cells(searching.starting_point())
    assert {(cell.task, cell.exam, cell.seed) for cell in cells} == {("digits-mlp", "validation", studies.FIRST_SEED)}
    searched = search(searching, trained, 2)
    finals = outcomes.final_cells(searching, searched, Places(trained, NO_DATA), 2)
    assert {(cell.task, cell.exam, cell.seed < 2) for cell in finals} == {("digits-lenet", "test", True)}


# Trials


def test_the_search_starts_from_the_given_settings_and_goes_on_where_it_stopped(trained: Path) -> None:
    searching = study(trained, kind="multiscale")
    first = search(searching, trained, 2).trials
    assert searching.config(first[0].params) == searching.start
    again = search(searching, trained, 5).trials
    assert len(again) == 5
    assert [trial.params for trial in again[:2]] == [trial.params for trial in first]
    assert all("kind" not in trial.params for trial in again)
    assert search(searching, trained, 5).trials == again


def test_a_trial_is_the_mean_over_its_seeds_each_an_ordinary_cell(trained: Path) -> None:
    searching = study(trained, terms=Terms(held_out=50, seeds=2))
    (trial,) = search(searching, trained, 1).trials
    curves = [read_json(trained / "cells" / name / "curve.json") for name in trial.user_attrs["cells"]]
    assert len(curves) == 2
    assert trial.value == pytest.approx(sum(curve[-1]["agreement"] for curve in curves) / 2)
    assert all("accuracy" not in curve[-1] for curve in curves), "nobody without data knows the accuracy"


def test_a_cell_that_fails_is_a_trial_with_its_reason_and_the_study_goes_on(trained: Path) -> None:
    searching = study(trained, "dfme", 100, student_steps=200)
    searched = search(searching, trained, 3)
    assert states(searched) == ["FAIL"] * 3
    assert {trial.user_attrs["reason"] for trial in searched.trials} == {"100 queries do not cover one round of dfme"}
    outcome = outcomes.nothing(searching, searched)
    assert outcome.bad_input
    assert outcome.queries == 50 + 3 * 100, "a trial that failed has asked all the same"


def test_a_poor_trial_is_pruned_at_a_point_of_its_curve_and_only_what_it_asked_is_charged(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "_pruner", lambda _: optuna.pruners.ThresholdPruner(lower=1.1, n_warmup_steps=50))
    searching = study(trained, "ideal", 100, batch_size=20)
    searched = search(searching, trained, 1)
    (trial,) = searched.trials
    assert trial.state.name == "PRUNED"
    # The point at 50 is known once the round that ends at 60 has been asked for.
    assert trial.user_attrs["cells"] == {searching.cells(trial.params)[0].name(): 60}
    assert list(outcomes.trials(searching, searched)["state"]) == ["pruned"]


def test_queries_and_seconds_are_traded_off_on_request(trained: Path) -> None:
    searching = study(trained, terms=Terms(held_out=50, against=("queries", "seconds")))
    searched = search(searching, trained, 4)
    assert len(searched.trials[0].values) == 3
    assert [trial.values[1] for trial in searched.trials] == [trial.params["budget"] for trial in searched.trials]
    files = outcomes.write(searching, searched, Places(trained, NO_DATA), [])
    assert {"front.png", "history.pdf", "parallel.png", "best.yaml", "trials.csv"} <= {file.name for file in files}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_sampler_draws_the_same_trials_again(trained: Path, sampler: Any) -> None:
    searching = study(trained, terms=Terms(held_out=50, sampler=sampler))
    first = [trial.params for trial in search(searching, trained, 4).trials]
    shutil.rmtree(trained / "studies")
    assert [trial.params for trial in search(searching, trained, 4).trials] == first


# Workers


def test_a_trial_whose_worker_died_is_marked_and_queued_again_once(trained: Path) -> None:
    searching = study(trained)
    searched = search(searching, trained, 1)
    dead = searched.ask()
    drawn = workers.suggest(dead, searching.space())
    dead.set_user_attr("host", socket.gethostname())
    searched = search(searching, trained, 3)
    assert states(searched) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert searched.trials[2].params == drawn
    assert searched.trials[2].user_attrs["deaths"] == 1
    assert list(outcomes.trials(searching, searched)["state"]) == ["complete", "lost", "complete", "complete"]


def test_a_worker_that_is_told_to_stop_leaves_its_trial_for_later_without_blame(home: Path) -> None:
    slow = ["--set", "recipe.min_steps=100000", "--name", "s", "--jobs", "1"]
    command = [sys.executable, "-m", "bench", "tune", "noise", *TASK, *OFF, *slow, "--trials", "1"]
    with subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True) as process:
        while not list(home.glob("runs/cells/*/cell.json")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "bench: interrupted; the same command goes on where this one stopped"
    journal = JournalStorage(JournalFileBackend(str(home / "runs/studies/s/journal.log")))
    (trial,) = optuna.load_study(study_name="s", storage=journal).trials
    assert trial.state.name == "RUNNING", "whoever comes next finds nobody at it, and queues it again"
    assert trial.user_attrs["deaths"] == -1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_that_is_still_held_is_left_alone(trained: Path) -> None:
    searching, places = study(trained), Places(trained, NO_DATA)
    searched = studies.open_study(searching, places)
    alive = searched.ask()
    alive.set_user_attr("host", socket.gethostname())
    worker = workers._Worker(searching, searched, 2, places, CPU, lambda *_: None)
    with lock(places.folder(searching) / "trials" / str(alive.number)):
        assert worker.one_trial()
        assert not worker.one_trial(), "there is room for two, one of which is running"
    assert states(searched) == ["RUNNING", "COMPLETE"]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_that_ends_while_it_is_looked_at_is_not_taken_for_dead(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, places = study(trained), Places(trained, NO_DATA)
    searched = studies.open_study(searching, places)
    ending = searched.ask()
    ending.set_user_attr("host", socket.gethostname())

    def ends_and_lets_go(_: Path) -> bool:
        searched.tell(ending, 0.5)
        return False

    monkeypatch.setattr(workers, "is_held", ends_and_lets_go)
    workers._Worker(searching, searched, 2, places, CPU, lambda *_: None)._bury_the_dead()
    assert states(searched) == ["COMPLETE"]


def test_of_two_trials_for_one_place_the_later_gives_up(trained: Path) -> None:
    searching, places = study(trained), Places(trained, NO_DATA)
    searched = studies.open_study(searching, places)
    worker = workers._Worker(searching, searched, 1, places, CPU, lambda *_: None)
    worker._give_up_if_surplus(searched.ask())
    with pytest.raises(workers._Surplus):
        worker._give_up_if_surplus(searched.ask())


def test_a_worker_killed_while_it_writes_the_journal_holds_up_no_other(trained: Path) -> None:
    searching, places = study(trained), Places(trained, NO_DATA)
    searched = studies.open_study(searching, places)
    dies = (
        "import os, sys; from pathlib import Path; from bench.tuning.study import JournalLock\n"
        "JournalLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", dies, str(places.folder(searching) / "journal")], check=False)
    assert killed.returncode == -signal.SIGKILL
    since = time.monotonic()
    searched.ask()
    assert time.monotonic() - since < 5


def workers_of(process: int) -> list[int]:
    """The processes that run jobs: the children of the children of the command."""

    def children(parents: set[int]) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it is gone
            if int(rest[1]) in parents and rest[0] != "Z":
                found.append(pid)
        return found

    return children(set(children({process})))


def kill_two_of_four_workers(home: Path, *arguments: str) -> pd.DataFrame:
    """Tune with four workers, kill two of them on the way, and return the table of trials."""
    fast = ["--set", "recipe.min_steps=100", "--set", "recipe.passes=2", "--name", "s", "--jobs", "4"]
    command = [sys.executable, "-m", "bench", "tune", "noise", *TASK, *OFF, *fast, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        for started in (5, 14):
            while len(list((home / "runs/studies/s/trials").glob("*"))) < started and process.poll() is None:
                time.sleep(0.02)
            assert process.poll() is None, (home / "log").read_text()
            os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        assert process.wait(timeout=240) == 0, (home / "log").read_text()
    assert (home / "log").read_text().count("killed by SIGKILL") == 2
    return pd.read_csv(home / "runs/studies/s/trials.csv")


def nothing_lost_or_counted_twice(table: pd.DataFrame) -> None:
    states = table["state"].value_counts().to_dict()
    assert states.pop("complete") == 30
    lost = table[table["state"] == "lost"]
    assert states == ({"lost": len(lost)} if len(lost) else {})
    settings = [name for name in table.columns if name in space(METHODS["noise"].Config)]
    for _, trial in lost.iterrows():
        known = trial[settings].dropna()  # none yet, where the worker died while it drew them
        again = table[(table["trial"] > trial["trial"]) & (table["state"] == "complete")]
        tried = (again[known.index].astype(str) == known.astype(str)).all(axis=1).sum()
        assert tried == 1 if len(known) == len(settings) else tried >= 1


@pytest.fixture
def home(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trained teacher in runs/."""
    home = trained.parent / f"{trained.name}-home"
    home.mkdir()
    trained.rename(home / "runs")
    monkeypatch.chdir(home)
    return home


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_thirty_trials_survive_the_death_of_two_of_four_workers(home: Path) -> None:
    nothing_lost_or_counted_twice(kill_two_of_four_workers(home))


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a database on a free port, of a server that lives as long as the test."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    place, tools = Path(tempfile.mkdtemp(prefix="bench-pg-")), programs[-1].parent
    as_user: Callable[..., list[str]] = lambda *command: [*command]  # noqa: E731
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(place, "postgres", "postgres")
        as_user = lambda *command: ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]  # noqa: E731
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    control = as_user(str(tools / "pg_ctl"), "-D", str(place / "data"), "-w", "-s")
    options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
    quiet = {"check": True, "cwd": place, "stdout": subprocess.DEVNULL}
    subprocess.run(as_user(str(tools / "initdb"), "-D", str(place / "data"), "-U", "bench", "-A", "trust"), **quiet)  # type: ignore[call-overload]
    subprocess.run([*control, "-l", str(place / "log"), "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql+psycopg://bench@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
        shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_thirty_trials_survive_the_death_of_two_of_four_workers_on_postgresql(home: Path, postgresql: str) -> None:
    nothing_lost_or_counted_twice(kill_two_of_four_workers(home, "--storage", postgresql))
    assert not (home / "runs/studies/s/journal.log").exists()


# The command


def test_tuned_settings_are_measured_at_last_and_a_grid_can_name_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("tune", "noise", *TASK, *FAST, "--trials", "4", "--final-seeds", "3", "--mlflow", "off") == 0
    out = " ".join(capsys.readouterr().out.split())
    folder = home / "runs/studies/noise-digits-lenet-100-labels-agreement"
    for line in ("0 of 4 trials", "held-out queries", "queries of tuning", "900", f"{folder.name}/best.yaml"):
        assert line in out
    final = pd.read_csv(folder / "final.csv")
    assert set(final["settings"]) <= {"start", "tuned"}
    assert set(final["seed"]) == {0, 1, 2}
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".pdf"}
    written = yaml.safe_load((folder / "best.yaml").read_text())
    assert written["provenance"]["queries of tuning"] == 500 + 4 * 100
    assert written["provenance"]["needs data"] == "no"
    (home / "g.yaml").write_text(
        "description: tuned\ntasks: [digits-lenet]\nbudgets: [100]\nanswers: [labels]\nseeds: 3\n"
        f"methods:\n  best: {{method: noise, config: runs/studies/{folder.name}/best.yaml}}\n"
    )
    (item, *_) = plan(runs_of(grids.load("g.yaml")[1]), home / "runs", NO_DATA, gpu=False)
    assert json.loads(item.config) == written["config"]
    assert item.state == "done", "the last measurement ran this very cell"


def test_a_grid_is_tuned_with_the_same_trials_for_each_method(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "g.yaml").write_text(
        "description: two\ntasks: [digits-lenet]\nbudgets: [50, 100]\nanswers: [labels]\nseeds: 1\nmethods:\n"
        "  noise: {config: &quick {recipe: {min_steps: 4, passes: 2}}}\n  real: {config: *quick}\n"
    )
    assert bench("tune", "--grid", "g.yaml", "--trials", "2", "--held-out", "30", *OFF) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "digits-lenet │" in line]
    assert [row[1] for row in rows] == ["noise", "real"]
    assert all({"230", "2"} <= set(row) for row in rows), rows


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ideel", *TASK], "unknown method 'ideel'; did you mean ideal?"),
        ([], "wanted a method or a grid"),
        (["noise", "--task", "digits-lenet"], "tune noise: wanted --task and --budget"),
        (["noise", "--task", "digits-lenett", "--budget", "100"], "unknown task 'digits-lenett'"),
        (["noise", "--task", "digits-lenet", "--budget", "0"], "budget '0': wanted a whole number"),
        (["noise", *TASK, "--set", "recipe.lrr=1"], "unknown key 'recipe.lrr'"),
        (["noise", *TASK, "--answers", "logits"], "answers 'logits': wanted labels, probs, round-D"),
        (["noise", *TASK, "--trials", "0"], "Invalid value for '--trials'"),
        (["noise", *TASK, "--objective", "accuracy"], "unknown objective 'accuracy'"),
        (["noise", *TASK, "--objective", "transfer"], "transfer, and no other, wants a proxy task"),
        (["noise", *TASK, "--objective", "transfer", "--proxy", "digits-lenet"], "wanted a task other than"),
        (["noise", *TASK, "--sampler", "tpee"], "unknown sampler 'tpee'; did you mean tpe?"),
        (["noise", *TASK, "--against", "query"], "unknown cost 'query'; did you mean queries?"),
        (["noise", *TASK, "--held-out", "0"], "held-out 0: wanted 1 or more"),
        (["noise", *TASK, "--storage", "sqlite:///a.db"], "storage sqlite:///a.db: SQLite loses workers"),
        (
            ["noise", *TASK, "--storage", "postgresql+psycopg://u:secret@127.0.0.1:1/x"],
            "127.0.0.1:1/x cannot be reached",
        ),
        (["noise", *TASK, "--storage", "nonsense"], "storage nonsense cannot be reached"),
        (["dfme", *TASK, "--set", "student_steps=200", *OFF, "--trials", "2"], "do not cover one round of dfme"),
    ],
)
@pytest.mark.usefixtures("home")
def test_bad_input_is_told_in_one_line_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert bench("tune", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert told in error
    assert "secret" not in error
    assert error.count("\n") == 1


def test_a_study_that_was_made_for_something_else_is_refused(trained: Path) -> None:
    places = Places(trained, NO_DATA)
    studies.open_study(study(trained), places)
    other = replace(study(trained, "real"), name=study(trained).name)
    with pytest.raises(UsageError, match=r"was made for method noise, not real.*; choose another --name"):
        studies.open_study(other, places)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("method: ideal\nconfig: {}\n", "are for method ideal, not for noise"),
        ("kind: uniform\n", "wanted a mapping with method and config"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_holds_no_settings_for_the_method_is_refused(
    tmp_path: Path, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "best.yaml").write_text(content)
    entry = "methods: {noise: {config: best.yaml}}\n"
    (tmp_path / "g.yaml").write_text(f"description: d\ntasks: [digits-lenet]\nbudgets: [9]\nseeds: 1\n{entry}")
    with pytest.raises(UsageError, match=told):
        grids.load(str(tmp_path / "g.yaml"))


def test_a_command_is_kept_without_places_and_passwords() -> None:
    command = ["tune", "noise", "--out", "/a", "--storage=postgresql://u:p@h/d", "--trials", "3", "--data", "b"]
    assert outcomes.public(command) == ["tune", "noise", "--trials", "3"]
