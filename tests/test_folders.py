"""Any folder of images as a task: what it becomes, what it is called, and what is refused."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import bench
from test_cli import OFF

from bench.boxes.recipes import RECIPES, recipe_of
from bench.errors import UsageError
from bench.tasks.data import sources
from bench.tasks.image_folder import Folder, parse, register, split
from bench.tasks.table import TASKS


def draw(root: Path, side: int = 40, colour: bool = False, test: str = "test") -> Path:
    """Three classes, each bright in its own third, 20 training and 6 test images of each."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), (test, 6)):
        for label, name in enumerate(("cats", "dogs", "owls")):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                image = rng.integers(0, 99, (side, side, 3) if colour else (side, side), dtype=np.uint8)
                image[:, label * side // 3 : (label + 1) * side // 3] = 255
                Image.fromarray(image).save(root / part / name / f"{i:02}.png")
    return root


def bomb() -> bytes:
    """A small PNG that says it has 50,000 pixels a side."""
    Image.new("L", (1, 1)).save(buffer := io.BytesIO(), "PNG")
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + buffer.getvalue()[24:29]
    return buffer.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + buffer.getvalue()[33:]


def task_of(root: Path, teacher: str = "lenet5", student: str = "mlp") -> str:
    return register(parse(f"folder:{root}@{teacher},{student}"))


def test_a_folder_becomes_a_task_named_by_itself_and_its_content(tmp_path: Path) -> None:
    name = task_of(draw(tmp_path / "My Pets"))
    source = sources.source_of(TASKS[name].dataset)
    assert name == f"{TASKS[name].dataset}-lenet5-mlp"
    assert TASKS[name].dataset.startswith("folder-my-pets-")
    assert (source.shape, source.classes) == ((1, 32, 32), 3)
    assert recipe_of(TASKS[name]) == RECIPES["folder"]
    dataset = sources.load(TASKS[name].dataset, Path("elsewhere"))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [54, 6, 18]
    thirds = dataset.test.images.float().mean(dim=(1, 2))[:, [5, 16, 27]]
    assert thirds.argmax(dim=1).tolist() == dataset.test.labels.tolist()


def test_the_name_is_the_same_wherever_the_folder_lies_and_another_when_an_image_changes(tmp_path: Path) -> None:
    here, there = draw(tmp_path / "a" / "pets"), tmp_path / "b" / "pets"
    shutil.copytree(here, there)
    first = task_of(here)
    assert task_of(there) == first
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(there / "test" / "owls" / "05.png")
    assert task_of(there) != first


@pytest.mark.parametrize(
    ("side", "colour", "shape"), [(40, False, (1, 32, 32)), (64, False, (1, 64, 64)), (70, True, (3, 64, 64))]
)
def test_size_and_colours_follow_the_images(tmp_path: Path, side: int, colour: bool, shape: tuple[int, ...]) -> None:
    name = task_of(draw(tmp_path / "pets", side, colour))
    assert sources.source_of(TASKS[name].dataset).shape == shape
    assert sources.load(TASKS[name].dataset, tmp_path).test.images.shape[1:] == shape


def test_one_small_image_makes_all_32_pixels_and_one_in_colour_makes_all_three_channels(tmp_path: Path) -> None:
    root = draw(tmp_path / "pets", 64)
    Image.fromarray(np.zeros((40, 90, 3), dtype=np.uint8)).save(root / "train" / "cats" / "00.png")
    assert sources.source_of(TASKS[task_of(root)].dataset).shape == (3, 32, 32)


def test_the_test_part_may_be_called_val_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    root = draw(tmp_path / "pets", test="val")
    (root / "train" / "cats" / ".DS_Store").write_text("no image")
    assert len(sources.load(TASKS[task_of(root)].dataset, tmp_path).test) == 18


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("folder:pets", ("resnet18", "resnet18")),
        ("folder:pets@lenet5", ("lenet5", "lenet5")),
        ("folder:pets@lenet5,mlp", ("lenet5", "mlp")),
        ("folder:pets@", ("resnet18", "resnet18")),
    ],
)
def test_the_networks_stand_after_the_folder(text: str, networks: tuple[str, str]) -> None:
    folder = parse(text)
    assert folder == Folder(Path("pets").resolve(), *networks)


@pytest.mark.parametrize(
    ("text", "path", "teacher"),
    [
        ("folder:/a@b/c", "/a@b/c", "resnet18"),
        ("folder:/a@b/c@lenet5", "/a@b/c", "lenet5"),
        ("folder:/pets@home/", "/pets@home", "resnet18"),
        ("folder:/pets@home@lenet5", "/pets@home", "lenet5"),
    ],
)
def test_a_path_may_have_an_at_in_it(text: str, path: str, teacher: str) -> None:
    assert parse(text) == Folder(Path(path), teacher, teacher)


@pytest.mark.parametrize("text", ["folder:", "folder:@lenet5"])
def test_a_folder_without_a_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="wanted folder:PATH"):
        parse(text)


def test_folders_and_globs_may_stand_in_one_list() -> None:
    made, globs = split(["digits*,mnist*,folder:/pets@lenet5,mlp,folder:/other", "svhn*"])
    assert made == [Folder(Path("/pets"), "lenet5", "mlp"), Folder(Path("/other"), "resnet18", "resnet18")]
    assert globs == ["digits*,mnist*", "svhn*"]


NAMES = {"spaces": "my own  pets", "brackets": "[bold]pets[1]{x}*?", "no text": os.fsdecode(b"pets-\xff\xfe")}


@pytest.mark.parametrize("kind", NAMES)
def test_folders_classes_and_images_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name = NAMES[kind]
    root = draw(tmp_path / name)
    for part in ("train", "test"):
        (root / part / "cats").rename(root / part / name)
        (root / part / name / "00.png").rename(root / part / name / f"{name}.png")
    dataset = TASKS[task_of(root)].dataset
    assert len(sources.load(dataset, tmp_path).test) == 18
    assert TASKS[task_of(root)].dataset == dataset
    monkeypatch.chdir(tmp_path)
    assert bench("plan", "--task", f"folder:{name}@lenet5", "--method", "noise-uniform", "--budget", "250") == 0
    (root / "train" / name / f"{name}.png").write_text("no image")
    assert bench("plan", "--task", f"folder:{name}@lenet5", "--method", "noise-uniform", "--budget", "250") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.removesuffix("\n").isprintable()
    assert error.endswith(".png is no image that can be read\n")


def test_links_to_classes_and_images_are_followed(tmp_path: Path) -> None:
    root = draw(tmp_path / "pets")
    name = task_of(root)
    (root / "train" / "cats").rename(tmp_path / "elsewhere")
    (root / "train" / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "00.png").rename(tmp_path / "one.png")
    (tmp_path / "elsewhere" / "00.png").symlink_to(tmp_path / "one.png")
    assert task_of(root) == name


def test_the_default_networks_need_no_naming_and_want_a_gpu(tmp_path: Path) -> None:
    name = task_of(draw(tmp_path / "pets"), "resnet18", "resnet18")
    assert name == TASKS[name].dataset
    assert TASKS[name].gpu


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "no train": (lambda root: shutil.rmtree(root / "train"), "wanted train/CLASS"),
    "no test": (lambda root: shutil.rmtree(root / "test"), "wanted train/CLASS/... and test/CLASS/..."),
    "a class that train lacks": (lambda root: shutil.rmtree(root / "train/owls"), "class owls is in test but not in"),
    "a class that test lacks": (lambda root: shutil.rmtree(root / "test/dogs"), "class dogs is in train but not in"),
    "one class": (
        lambda root: [shutil.rmtree(root / part / name) for part in ("train", "test") for name in ("dogs", "owls")],
        "1 class in train, wanted 2 or more",
    ),
    "an empty class": (
        lambda root: [file.unlink() for file in (root / "train/dogs").iterdir()],
        "no image in train/dogs",
    ),
    "an empty class to test": (
        lambda root: [file.unlink() for file in (root / "test/owls").iterdir()],
        "no image in test/owls",
    ),
    "two images": (
        lambda root: [
            *(shutil.rmtree(root / part / "owls") for part in ("train", "test")),
            *(file.unlink() for file in (root / "train").glob("*/*.png") if file.name != "00.png"),
        ],
        "2 images in train, wanted 3 or more",
    ),
    "a folder that is a link to itself": (
        lambda root: (shutil.rmtree(root), root.symlink_to(root)),
        "there is no such folder",
    ),
    "a link to itself": (lambda root: (root / "train/cats/a.png").symlink_to("a.png"), "train/cats/a.png cannot be"),
    "a link to nothing": (lambda root: (root / "train/cats/a.png").symlink_to("b.png"), "train/cats/a.png cannot be"),
    "a link to a folder above": (lambda root: (root / "train/cats/a").symlink_to(root), "train/cats/a is no image"),
    "a class that is a link to a folder above": (
        lambda root: [(root / part / "all").symlink_to(root) for part in ("train", "test")],
        "train/all/test is no image",
    ),
    "a pipe": (lambda root: os.mkfifo(root / "train/cats/a.png"), "train/cats/a.png is no image"),
    "an empty file": (lambda root: (root / "train/cats/00.png").write_bytes(b""), "train/cats/00.png is no image"),
    "16 bits": (
        lambda root: Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(root / "train/cats/00.png"),
        "train/cats/00.png has more than 8 bits a channel, wanted 8",
    ),
    "a bomb": (
        lambda root: (root / "train/cats/00.png").write_bytes(bomb()),
        "train/cats/00.png is no image that can be read",
    ),
    "text": (lambda root: (root / "train/cats/a.txt").write_text("cat"), "train/cats/a.txt is no image"),
    "a folder among images": (lambda root: (root / "test/owls/more").mkdir(), "test/owls/more is no image"),
}


@pytest.mark.parametrize("fault", SPOILERS)
def test_what_is_no_image_folder_is_told_in_one_line_that_names_it(tmp_path: Path, fault: str) -> None:
    spoil, told = SPOILERS[fault]
    root = draw(tmp_path / "pets")
    spoil(root)
    with pytest.raises(UsageError) as error:
        task_of(root)
    assert told in str(error.value)
    assert str(root) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_network_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown network 'lenet6'; did you mean lenet5"):
        parse(f"folder:{tmp_path}@lenet6")


def test_an_image_cut_short_is_told_when_it_is_decoded(tmp_path: Path) -> None:
    root = draw(tmp_path / "pets")
    file = root / "train" / "dogs" / "03.png"
    file.write_bytes(file.read_bytes()[:-100])
    name = task_of(root)
    with pytest.raises(UsageError, match=r"dogs/03\.png is no image, or a broken one"):
        sources.load(TASKS[name].dataset, tmp_path)


def test_a_folder_runs_from_images_to_a_curve_and_its_cells_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    command = [
        "--task",
        "folder:pets@lenet5,mlp",
        "--method",
        "noise-uniform",
        "--budget",
        "250",
        "--seeds",
        "1",
        "--teachers",
        "1",
    ]
    quick = ["--set", "noise*.recipe.min_steps=2", "--set", "noise*.recipe.passes=1"]
    command += ["--exclude", "answers=probs", *quick]
    assert bench("run", *command, *OFF) == 0
    told = capsys.readouterr().out
    assert "data set folder-pets-" in told
    shutil.move("pets", "elsewhere-pets")
    (tmp_path / "moved").mkdir()
    shutil.move("elsewhere-pets", "moved/pets")
    command[1] = "folder:moved/pets@lenet5,mlp"
    assert bench("plan", *command) == 0
    assert "(1 done)" in capsys.readouterr().out
    [teacher] = (tmp_path / "runs" / "teachers").iterdir()
    assert teacher.name.startswith("folder-pets-")


def test_a_broken_image_ends_the_run_before_any_work_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = draw(tmp_path / "pets") / "test" / "owls" / "05.png"
    file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.chdir(tmp_path)
    assert bench("run", "--task", "folder:pets@lenet5", "--method", "noise-uniform", *OFF) == 2
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED data set folder-pets-")]
    assert "owls/05.png is no image, or a broken one" in line
    assert not (tmp_path / "runs" / "cells").exists()


def test_a_folder_beside_globs_is_added_to_what_they_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    tasks = ["--task", "digits-lenet", "--task", "folder:pets@lenet5"]
    assert bench("plan", *tasks, "--method", "noise-uniform", "--budget", "250") == 0
    told = capsys.readouterr().out
    assert "digits-lenet-bn" in told  # its teacher
    assert "folder-pets-" in told


def test_a_folder_that_is_none_ends_the_command_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("run", "--task", "folder:pets") == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: image folder ")
    assert error.count("\n") == 1
