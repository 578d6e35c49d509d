"""Fixtures that cost seconds, made once."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import CPU

from bench.boxes import teachers
from bench.tasks.table import task_of

torch.set_num_threads(1)
# Commands that tests start inherit what is ignored here, as it is where the tests run behind nohup.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache of data sets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    teachers.train(task_of("digits-lenet"), root, Path("no-data"), CPU, lambda _: None)
    return root


@pytest.fixture
def trained(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the digits teacher and nothing else."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained_once / "teachers", root / "teachers")
    return root
