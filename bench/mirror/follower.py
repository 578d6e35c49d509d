"""The mirror beside a run: in a thread of its own, so that no server can hold up the work."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.errors import shown
from bench.mirror.mirror import Mirror
from bench.mirror.server import Elsewhere, TrackingError, short
from results.records import Versions


class Follower:
    """Mirrors a run while it goes on, and once more at its end.

    A server that is away costs one line, told to `warn` from that thread, and is asked again each time. The end waits
    at most LAST seconds, and tells what is left. uri: `off` for no mirror. versions: as for Mirror.
    """

    EVERY = 60.0  # seconds
    LAST = 60.0
    TURN = 10.0  # seconds in which another process, which mirrors the same run, may come to its own end

    def __init__(
        self, run: Path, uri: str, warn: Callable[[str], None], versions: Mapping[str, Versions] | None = None
    ) -> None:
        self._run, self._uri, self._versions = run, uri, versions
        self._warn, self._warned = warn, False
        self._mirror: Mirror | None = None
        self._ended, self._left_early = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def __enter__(self) -> "Follower":
        if self._uri != "off":
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._left_early = kind is not None
        self._ended.set()
        if self._thread.is_alive() and not self._left_early:
            self._thread.join(self.LAST)
            if self._thread.is_alive():
                left = f"{self._mirror.left} cells are" if self._mirror and self._mirror.left else "something is"
                self._tell(f"is slow: {left} not there yet; bench sync {self._run.name} adds what is left")

    def _follow(self) -> None:
        try:
            while not self._ended.wait(self.EVERY):
                self._catch_up(report=False)
            until = time.monotonic() + self.TURN
            while not self._left_early and not self._catch_up(report=True) and time.monotonic() < until:
                time.sleep(1)
        except Exception as error:  # a fault of ours, which is none of the run's
            self._warned = False
            self._tell(f"gets no more of this run: {type(error).__name__}: {short(error)}")
        finally:
            self._close()

    def _catch_up(self, *, report: bool) -> bool:
        """Mirror what is new; returns whether that is settled: False while another process has its turn."""
        try:
            self._mirror = self._mirror or Mirror(self._run, self._uri, versions=self._versions)
            self._mirror.sync()
            if report:
                self._mirror.log_report()
        except Elsewhere:
            return False
        except TrackingError as error:
            self._close()  # the next mirror looks anew at what is there
            self._tell(f"does not answer, results are on disk: bench sync {self._run.name} later ({error})")
        return True

    def _close(self) -> None:
        if self._mirror:
            self._mirror.close()
        self._mirror = None

    def _tell(self, line: str) -> None:
        if not self._warned:
            self._warn(f"MLflow at {shown(self._uri)} {line}")
        self._warned = True
