"""The server, or the database, that MLflow keeps runs in: its address, a client, and its refusals in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A dead server is noticed in seconds, and MLflow neither prints nor reports home, unless the user says otherwise.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
PATIENCE = 7  # seconds in which a database has to answer
HALF = 120  # characters of a long message
SERVED = ("http", "databricks", "uc")  # such a place knows where artifacts go; a database does not


class TrackingError(Exception):
    """The server cannot be reached or refuses; the disk holds everything, so `bench sync` can follow later."""


class Elsewhere(TrackingError):
    """Another process mirrors this run, and will add what this one could."""


def default_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file among the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def short(error: BaseException) -> str:
    """What an error says, in one line without secrets; of a long one the beginning and the end, where causes stand."""
    line = shown(" ".join(str(error).split()))
    return line if len(line) <= 2 * HALF else f"{line[:HALF]} ... {line[-HALF:]}"


def connect(uri: str) -> "MlflowClient":
    """A client of what lies at the address; TrackingError for what cannot be one."""
    try:
        with guarded():
            from mlflow import MlflowClient

            _try_database(uri)
            return MlflowClient(tracking_uri=uri)
    except ImportError as error:
        raise TrackingError(f"a driver for this address is not installed: {short(error)}") from error


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever a client may raise about its server is a TrackingError of one line."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # before the first import, which reads some of it
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        raise TrackingError(short(error)) from error


def _try_database(uri: str) -> None:
    """Ask a database on a server once: MLflow itself would try for minutes before it said that nobody is there."""
    from sqlalchemy import NullPool, create_engine

    if uri.startswith(("postgresql", "mysql")):
        create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": PATIENCE}).connect().close()
