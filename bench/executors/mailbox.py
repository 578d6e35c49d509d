"""What jobs on other machines tell the command that sent them. Its process imports nothing else of ours."""

from typing import Any

Letter = tuple[int, str, Any]  # the number of a sent job, and an event's kind and detail


class Mailbox:
    """Takes letters until they are fetched, and tells each sender whether its job is to end."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._ending = False

    def post(self, number: int, kind: str, detail: Any = None) -> bool:
        """Leave a letter; returns whether the job is to end."""
        self._letters.append((number, kind, detail))
        return self._ending

    def fetch(self) -> list[Letter]:
        """All letters since the last time."""
        letters, self._letters = self._letters, []
        return letters

    def end(self) -> None:
        """From now on all jobs are to end."""
        self._ending = True
