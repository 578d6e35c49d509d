"""The options that commands share, each spelled once, in groups that a command takes as one value."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from bench.executors.local import Slot
    from bench.executors.ray import Cluster

TASK_HELP = "Only these tasks; globs, repeatable or with commas. folder:PATH makes one of a folder of images."
TEACHER_HELP = "A model of your own: TorchScript, ONNX, FILE.py:FUNCTION, or a YAML that describes it."
BLACKBOX_HELP = "A model behind a URL, or a YAML that describes one."
RAY_HELP = "auto or HOST:PORT, a Ray that runs already; default: one of this machine alone."
SLURM_HELP = "KEY=VALUE of submitit's, such as partition=gpu or time=240 (minutes), or a YAML of them; repeatable."
LEAVE_HELP = "Submit the workers, and leave; bench status RUN follows."
EXECUTORS = ("local", "ray", "slurm")
Words = list[str] | None
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with a method of your own.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run, or its folder.")]
Tracking = Annotated[str | None, typer.Option("--mlflow", help="Tracking URI, or 'off'; default: under --out.")]


@dataclass(frozen=True)
class Selection:
    """Which grid, with what settings, and which of its runs."""

    grid: Annotated[str, typer.Option("--grid", help="A shipped grid or a YAML file.")] = "digits"
    task: Annotated[Words, typer.Option("--task", help=TASK_HELP)] = None
    dataset: Annotated[Words, typer.Option("--dataset", help="Only tasks on these data sets.")] = None
    method: Annotated[Words, typer.Option("--method", help="Only these entries or methods.")] = None
    budget: Annotated[Words, typer.Option("--budget", help="Only these budgets, such as 2.5k.")] = None
    seeds: Annotated[str | None, typer.Option("--seeds", help="How many seeds, or which: 5, or 3,4.")] = None
    teachers: Annotated[int | None, typer.Option("--teachers", min=1, help="How many teachers of each task.")] = None
    exclude: Annotated[Words, typer.Option("--exclude", help="Leave out AXIS=GLOB.")] = None
    answers: Annotated[Words, typer.Option("--answers", help="Only these: labels, probs, or as round-2, top-5.")] = None
    settings: Annotated[Words, typer.Option("--set", help="METHOD.KEY=VALUE for every entry of that name.")] = None


@dataclass(frozen=True)
class Foreign:
    """What comes from outside: methods, a black box to be asked in place of our teachers, a student."""

    plugin: Plugins = None
    teacher: Annotated[str | None, typer.Option("--teacher", help=TEACHER_HELP)] = None
    blackbox: Annotated[str | None, typer.Option("--blackbox", help=BLACKBOX_HELP)] = None
    adapter: Annotated[str | None, typer.Option("--adapter", help="Its protocol; bench list adapters.")] = None
    price: Annotated[float | None, typer.Option("--price", min=0.0, help="Money for 1,000 queries.")] = None
    limit: Annotated[float | None, typer.Option("--limit", min=0.0, help="Most money to spend.")] = None
    student: Annotated[str | None, typer.Option("--student", help="FILE.py:FUNCTION that makes the student.")] = None


@dataclass(frozen=True)
class Machine:
    """Where data and results lie, and what computes."""

    data: Annotated[Path, typer.Option("--data", envvar="BENCH_DATA", help="Folder of the data sets.")] = Path("data")
    out: Out = Path("runs")
    executor: Annotated[str, typer.Option("--executor", help="Where runs happen: local, ray or slurm.")] = "local"
    ray_address: Annotated[str | None, typer.Option("--ray-address", help=RAY_HELP)] = None
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto"
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes on the CPU; default: cores.")] = None
    gpus: Annotated[str | None, typer.Option("--gpus", help="Which GPUs, such as 0,1; default: all.")] = None
    per_gpu: Annotated[int, typer.Option("--per-gpu", min=1, help="Processes on each GPU.")] = 1
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of a process; changes digits.")] = 1
    silence: Annotated[
        float | None, typer.Option("--silence", min=0.01, help="End a run that reports nothing for so many minutes.")
    ] = None
    isolate: Annotated[bool, typer.Option("--isolate", help="The black box answers from its own process.")] = False
    checkpoint: Annotated[float, typer.Option("--checkpoint", min=0.0, help="Least seconds between checkpoints.")] = (
        20.0
    )

    def __post_init__(self) -> None:
        """UsageError for a place of runs that there is not."""
        if self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        if self.ray_address and self.executor != "ray":
            raise UsageError(f"--ray-address {self.ray_address}: wanted with --executor ray")
        if self.ray_address and self.gpus:
            raise UsageError(f"--gpus {self.gpus}: wanted for the GPUs of this machine; a cluster gives out its own")

    @cached_property
    def cluster(self) -> "Cluster":
        """The Ray at the address, or one of this machine, connected to; UsageError where there is none."""
        try:
            from bench.executors import ray
        except ModuleNotFoundError as error:
            raise UsageError("--executor ray: wanted the package ray; pip install 'blackbox-bench[ray]'") from error
        if self.ray_address is None:
            return ray.on_this_machine(self.slots, self.out, self.per_gpu)
        return ray.connect(self.ray_address, self.out, self.device, self.per_gpu, self.threads, self.jobs)

    @cached_property
    def slots(self) -> "list[Slot]":
        """Room for processes on the chosen devices; UsageError for a device that is not here."""
        import torch

        from bench.executors import local

        if self.device not in {"auto", "cpu", "cuda"}:
            raise UsageError(f"device {self.device!r}: wanted auto, cpu or cuda")
        found = torch.cuda.device_count()
        try:
            wanted = list(range(found)) if self.gpus is None else [int(gpu) for gpu in self.gpus.split(",")]
        except ValueError as error:
            raise UsageError(f"gpus {self.gpus!r}: wanted numbers such as 0,1") from error
        if (self.device == "cuda" and not found) or any(not 0 <= gpu < found for gpu in wanted):
            raise UsageError(f"device {self.device}, gpus {self.gpus or 'all'}: this machine has {found} GPUs")
        return local.slots(self.jobs, [] if self.device == "cpu" else wanted, self.per_gpu, self.threads)

    @property
    def gpu(self) -> bool:
        """Whether what wants a GPU may run: on one, or because the CPU was chosen by hand. Each worker of an array of
        Slurm's looks for itself."""
        if self.device == "cpu" or self.executor == "slurm":
            return True
        return self.cluster.gpu if self.ray_address else self.slots[0].device != "cpu"

    @property
    def room(self) -> int:
        """How many jobs can be at work at once."""
        return self.cluster.slots() if self.ray_address else len(self.slots)

    def without_slurm(self, command: str) -> None:
        """UsageError where a command that cannot be given to Slurm was to be."""
        if self.executor == "slurm":
            raise UsageError(f"--executor slurm: wanted with bench run, and local or ray with {command}")

    def check_writable(self, name: str = ".") -> None:
        """UsageError where results cannot be written."""
        from results.store import write_bytes

        probe = self.out / name / ".writable"
        try:
            write_bytes(probe, b"")
            probe.unlink(missing_ok=True)
        except OSError as error:
            told = f"output folder {self.out} cannot be written: {error.strerror or error}"
            raise UsageError(f"{told}; choose another with --out") from error


@dataclass(frozen=True)
class Slurm:
    """What Slurm is asked for."""

    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Workers on Slurm; default: 1.")] = None
    slurm: Annotated[Words, typer.Option("--slurm", help=SLURM_HELP)] = None
    leave: Annotated[bool, typer.Option("--leave", help=LEAVE_HELP)] = False

    def __post_init__(self) -> None:
        """UsageError for what is no parameter."""
        for word in self.slurm or []:
            if "=" not in word and not word.endswith((".yaml", ".yml")):
                raise UsageError(f"--slurm {word}: wanted KEY=VALUE, or a file FILE.yaml with such keys")

    def given(self) -> dict[str, Any]:
        """The parameters; of one that is given twice, the last."""
        from bench import strict_yaml

        found: dict[str, Any] = {}
        for word in self.slurm or []:
            key, equals, value = word.partition("=")
            found |= {key: value} if equals else strict_yaml.read(Path(word), "--slurm", ["partition", "time"])
        return found


def words(group: Any) -> list[str]:
    """The words of a command line that give a group of options its values."""
    hints, found = get_type_hints(type(group), include_extras=True), []
    for field in fields(group):
        value, option = getattr(group, field.name), hints[field.name].__metadata__[0]
        name = option.default  # where typer keeps the first word that it is given
        if value is True:
            found.append(name)
        elif value != field.default:
            found += [f"{name}={item}" for item in (value if isinstance(value, list) else [value])]
    return found


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each of its parameters that is a group of options replaced by the options of that group."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        own = _options(groups[name]) if name in groups else [parameter.replace(annotation=hints[name])]
        parameters += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own]

    def call(**given: Any) -> None:
        made = {name: group(**{f.name: given.pop(f.name) for f in fields(group)}) for name, group in groups.items()}  # type: ignore[operator]
        command(**given, **made)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {option.name: option.annotation for option in parameters}
    return call


def _options(group: Any) -> list[inspect.Parameter]:
    hints, kind = get_type_hints(group, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]
