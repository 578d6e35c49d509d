"""What an endpoint costs: images that must be paid for, by all cells and commands, and the limit on them."""

import json
from pathlib import Path

from bench.errors import UsageError
from results.claims import wait_for
from results.store import write_bytes

WIDTH = 40  # characters of the file, whatever it says


class Bill:
    """Images charged so far, in a file that several processes share.

    folder: what all who ask the endpoint share. price: of 1,000 images. limit: most money that may be spent, or None.
    """

    def __init__(self, folder: Path, price: float, limit: float | None, currency: str = "USD") -> None:
        self.folder, self._price, self._limit, self._currency = folder, price, limit, currency
        self._file = folder / "bill.json"

    @property
    def images(self) -> int:
        """Images charged so far."""
        return int(json.loads(self._file.read_text())["images"]) if self._file.exists() else 0

    @property
    def money(self) -> float:
        """What they cost."""
        return self.images * self._price / 1000

    def reserve(self, images: int) -> None:
        """Charge so many images before they are sent; UsageError where the limit would not cover them."""
        with wait_for(self.folder / "bill"):
            charged = self.images + images
            if self._limit is not None and charged * self._price / 1000 > self._limit:
                spent = f"{self.money:,.2f} of {self._limit:,.2f} {self._currency}"
                raise UsageError(
                    f"the limit on money is reached: {spent} are spent, and {images} more images cost more; "
                    "with a higher limit the same command goes on from here"
                )
            self._write(charged)

    def give_back(self, images: int) -> None:
        """Take off images that the endpoint refused to answer."""
        with wait_for(self.folder / "bill"):
            self._write(self.images - images)

    def _write(self, images: int) -> None:
        """In place and at once, so that a process that is killed leaves the old number or the new one, and no request
        waits for the disk. What a machine without power forgets of it is in the journals."""
        content = json.dumps({"images": images}).ljust(WIDTH - 1).encode() + b"\n"
        if not self._file.exists():
            write_bytes(self._file, content)
        with self._file.open("r+b", buffering=0) as file:
            file.write(content)
