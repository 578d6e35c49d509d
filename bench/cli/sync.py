"""`bench sync`."""

from pathlib import Path

from bench.cli.options import Out, RunName, Tracking
from bench.errors import UsageError, shown


def sync(run: RunName, out: Out = Path("runs"), mlflow: Tracking = None) -> None:
    """Bring MLflow up to what is on disk."""
    from bench.cli.runs import find_run, versions_now
    from bench.cli.work import console_of
    from bench.mirror import Mirror, TrackingError, default_uri

    folder = find_run(run, out)
    if mlflow == "off":
        raise UsageError("--mlflow off: wanted an address to sync with")
    uri = mlflow or default_uri(out)
    try:
        with Mirror(folder, uri, versions=versions_now()) as mirror:
            added = mirror.sync()
            mirror.log_report()
    except TrackingError as error:
        raise UsageError(f"MLflow at {uri}: {error}") from error
    console_of().print(f"MLflow at {shown(uri)}: {added} cells added", markup=False)
