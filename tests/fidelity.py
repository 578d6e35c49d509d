"""Our methods against their released code, on the same inputs: the greatest difference of losses and gradients.

    python tests/fidelity.py PATH [METHOD ...]
    python tests/fidelity.py PATH ideal-loop --data DATA [--out OUT] [--seeds N] [--rounds N] ...

PATH holds checkouts of the released repositories, each named OWNER+NAME or NAME; docs/fidelity.md says which. Nothing
of them is copied: single functions and classes are compiled out of their files, whatever those import.
"""

import argparse
import ast
import math
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fidelity_ideal
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision import transforms

LOOP = "ideal-loop"
GIVEN = {"torch": torch, "nn": nn, "F": F, "np": np, "math": math, "os": os}


def pick(file: Path, *names: str, **given: Any) -> SimpleNamespace:
    """The functions and classes of a source file with those names, compiled alone beside what they are `given`."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names]
    space = {**GIVEN, **given}
    exec(compile(tree, str(file), "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def checkout(path: Path, repository: str) -> Path:
    """The folder of `owner/name` under PATH."""
    owner, name = repository.split("/")
    for folder in (path / f"{owner}+{name}", path / name):
        if folder.is_dir():
            return folder
    raise SystemExit(f"{path} has no {owner}+{name} and no {name}: docs/fidelity.md says where to find it")


def ideal_code(path: Path) -> SimpleNamespace:
    """What IDEAL's released loop is made of."""
    folder = checkout(path, "SonyResearch/IDEAL")
    names = ("ScoreLoss", "ImagePool", "MultiTransform", "UnlabeledImageDataset", "reset_model", "cal_label")
    names += ("save_image_batch", "_collect_all_images", "pack_images")
    utils = vars(pick(folder / "utils.py", *names, Image=Image))
    given = {"transforms": transforms, "augmentation": fidelity_ideal.stand_in_for_kornia(), "Counter": Counter}
    loop = pick(folder / "ideal.py", "Synthesizer", "kd_train", **given, **utils)
    return SimpleNamespace(**utils, **vars(pick(folder / "nets.py", "CNN", "Generator_2")), **vars(loop))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="folder of the checkouts")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of those that are compared, or {LOOP}")
    parser.add_argument("--data", type=Path, help=f"{LOOP}: folder of MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs"), help=f"{LOOP}: where its teacher is, or is to be")
    for name, value in vars(fidelity_ideal.Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"{LOOP}: {value}")
    return parser.parse_args()


def main() -> bool:
    asked = arguments()
    torch.set_num_threads(1)
    if asked.methods == [LOOP]:
        setting = fidelity_ideal.Setting(**{name: getattr(asked, name) for name in vars(fidelity_ideal.Setting())})
        return fidelity_ideal.paired_runs(ideal_code(asked.path), asked.data, asked.out, setting)
    return True


if __name__ == "__main__":
    sys.exit(not main())
