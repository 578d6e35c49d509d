"""What computed a number: version, commit, device, threads and precision; and a command line fit to be shown."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from bench import __version__
from bench.errors import shown
from results.records import Machine, Provenance

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "mlflow", "optuna")
# What belongs to one machine, or is nobody's business: places, passwords, processes.
PRIVATE = (
    "--data",
    "--out",
    "--executor",
    "--ray-address",
    "--storage",
    "--jobs",
    "--threads",
    "--checkpoint",
    "--silence",
    "--gpus",
    "--per-gpu",
    "--mlflow",
    "--device",
)


def set_precision() -> None:
    """True float32 everywhere: in TF32 a step of 2e-5 a pixel, as DFME and MAZE make, is rounded away. And of cuDNN's
    convolutions only those that add up in the same order each time.

    By the older of torch's two ways to say so: after the newer, `fp32_precision`, torch.export and torch.compile raise.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def precision() -> str:
    """How convolutions compute on this process's GPUs: `float32`, or `tf32`."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "float32"


def machine(device: torch.device) -> Machine:
    """What a cell is being computed by, for its record."""
    return Machine(
        device=device_name(device),
        threads=torch.get_num_threads(),
        precision=precision() if device.type == "cuda" else "float32",
        bench=__version__,
        commit=commit(),
        torch=str(torch.__version__),  # not its own class, which a file of weights could not hold
    )


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def provenance(command: Iterable[str]) -> Provenance:
    """Command, code and versions, for whoever wants to repeat or cite a run."""
    return Provenance(
        command=shlex.join(["bench", *public(command)]),
        bench=__version__,
        commit=commit(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def public(command: Iterable[str]) -> list[str]:
    """A command line without what belongs to one machine, and with no path that leads outside the working folder."""
    kept: list[str] = []
    skip = False
    for word in command:
        option, separator, value = word.partition("=")
        private = option in PRIVATE
        if not private and not skip:
            kept.append(f"{option}={_shown(value)}" if separator and option.startswith("--") else _shown(word))
        skip = private and not separator
    return kept


@cache
def commit() -> str | None:
    """The commit of this code, `-dirty` if it was changed since; None where there is no way to know.

    An installed package knows the commit it was built from; a checkout asks git, and only if the repository is its own.
    """
    if (ROOT / ".git").exists():
        try:
            git = subprocess.run(
                ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
                capture_output=True,
                text=True,
            )
        except OSError:
            return None
        return git.stdout.strip() or None
    return _installed_commit()


def _installed_commit() -> str | None:
    """The commit that pip took the package from, as PEP 610 records it."""
    try:
        origin = importlib.metadata.distribution("blackbox-bench").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    return found[:12] if found else None


@cache
def _cpu_name() -> str:
    """The model of the processor, and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2] for line in lines if line.startswith("model name")), platform.machine())
    return f"{' '.join(model.split())}, {cores} cores"


def _shown(word: str) -> str:
    """A word of a command line: of a path outside the working folder its name, of an address no secret."""
    if "://" in word:
        return shown(word)
    kind, separator, path = word.rpartition(":") if word.startswith("folder:") else ("", "", word)
    place = Path(path).expanduser()
    return f"{kind}{separator}{place.name}" if place.is_absolute() else word
