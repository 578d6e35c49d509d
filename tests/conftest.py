"""Fixtures that cost seconds, made once."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU

from bench.boxes import teachers
from bench.boxes.described import BOXES
from bench.tasks.data.sources import SOURCES
from bench.tasks.networks import NETWORKS
from bench.tasks.table import TASKS, task_of
from methods import METHODS

TABLES: list[dict[str, Any]] = [SOURCES, TASKS, BOXES, NETWORKS, METHODS]

torch.set_num_threads(1)
# Commands that tests start inherit what is ignored here, as it is where the tests run behind nohup.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def _tables_as_before() -> Iterator[None]:
    before = [dict(table) for table in TABLES]
    try:
        yield
    finally:
        for table, content in zip(TABLES, before, strict=True):
            table.clear()
            table.update(content)


@pytest.fixture(scope="module", autouse=True)
def tables_as_before_the_module() -> Iterator[None]:
    """What a fixture of a module registers, attaches or plugs in is gone after the module."""
    with _tables_as_before():
        yield


@pytest.fixture(autouse=True)
def tables_as_before_the_test(tables_as_before_the_module: None) -> Iterator[None]:  # noqa: ARG001 - after that one
    """What a test registers, attaches or plugs in is gone after it."""
    with _tables_as_before():
        yield


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
