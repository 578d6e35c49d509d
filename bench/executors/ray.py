"""Jobs as tasks of Ray: on the nodes of a cluster that runs already, or on this machine.

Ray places the tasks and starts their processes. What it does not do is done here: few tasks wait in Ray, a job whose
process or node is gone is tried again, what jobs report comes by a mailbox, and a folder that a node does not see is
brought there and back (bench/executors/luggage.py). Ray may run a task twice, so a cell takes its folder's lock.
"""

import functools
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench import __version__
from bench.cells.code import PARTS, is_ours
from bench.cells.run import Interrupted
from bench.errors import UsageError, told
from bench.executors import luggage
from bench.executors.jobs import Away, Event, Job, More, do, nothing_more
from bench.executors.local import GRACE, Slot
from bench.executors.mailbox import Mailbox
from bench.executors.queue import ATTEMPTS, Queue
from bench.provenance import set_precision
from methods import METHODS
from results.claims import Busy, lock

ANSWERS = 3.0  # seconds in which whoever listens at an address answers
LOOK = 10.0  # seconds after which the size of the cluster is looked at again
LOST = 10  # a job whose node was lost is tried again so often in all: that is not the job's fault
PACE = 2.0  # seconds between two letters of a job, and until it hears that it is to end
STORE = 200 * 2**20  # bytes of shared memory for a Ray of this machine, where little is passed on
SHARES = 10_000  # the parts that Ray divides a GPU into


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to.

    out: the results folder. gpu: whether each job is given 1 / per_gpu of a GPU; else it has as many cores as threads.
    most: how many jobs may be sent at once, if that is bounded.
    """

    out: Path
    gpu: bool
    per_gpu: int
    threads: int
    most: int | None = None

    def slots(self) -> int:
        """How many jobs the nodes that are there now can do at once."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self.gpu:
            return sum(int(node.get("GPU", 0) * self.per_gpu) for node in nodes)
        return sum(int(node.get("CPU", 0) // self.threads) for node in nodes)

    def window(self) -> int:
        """How many jobs may be with Ray: those at work, and one behind each, so that no slot waits for this process."""
        return self.most or max(2 * self.slots(), 1)

    def options(self) -> dict[str, Any]:
        """What Ray is to give each job."""
        share = {"num_cpus": 0, "num_gpus": SHARES // self.per_gpu / SHARES} if self.gpu else {"num_cpus": self.threads}
        return {**share, "max_retries": 0}


def on_this_machine(slots: list[Slot], out: Path, per_gpu: int) -> Cluster:
    """A Ray of this machine alone, with room for as many jobs as there are slots. It ends with this process."""
    gpus = sorted({slot.device.removeprefix("cuda:") for slot in slots if slot.device != "cpu"})
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    cluster = Cluster(out.resolve(), bool(gpus), per_gpu, slots[0].threads)
    room = {"num_cpus": len(slots) * cluster.threads, "num_gpus": len(gpus)}
    _connect("local", include_dashboard=False, object_store_memory=STORE, **room)
    return cluster


def connect(address: str, out: Path, device: str, per_gpu: int, threads: int, most: int | None) -> Cluster:
    """The Ray at HOST:PORT, or for `auto` the one that this machine belongs to; UsageError where there is none that can
    do a job. device: auto, cpu or cuda."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWERS).close()
        except (OSError, ValueError, OverflowError) as error:
            wanted = "wanted auto, or HOST:PORT of a Ray that runs"
            raise UsageError(f"--ray-address {address}: {error}; {wanted}") from error
    _connect(address)
    gpus = ray.cluster_resources().get("GPU", 0)
    if device not in {"auto", "cpu", "cuda"} or (device == "cuda" and not gpus):
        raise UsageError(f"device {device!r}: wanted auto, cpu or cuda; the Ray at {address} has {gpus:g} GPUs")
    cluster = Cluster(out.resolve(), device != "cpu" and gpus > 0, per_gpu, threads, most)
    if not cluster.slots():
        raise UsageError(f"--threads {threads}: no node of the Ray at {address} has so many cores")
    return cluster


def _connect(address: str, **how: Any) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a warning on each task without a GPU
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **how)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"no Ray at {address}: {told(error)}") from error
    except SystemExit as end:  # SIGTERM came meanwhile, to the handler of Ray
        raise KeyboardInterrupt from end
    finally:
        signal.signal(signal.SIGTERM, before)  # which Ray takes


def execute(
    jobs: Iterable[Job],
    cluster: Cluster,
    silence: float | None = None,
    more: More = nothing_more,
    *,
    patient: bool = True,
) -> Generator[Event | None]:
    """Run the jobs on the cluster; all else as bench/executors/local.py has it.

    UsageError for a node with another version of the package, and for one that does not see the results folder where a
    job needs that itself.
    """
    executor = _Executor(Queue(jobs, more, patient=patient), cluster, silence)
    try:
        yield from executor.events()
    finally:
        executor.close()


@dataclass(frozen=True)
class _Terms:
    """What all tasks are told. probe: a file in the results folder, and what stands in it. code: the versions here."""

    device: str
    threads: int
    root: Path
    probe: tuple[Path, str]
    node: str
    code: dict[str, Any]


@dataclass(frozen=True)
class _Word:
    """What a task returns. kind: that of an event; `unseen` where the results folder is not seen, and `other code`.
    node: where it was, if that is another than the command's. files: what it left, where it was brought along."""

    kind: str
    detail: Any = None
    node: str = ""
    files: luggage.Files | None = None


@dataclass
class _Sent:
    """A job that is with Ray. held: its folder, where its results come back. heard: when it last said something, None
    before it has begun. silent: whether it was ended for saying nothing."""

    job: Job
    number: int
    held: ExitStack = field(default_factory=ExitStack)
    heard: float | None = None
    silent: bool = False


class _Executor:
    """The queue of one `execute`, and what of it is with Ray."""

    def __init__(self, queue: Queue, cluster: Cluster, silence: float | None) -> None:
        self._queue, self._cluster, self._silence = queue, cluster, silence
        self._sent: dict[Any, _Sent] = {}  # by the reference to what the task will return
        self._numbers: dict[int, _Sent] = {}
        self._count = 0
        self._brings = False  # whether jobs are sent with what they need
        self._put: dict[tuple[Path, int], Any] = {}  # file and its time -> reference to its content
        self._window, self._looked = cluster.window(), time.monotonic()
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)  # no other node's loss takes it away
        self._mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._task: Any = ray.remote(**cluster.options())(_task)  # on a GPU, Ray uses no process twice
        self._task_alone: Any = ray.remote(**cluster.options(), max_calls=1)(_task)
        token = secrets.token_hex(8)
        self._probe = cluster.out / f".seen-{token}"
        cluster.out.mkdir(parents=True, exist_ok=True)
        self._probe.write_text(token)
        device = "cuda:0" if cluster.gpu else "cpu"
        terms = _Terms(device, cluster.threads, cluster.out, (self._probe, token), node, _code())
        self._terms = ray.put(terms)

    def events(self) -> Generator[Event | None]:
        while self._sent or self._queue.is_worth_waiting():
            while len(self._sent) < self._room() and (job := self._queue.next()):
                yield from self._send(job)
            ready = self._ready(1.0)
            yield from self._letters()
            for reference in ready:
                yield from self._ended(reference)
            self._end_the_silent()
            if not ready:
                yield None

    def close(self) -> None:
        """End what still runs: those that can save their work are given the time to; a second interruption kills."""
        try:
            with suppress(RayError):
                self._let_end()
        finally:
            self._probe.unlink(missing_ok=True)
            for reference, sent in self._sent.items():
                sent.held.close()
                ray.cancel(reference, force=True)
            ray.kill(self._mailbox)

    def _let_end(self) -> None:
        if self._sent:
            ray.get(self._mailbox.end.remote())
            for _ in self._letters():
                pass
        until = time.monotonic() + GRACE
        for reference in [reference for reference, sent in self._sent.items() if sent.heard is None]:
            ray.cancel(reference)  # it has not begun, or hears at once that it is not to
            self._forget(reference).held.close()
        while self._sent and (left := until - time.monotonic()) > 0:
            for reference in self._ready(left):
                for _ in self._ended(reference, at_the_end=True):
                    pass

    def _room(self) -> int:
        if time.monotonic() - self._looked > LOOK:
            self._window, self._looked = self._cluster.window(), time.monotonic()
        return self._window

    def _send(self, job: Job) -> Iterator[Event]:
        """Give a job to Ray; with its folder held here, where its results come back."""
        self._count += 1
        sent, brought = _Sent(job, self._count), None
        if self._brings and job.away:
            try:
                if job.away.fills:
                    sent.held.enter_context(lock(job.away.fills))
            except Busy:
                yield Event(job, "started")
                yield from self._queue.take(Event(job, "busy"))
                return
            brought = luggage.packed(job.away.reads, self._cluster.out, self._content)
            if job.away.fills:
                brought |= luggage.packed([job.away.fills], self._cluster.out, lambda file: ray.put(file.read_bytes()))
        task = self._task_alone if job.alone else self._task
        reference = task.remote(sent.number, job, self._terms, self._mailbox, brought)
        self._sent[reference] = self._numbers[sent.number] = sent

    def _content(self, file: Path) -> Any:
        """A reference to what stands in a file, which Ray is given once."""
        key = (file, file.stat().st_mtime_ns)
        if key not in self._put:
            self._put = {kept: content for kept, content in self._put.items() if kept[0] != file}
            self._put[key] = ray.put(file.read_bytes())
        return self._put[key]

    def _ready(self, seconds: float) -> list[Any]:
        """The tasks that have ended, once there is one or the time is over."""
        if not self._sent:
            time.sleep(seconds)
            return []
        ready, rest = ray.wait(list(self._sent), timeout=seconds)
        return ready + (ray.wait(rest, num_returns=len(rest), timeout=0)[0] if ready and rest else [])

    def _letters(self) -> Iterator[Event]:
        for number, kind, detail in ray.get(self._mailbox.fetch.remote()):
            if sent := self._numbers.get(number):
                sent.heard = time.monotonic()
                yield Event(sent.job, kind, detail)

    def _ended(self, reference: Any, *, at_the_end: bool = False) -> Iterator[Event]:
        """What became of a task."""
        sent = self._forget(reference)
        job = sent.job
        with sent.held:
            event = self._heard(reference, sent)
            if event is None:  # it was not begun, for it needs luggage
                self._brings = True
                self._queue.put_back(job)
                return
        if sent.heard is None:
            yield Event(job, "started")
        yield from [event] if at_the_end else self._queue.take(event)

    def _heard(self, reference: Any, sent: _Sent) -> Event | None:
        job = sent.job
        try:
            word: _Word = ray.get(reference)
        except RayTaskError as error:
            raise UsageError(f"{job.key} cannot begin: {told(error.cause)}; {SAME}") from error
        except RayError as error:
            if sent.silent:
                return Event(job, "failed", f"it reported nothing for {self._silence:g} seconds")
            attempts = LOST if isinstance(error, NodeDiedError) else ATTEMPTS
            return self._queue.killed(job, _reason(error), attempts, type(error).__name__)
        if word.kind == "other code":
            raise UsageError(f"node {word.node} has {word.detail}; {SAME}")
        if word.kind == "unseen":
            if job.away is None:
                where = f"node {word.node} does not see {self._cluster.out}"
                raise UsageError(f"{where}, which {job.key} needs: wanted an --out that all nodes share")
            return None
        if word.files is not None and job.away and job.away.fills:
            try:
                luggage.take_back(word.files, job.away.fills, self._cluster.out)
            except Busy:  # this process slept so long that another one has taken the folder over
                return Event(job, "busy")
        there = f" (on node {word.node})" if word.node and word.kind == "failed" else ""
        return Event(job, word.kind, f"{word.detail}{there}" if word.detail else None)  # type: ignore[arg-type]

    def _forget(self, reference: Any) -> _Sent:
        sent = self._sent.pop(reference)
        del self._numbers[sent.number]
        return sent

    def _end_the_silent(self) -> None:
        for reference, sent in self._sent.items() if self._silence else ():
            if sent.heard and time.monotonic() - sent.heard > (self._silence or 0.0) + PACE:
                sent.silent = True
                ray.cancel(reference, force=True)


SAME = "wanted the same blackbox-bench on every node"


def _reason(error: RayError) -> str:
    if isinstance(error, NodeDiedError):
        return "its node was lost"
    return "the memory of its node ran out" if isinstance(error, OutOfMemoryError) else "its process died"


def _task(number: int, job: Job, terms: _Terms, mailbox: Any, brought: dict[str, Any] | None) -> _Word:
    """A job in a process of Ray's, on whichever node that is."""
    here = "" if ray.get_runtime_context().get_node_id() == terms.node else socket.gethostname()
    if other := _other_code(terms.code):
        return _Word("other code", other, here)
    if brought is None and job.away != Away() and not _sees(*terms.probe):
        return _Word("unseen", node=here)
    torch.set_num_threads(terms.threads)
    set_precision()
    voice = _Voice(mailbox, number)
    try:
        voice.begin()
        if brought is None:
            event = do(job, torch.device(terms.device), voice)
            return _Word(event.kind, event.detail, here)
        return _with_luggage(job, terms, voice, brought, here)
    except Interrupted:
        return _Word("again", "it was told to end", here)
    finally:
        voice.end()


def _with_luggage(job: Job, terms: _Terms, voice: "_Voice", brought: dict[str, Any], here: str) -> _Word:
    """Do a job in a results folder of its own."""
    assert job.away
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder)
        luggage.unpack(dict(zip(brought, ray.get(list(brought.values())), strict=True)), root)
        event = do(luggage.moved(job, terms.root, root), torch.device(terms.device), voice)
        fills = job.away.fills and root / job.away.fills.relative_to(terms.root)
        return _Word(event.kind, event.detail, here, luggage.left(fills, root) if fills else None)


@functools.cache
def _sees(probe: Path, token: str) -> bool:
    try:
        return probe.read_text() == token
    except OSError:
        return False


def _code() -> dict[str, Any]:
    """What decides results, and must be the same on every node."""
    ours = {name: method for name, method in METHODS.items() if is_ours(method)}
    versions = {name: module.RESULTS for name, module in {**PARTS, **ours}.items()}
    return {"blackbox-bench": __version__, **versions}


@functools.cache
def _own_code() -> dict[str, Any]:
    return _code()


def _other_code(wanted: dict[str, Any]) -> str:
    """What of the code is of another version in this process; empty where nothing is."""
    own = _own_code()
    return ", ".join(f"{name} {own.get(name)}, not {wanted[name]}" for name in wanted if own.get(name) != wanted[name])


class _Voice:
    """A job's report by letters. Each is answered with whether the job is to end, which ends it between two rounds."""

    def __init__(self, mailbox: Any, number: int) -> None:
        self._mailbox, self._number = mailbox, number
        self._answer: Any = None
        self._next = 0.0

    def __call__(self, done: float, figures: dict[str, float] | None = None) -> None:
        if time.monotonic() >= self._next:
            self._hear(wait=0.0)
            self._post("progress", (done, figures or {}))
            self._next = time.monotonic() + PACE

    def say(self, line: str) -> None:
        self._post("said", line)

    def begin(self) -> None:
        """Say that the job begins; raises Interrupted where it is not to."""
        self._post("started")
        self._hear(wait=None)

    def end(self) -> None:
        """Wait until the last letter has come, so that none comes after the end."""
        if self._answer is not None:
            ray.wait([self._answer], timeout=GRACE)

    def _post(self, kind: str, detail: Any = None) -> None:
        self._answer = self._mailbox.post.remote(self._number, kind, detail)

    def _hear(self, wait: float | None) -> None:
        """Take in the last answer, if there is one; whoever does not answer any more wants the job to end."""
        try:
            if self._answer is not None and ray.wait([self._answer], timeout=wait)[0] and ray.get(self._answer):
                raise Interrupted
        except RayError as error:
            raise Interrupted from error
