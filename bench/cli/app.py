"""`bench`: its commands, and how they end."""

import atexit
import errno
import gc
import signal
import sys
import traceback

import typer

from bench.cli import cell, check, lists, plan, report, run, serve, status, sync, teachers, tune, verify
from bench.cli.options import grouped
from bench.errors import UsageError

# torch, pandas, mlflow and seaborn take seconds to import: each command imports what it needs when it is given.
COMMANDS = (
    run.run,
    plan.plan,
    cell.cell,
    status.status,
    report.report,
    sync.sync,
    teachers.teachers,
    tune.tune,
    check.check,
    serve.serve,
    verify.verify,
)

NO_ROOM = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES}  # what is the machine's fault, and can be mended

app = typer.Typer(
    name="bench",
    help="How good a student can each method train with Q queries to a black box and no data?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(grouped(command))
app.command("list")(lists.list_)


def main() -> None:
    """Exit codes: 0 all that was asked for is done, 1 some of it has no result, 2 bad input, 3 a fault of the harness,
    130 interrupted."""
    # A plan or a report of a large grid makes millions of objects, in no cycles: they are not looked through after
    # every 700 of them, nor once more at the end.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        code = app(standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = _told(error)
    if code == 130:
        print("bench: interrupted; the same command goes on where this one stopped", file=sys.stderr)
    sys.exit(code)


def _interrupt(*_: object) -> None:
    """A scheduler's or a closing terminal's signal ends a command as Ctrl-C does: checkpoints are written."""
    raise KeyboardInterrupt


def _told(error: Exception) -> int:
    """Print what a person needs to know of an error; returns the exit code."""
    from results.claims import Robbed
    from results.records import RecordError

    if isinstance(error, UsageError | RecordError | Robbed):
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        told = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        print(f"bench: {told}; what was done so far is kept, and the same command goes on from there", file=sys.stderr)
        return 2
    if words := getattr(error, "format_message", None):  # of the parser of the command line
        print(f"bench: {' '.join(words().split())}; bench --help, or bench COMMAND --help", file=sys.stderr)
        return 2
    traceback.print_exception(error)
    print("bench: this is a fault of the harness; what was done so far is kept", file=sys.stderr)
    return 3
