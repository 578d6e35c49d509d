"""Teachers: made from the training split alone, always the same, known by a hash, and refused when they are not it."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import CPU, rewrite_teacher
from torch import Tensor, nn

from bench.boxes import box, teachers
from bench.boxes.recipes import RECIPES
from bench.errors import UsageError
from bench.tasks import networks
from bench.tasks.data import sources
from bench.tasks.data.sources import Dataset, Split
from bench.tasks.networks import Normalised
from bench.tasks.table import task_of
from results.claims import lock
from results.records import TeacherRecord

TASK = task_of("digits-lenet")
NO_DATA = Path("no-data")


def train(root: Path, report: Callable[[float], None] = lambda _: None) -> TeacherRecord:
    return teachers.train(TASK, root, NO_DATA, CPU, report)


@pytest.fixture(scope="module", autouse=True)
def three_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", replace(RECIPES["digits"], epochs=3))
        yield


@pytest.fixture(scope="module")
def teacher_root(tmp_path_factory: pytest.TempPathFactory, three_epochs: None) -> Path:  # noqa: ARG001 - set up first
    root = tmp_path_factory.mktemp("trained")
    train(root)
    return root


@pytest.fixture
def folder(teacher_root: Path, tmp_path: Path) -> Path:
    """The folder of a trained teacher under `tmp_path`, which a test may spoil."""
    copied = teachers.folder_of(TASK, tmp_path)
    copied.mkdir(parents=True)
    for file in teachers.folder_of(TASK, teacher_root).iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    return copied


def test_a_trained_teacher_knows_digits_and_its_accuracies_are_on_record(teacher_root: Path) -> None:
    record = teachers.record_of(TASK, teacher_root)
    assert record is not None
    teacher, digits = teachers.load(TASK, teacher_root, CPU), sources.load("digits", NO_DATA)
    assert record.hash == teachers.content_hash(teacher)
    assert record.test_accuracy == box.accuracy(teacher, digits.test)
    assert record.validation_accuracy == box.accuracy(teacher, digits.validation)
    assert record.test_accuracy > 0.8


def test_one_file_holds_the_weights_and_says_how_they_came_about(teacher_root: Path) -> None:
    description = teachers.description_of(TASK, teacher_root)
    assert description is not None
    assert description.origin["recipe"]["epochs"] == 3
    assert description.task["dataset"] == "digits"
    assert (description.machine.threads, description.machine.precision) == (1, "float32")
    assert sorted(file.name for file in teachers.folder_of(TASK, teacher_root).iterdir()) == [
        "claim.1",
        "lock",
        "teacher.pt",
    ]
    assert torch.load(teachers.file_of(TASK, teacher_root), weights_only=True).keys() == (
        teachers.untrained(TASK).state_dict().keys()
    )


def test_a_plan_reads_the_record_without_the_weights(teacher_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    assert teachers.record_of(TASK, teacher_root) is not None


def test_the_second_to_train_a_teacher_waits_and_takes_the_first_ones(
    teacher_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "_train", None)  # whoever trains it here fails
    file = teachers.file_of(TASK, tmp_path)
    with ThreadPoolExecutor() as pool:
        with lock(file.parent):
            second = pool.submit(train, tmp_path)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
            shutil.copy(teachers.file_of(TASK, teacher_root), file)
        assert second.result(timeout=30) == teachers.record_of(TASK, teacher_root)


def test_a_teacher_that_was_not_trained_has_no_record_and_cannot_be_loaded(tmp_path: Path) -> None:
    assert teachers.record_of(TASK, tmp_path) is None
    with pytest.raises(UsageError):
        teachers.load(TASK, tmp_path, CPU)


def test_the_same_recipe_gives_the_same_teacher_and_another_seed_another(teacher_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    torch.rand(5)
    record = teachers.record_of(TASK, teacher_root)
    assert record is not None
    assert train(tmp_path) == record
    other = task_of("digits-lenet", 1)
    assert teachers.train(other, tmp_path, Path("no-data"), CPU, lambda _: None).hash != record.hash
    assert teachers.record_of(TASK, tmp_path) == record, "each has a file of its own"


def test_training_leaves_the_random_state_of_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], epochs=1))
    before = torch.get_rng_state()
    train(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_recipe_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = teachers.folder_of(TASK, tmp_path)
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], lr=0.01))
    assert teachers.folder_of(TASK, tmp_path) != before


def test_tasks_with_the_same_data_and_teacher_share_it(teacher_root: Path) -> None:
    assert teachers.record_of(task_of("digits-mlp"), teacher_root) == teachers.record_of(TASK, teacher_root)


def test_the_share_done_rises_to_one(tmp_path: Path) -> None:
    shares: list[float] = []
    train(tmp_path, shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])


def test_held_out_images_and_labels_have_no_part_in_the_weights(
    teacher_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(name: str, folder: Path) -> Dataset:
        digits = original(name, folder)
        spoilt = Split(torch.full_like(digits.test.images, 255), torch.zeros_like(digits.test.labels))
        return Dataset(digits.train, Split(spoilt.images[:100], spoilt.labels[:100]), spoilt)

    original = sources.load
    monkeypatch.setattr(sources, "load", poisoned)
    record, honest = train(tmp_path), teachers.record_of(TASK, teacher_root)
    assert honest is not None
    assert record.hash == honest.hash
    assert record.test_accuracy != honest.test_accuracy


def test_a_change_to_the_training_images_changes_the_teacher(
    teacher_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(name: str, folder: Path) -> Dataset:
        digits = original(name, folder)
        return Dataset(Split(digits.train.images // 2, digits.train.labels), digits.validation, digits.test)

    original = sources.load
    monkeypatch.setattr(sources, "load", shifted)
    train(tmp_path)
    honest, other = (teachers.load(TASK, root, CPU) for root in (teacher_root, tmp_path))
    assert other.mean.item() == pytest.approx(honest.mean.item() / 2, abs=0.01)


def test_the_teacher_normalises_by_the_moments_of_its_training_images(teacher_root: Path) -> None:
    teacher = teachers.load(TASK, teacher_root, CPU)
    pixels = sources.load("digits", NO_DATA).train.images.float() / 255
    assert teacher.mean.shape == teacher.std.shape == (1, 1, 1)
    assert teacher.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-5)
    assert teacher.std.item() == pytest.approx(pixels.std().item(), rel=1e-5)
    images = torch.rand(5, 1, 8, 8)
    expected = teacher.network((images - pixels.mean()) / pixels.std()).softmax(dim=1)
    torch.testing.assert_close(box.black_box(teacher)(images), expected)


def test_each_channel_has_its_own_moments() -> None:
    images = torch.stack([torch.full((4, 2, 2), 51), torch.full((4, 2, 2), 255)], dim=1).to(torch.uint8)
    images[0, 0] = 255
    mean, _ = teachers.moments(images)
    assert mean.flatten().tolist() == pytest.approx([0.4, 1.0])


def test_a_loaded_teacher_is_frozen_and_in_eval_mode(teacher_root: Path) -> None:
    teacher = teachers.load(TASK, teacher_root, CPU)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    before = teachers.content_hash(teacher)
    answer = box.black_box(teacher)(torch.rand(50, 1, 8, 8).requires_grad_())
    assert not answer.requires_grad
    assert teachers.content_hash(teacher) == before


def test_the_black_box_answers_with_probabilities(teacher_root: Path) -> None:
    answer = box.black_box(teachers.load(TASK, teacher_root, CPU))(torch.rand(20, 1, 8, 8))
    assert answer.shape == (20, 10)
    assert answer.min() >= 0
    torch.testing.assert_close(answer.sum(dim=1), torch.ones(20))


def tampered(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    state["network.0.weight"][0, 0, 0, 0] += 1e-6
    rewrite_teacher(file, state)


def of_another(network: str) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        other = Normalised(networks.build(network, (1, 8, 8), 10), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        rewrite_teacher(file, other.state_dict())

    return spoil


SPOILERS: dict[str, Callable[[Path], object]] = {
    "one weight moved by a millionth": tampered,
    "random weights": of_another("lenet-bn"),
    "another network": of_another("mlp"),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "cut to a thousand bytes": lambda file: file.write_bytes(file.read_bytes()[:1000]),
    "empty": lambda file: file.write_bytes(b""),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "no record, as the first versions wrote it": lambda file: rewrite_teacher(file, schema=None),
    "of a newer schema": lambda file: rewrite_teacher(file, schema=99),
    "record of another make": lambda file: rewrite_teacher(file, record={"hash": "x"}),
    "record of another type": lambda file: rewrite_teacher(file, record=[1, 2]),
}


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_teacher_that_is_not_the_one_on_record_is_refused_in_one_line_that_names_its_folder(
    folder: Path, tmp_path: Path, spoil: str
) -> None:
    teachers.load(TASK, tmp_path, CPU)
    SPOILERS[spoil](folder / "teacher.pt")
    with pytest.raises(UsageError) as error:
        teachers.load(TASK, tmp_path, CPU)
    assert str(folder) in str(error.value)
    assert "delete the folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_hash_knows_names_shapes_values_and_buffers() -> None:
    def with_buffer(name: str, value: Tensor) -> str:
        module = nn.Module()
        module.register_buffer(name, value)
        return teachers.content_hash(module)

    same = with_buffer("mean", torch.tensor([1.0, 2.0]))
    others = [
        with_buffer("std", torch.tensor([1.0, 2.0])),
        with_buffer("mean", torch.tensor([1.0, 2.5])),
        with_buffer("mean", torch.tensor([[1.0, 2.0]])),
        with_buffer("mean", torch.tensor([1.0, 2.0], dtype=torch.float64)),
    ]
    assert with_buffer("mean", torch.tensor([1.0, 2.0])) == same
    assert len({same, *others}) == 5


def test_the_learning_rate_rises_to_a_fifth_of_the_way_and_falls_to_nothing() -> None:
    shares = (0, 0.1, 0.2, 0.6, 1)
    assert [teachers._triangle(share, peak=0.2) for share in shares] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"[]"])
def test_a_broken_file_is_told_by_a_look_at_its_record_and_stays_where_it_is(folder: Path, content: bytes) -> None:
    (folder / "teacher.pt").write_bytes(content)
    with pytest.raises(UsageError, match="it is not whole, or of an earlier version; delete the folder"):
        teachers.record_of(TASK, folder.parents[1])
    with pytest.raises(UsageError, match="it is not whole"):
        train(folder.parents[1])
    assert (folder / "teacher.pt").read_bytes() == content


def test_accuracy_is_the_share_of_images_with_the_true_label() -> None:
    split = Split(torch.zeros(5, 1, 1, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 0, 1]))
    split.images[:, 0, 0, 0] = torch.tensor([255, 255, 0, 255, 0])  # class 0 where the first pixel is the brighter
    split.images[:, 0, 0, 1] = 255 - split.images[:, 0, 0, 0]
    assert box.accuracy(nn.Flatten(), split) == pytest.approx(3 / 5)


def test_batches_of_any_size_predict_the_same(teacher_root: Path) -> None:
    teacher, images = teachers.load(TASK, teacher_root, CPU), sources.load("digits", NO_DATA).test.images
    assert torch.equal(box.predict(teacher, images, batch_size=7), box.predict(teacher, images))
