"""What the code looked like when its result versions were last looked at, as a note that `make versions` writes."""

import json
from pathlib import Path

from bench.cells.code import FILES, PARTS, ROOT, files_of, is_ours, tree_hash
from methods import METHODS

NOTE = Path(__file__).with_suffix(".json")


def numbers() -> dict[str, int]:
    """Part or method -> its number RESULTS."""
    ours = {name: module for name, module in METHODS.items() if is_ours(module)}
    return {name: module.RESULTS for name, module in {**PARTS, **ours}.items()}


def trees() -> dict[str, str]:
    """Part or method -> a hash of the syntax trees of the files that it is made of."""
    ours = {name: tree_hash(files_of(module)) for name, module in METHODS.items() if is_ours(module)}
    return {part: tree_hash(ROOT / file for file in files) for part, files in FILES.items()} | ours


def noted() -> dict[str, dict[str, object]]:
    """The note: part or method -> its number and the hash of its code."""
    note: dict[str, dict[str, object]] = json.loads(NOTE.read_text())
    return note


def main() -> None:
    """Write the note anew: whoever does so has asked whether a result can differ."""
    hashes = trees()
    note = {name: {"results": number, "code": hashes[name]} for name, number in numbers().items()}
    NOTE.write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
