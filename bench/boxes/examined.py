"""Black boxes from elsewhere, examined once: what they are known by, and their answers on the test images.

ROOT/boxes/NAME/box.json             what is known of it
               answers-HASH.pt       its top-1 classes of the test images
               probe.journal         what it answered to the probes, each paid for
               test-HASH.journal     what it answered to the test images
               begun.json            what is known so far, while the test images are being asked
ROOT/boxes/bill-ENDPOINT/bill.json   images charged so far, cells and examinations of all data sets together
                         turns/      whose turn it is to send a request
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.boxes import files
from bench.boxes.described import Box, Endpoint, ModelFile, box_of
from bench.boxes.http.bill import Bill
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.table import Task
from budgets.answers import top_1
from budgets.journal import Journal
from results.claims import wait_for
from results.records import BoxNote, TeacherRecord, plain, read
from results.store import digest, write_json, write_with

if TYPE_CHECKING:
    from bench.boxes.http.client import Client

PROBES = 32  # images whose answers tell one model from another
SEED = 25_000  # of the probes
BATCH = 1000  # test images in a call
BEGUN = "begun.json"


@dataclass(frozen=True)
class Examined:
    """box.json. probe: its top-1 classes of the probes. asked: images that examinations have sent. answers: what it
    reveals. changes: what was seen of other answers, and when."""

    record: TeacherRecord
    version: str
    probe: list[int]
    asked: int
    answers: str
    changes: list[str] = field(default_factory=list)


def folder_of(task: Task, root: Path) -> Path:
    """Where what is known of the task's black box lies."""
    box = _box(task)
    place = digest(f"{task.dataset} {box.base}" if isinstance(box, Endpoint) else task.dataset)[:8]
    return root / "boxes" / f"{task.teacher}-{task.dataset}-{place}"


def examined(task: Task, root: Path) -> Examined | None:
    """What is known of the task's black box, or None if it was not asked anything yet."""
    file = folder_of(task, root) / "box.json"
    return read(file, Examined) if file.exists() else None


def bill_of(task: Task, root: Path) -> Bill:
    """What the task's endpoint has cost so far, whatever data set and description it was asked with."""
    box = _box(task)
    assert isinstance(box, Endpoint)
    place = root / "boxes" / f"bill-{digest(f'{box.base} {box.model}')[:8]}"
    return Bill(place, box.price, box.limit, box.currency)


def to_examine(task: Task, root: Path) -> int:
    """Images that a run sends besides its cells' queries: the probes, before and after, and the test images, if those
    were not answered yet and the size of the data set is known."""
    box = _box(task)
    if examined(task, root) or not box.agreement:
        return 2 * PROBES
    return 2 * PROBES + (sources.source_of(task.dataset).sizes[1] or 0)


def note_of(task: Task, root: Path) -> BoxNote:
    """The task's black box, as a report names it."""
    box, known = _box(task), examined(task, root)
    answers, version, asked = (known.answers, known.version, known.asked) if known else (box.answers, "", 0)
    if isinstance(box, ModelFile):
        return BoxNote(box.file.name, version, answers, box.inputs, asked, None, "", [])
    bill = bill_of(task, root)
    what = f"{box.adapter} {box.model}".strip()
    money = f"{bill.money:,.2f} {box.currency}" if box.price else ""
    return BoxNote(what, version, answers, box.inputs, asked, bill.images, money, known.changes if known else [])


def right_answers(task: Task, root: Path, device: torch.device) -> Tensor | None:
    """The box's top-1 classes of the task's test images, int64 of N; None where they were left out."""
    known = examined(task, root)
    if known is None:
        raise UsageError(f"the black box of {task.teacher} was not examined yet; bench run does that first")
    if not _box(task).agreement:
        return None
    file = folder_of(task, root) / f"answers-{known.record.hash}.pt"
    answers: Tensor = torch.load(file, map_location=device, weights_only=True)
    return answers


def examine(
    task: Task, root: Path, data_folder: Path, device: torch.device, report: Callable[[float], None]
) -> TeacherRecord:
    """Ask the task's black box what it must be asked before all cells, and keep it.

    An endpoint is sent the probes each time, and the test images where it is not the one that was examined before. Of
    several processes one does it. UsageError where it does not answer as described.
    """
    with wait_for(folder_of(task, root)):
        box, known = _box(task), examined(task, root)
        if isinstance(box, ModelFile):
            found = known if known and not box.function else _examine_file(box, task, root, data_folder, device, known)
        else:
            found = _examine_endpoint(box, task, root, data_folder, known, report)
        write_json(folder_of(task, root) / "box.json", plain(found))
        (folder_of(task, root) / BEGUN).unlink(missing_ok=True)
        return found.record


def changed(task: Task, root: Path) -> str | None:
    """Send the probes again; returns what differs from the examination before the cells, or None, and keeps it."""
    with wait_for(folder_of(task, root)):
        box, known = _box(task), examined(task, root)
        assert isinstance(box, Endpoint)
        assert known
        version, probe = _probed(box, task, root, known.asked)
        told = _difference(known, version, probe)
        changes = [*known.changes, f"{_now()}: {told}"] if told else known.changes
        kept = replace(known, asked=known.asked + PROBES, changes=changes)
        write_json(folder_of(task, root) / "box.json", plain(kept))
        return told


def hash_of(box: Box, content: str) -> str:
    """What a black box is known by. content: what tells it from others of its description: that of its file, as
    `files.opened` found it, or the version and the answers to the probes."""
    return digest(f"{sorted(box.nature().items())} {content}")[:16]


def _examine_file(
    box: ModelFile, task: Task, root: Path, data_folder: Path, device: torch.device, known: Examined | None
) -> Examined:
    source, test = sources.source_of(task.dataset), sources.load(task.dataset, data_folder).test
    ask, content = files.opened(box, source.shape, source.classes, device)
    name = hash_of(box, content)
    if known and known.record.hash == name:
        return known
    answers = torch.cat([top_1(ask(batch.to(device).float().div(255))).cpu() for batch in test.images.split(BATCH)])
    _keep_answers(answers, task, root, name)
    reveals = "probs" if ask(_probes(source.shape).to(device)).ndim == 2 else "labels"
    return Examined(TeacherRecord(name, None, _accuracy(answers, test.labels)), "", [], 0, reveals)


def _examine_endpoint(
    box: Endpoint, task: Task, root: Path, data_folder: Path, known: Examined | None, report: Callable[[float], None]
) -> Examined:
    begun = folder_of(task, root) / BEGUN
    earlier = read(begun, Examined) if begun.exists() else known
    asked = earlier.asked if earlier else 0
    version, probe = _probed(box, task, root, asked)
    asked += PROBES
    told = _difference(earlier, version, probe) if earlier else None
    if known and earlier is known and not told:
        return replace(known, asked=asked)
    name = hash_of(box, f"{version} {probe}")
    changes = [*(earlier.changes if earlier else []), *([f"{_now()}: {told}"] if told else [])]
    found = Examined(TeacherRecord(name, None, None), version, probe, asked, box.answers, changes)
    if not box.agreement:
        return found
    write_json(begun, plain(found))
    test = sources.load(task.dataset, data_folder).test
    answers, sent = _asked_once(box, task, root, name, test.images, report)
    _keep_answers(answers, task, root, name)
    return replace(found, record=TeacherRecord(name, None, _accuracy(answers, test.labels)), asked=asked + sent)


def _probed(box: Endpoint, task: Task, root: Path, asked: int) -> tuple[str, list[int]]:
    """The version of the endpoint's model, and its top-1 classes of the probes. asked: images that were sent before."""
    client = _client(box, task, root, "probe.journal", "probe")
    try:
        client.look()
        client.resume(asked)  # a place of its own in the journal: probes are never taken from there
        answered = client(_probes(sources.source_of(task.dataset).shape))
        return client.version, top_1(answered).tolist()
    finally:
        client.close()


def _asked_once(
    box: Endpoint, task: Task, root: Path, name: str, images: Tensor, report: Callable[[float], None]
) -> tuple[Tensor, int]:
    """The box's top-1 classes of uint8 images, asked or from the journal, and how many were sent for it."""
    client, found = _client(box, task, root, f"test-{name}.journal", f"test-{name}"), []
    try:
        for batch in images.split(BATCH):
            found.append(top_1(client(batch.float().div(255))).cpu())
            report(sum(map(len, found)) / len(images))
    finally:
        client.close()
    return torch.cat(found), len(images)


def _client(box: Endpoint, task: Task, root: Path, journal: str, name: str) -> "Client":
    from bench.boxes.http.client import Client

    folder = folder_of(task, root)
    kept = Journal(folder / journal, {"box": task.teacher, "batch": box.batch})
    return Client(box, sources.source_of(task.dataset).classes, kept, bill_of(task, root), name)


def _difference(known: Examined, version: str, probe: list[int]) -> str | None:
    if version != known.version:
        return f"its model was version {known.version or 'unknown'}, is {version or 'unknown'}"
    others = sum(old != new for old, new in zip(known.probe, probe, strict=True))
    return f"it answers otherwise to {others} of {PROBES} probes" if others else None


def _probes(shape: tuple[int, int, int]) -> Tensor:
    """The images that tell one model from another, float on the 8-bit grid: half noise of each pixel, half of areas."""
    rng = torch.Generator().manual_seed(SEED)
    fine = torch.rand(PROBES // 2, *shape, generator=rng)
    coarse = torch.rand(PROBES // 2, shape[0], 4, 4, generator=rng)
    enlarged = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False)
    return torch.cat([fine, enlarged]).mul(255).round().div(255)


def _keep_answers(answers: Tensor, task: Task, root: Path, name: str) -> None:
    write_with(folder_of(task, root) / f"answers-{name}.pt", lambda file: torch.save(answers, file))


def _accuracy(answers: Tensor, labels: Tensor) -> float | None:
    """Share of true labels; None where nobody knows them."""
    return None if (labels < 0).any() else (answers == labels.cpu()).double().mean().item()


def _box(task: Task) -> Box:
    box = box_of(task)
    assert box is not None, f"{task.teacher} is a teacher of ours"
    return box


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
