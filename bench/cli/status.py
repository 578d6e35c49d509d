"""`bench status`."""

from collections import Counter
from pathlib import Path

from bench.cli.options import Out, Plugins, RunName


def status(run: RunName, out: Out = Path("runs"), plugin: Plugins = None) -> None:
    """Count a run's cells by state, and give the reasons of those that have no result."""
    from bench.cli import show
    from bench.cli.asked import load_outside
    from bench.cli.runs import find_run, versions_now
    from bench.cli.work import console_of
    from results.states import States

    load_outside(plugin, None)
    with States(find_run(run, out), versions_now()) as states:
        found = Counter((state.name, state.reason) for state in map(states.of, states.record.entries))
    counts: Counter[str] = Counter()
    for (name, _), n in found.items():
        counts[name] += n
    console = console_of()
    console.print(
        f"{run}: {found.total()} runs ({', '.join(f'{n} {name}' for name, n in counts.most_common())})", markup=False
    )
    reasons = sorted((name, reason, n) for (name, reason), n in found.items() if reason is not None)
    if reasons:
        console.print(show.listing(["state", "reason", "runs"], reasons))
