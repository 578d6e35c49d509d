"""Our methods against their released code, on the same inputs: the greatest difference of losses and gradients.

    python tests/fidelity.py PATH [METHOD ...]
    python tests/fidelity.py PATH ideal-loop --data DATA [--out OUT] [--seeds N] [--rounds N] ...

PATH holds checkouts of the released repositories, each named OWNER+NAME or NAME; docs/fidelity.md says which. Nothing
of them is copied: single functions, classes and lines are compiled out of their files, whatever those import. All
numbers are float64, and what is random is drawn from one seed, in the same order on both sides.
"""

import __future__

import argparse
import ast
import copy
import io
import json
import math
import os
import sys
import tempfile
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import fidelity_ideal
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from methods import (
    boundary,
    dfhl_rs,
    dfme,
    dfms,
    disguide,
    dual_students,
    generators,
    ideal,
    knockoff,
    maze,
    qedg,
    zsdb3kd,
)
from methods.run import Run

# What is compared, ours and the released one.
Pair = tuple[str, Tensor, Tensor]
Network = Callable[[Tensor], Tensor]

LOOP = "ideal-loop"
TOLERANCE = 1e-5
GIVEN = {"torch": torch, "nn": nn, "F": F, "np": np, "math": math, "os": os, "LA": np.linalg}
SHAPE, CLASSES, N, LATENT = (3, 8, 8), 10, 16, 32
CPU = torch.device("cpu")


# The released code


def pick(file: Path, *names: str, **given: Any) -> SimpleNamespace:
    """The functions and classes of a source file with those names, compiled alone beside what they are `given`."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names]
    space = {**GIVEN, **given}
    exec(compile(tree, str(file), "exec", __future__.annotations.compiler_flag), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def play(file: Path, first: int, last: int, **given: Any) -> SimpleNamespace:
    """The variables after lines `first` to `last` of a source file, which lie in the middle of a script's loop."""
    lines = file.read_text(encoding="utf-8").splitlines()[first - 1 : last]
    space = {**GIVEN, **given}
    exec(compile(textwrap.dedent("\n".join(lines)), str(file), "exec"), space)
    return SimpleNamespace(**space)


def checkout(path: Path, repository: str) -> Path:
    """The folder of `owner/name` under PATH."""
    owner, name = repository.split("/")
    for folder in (path / f"{owner}+{name}", path / name):
        if folder.is_dir():
            return folder
    raise SystemExit(f"{path} has no {owner}+{name} and no {name}: docs/fidelity.md says where to find it")


# What both sides are given


def network(seed: int) -> nn.Module:
    """A small classifier with a convolution and batch norm, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(SHAPE[0], 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(8 * SHAPE[1] * SHAPE[2], CLASSES)).eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels() -> Tensor:
    return torch.arange(N) % CLASSES


def images() -> Tensor:
    return draw(N, *SHAPE, seed=3).sigmoid()


class Answering:
    """A teacher behind what methods use of an oracle, which unlike that keeps float64."""

    shape, classes, spent, remaining = SHAPE, CLASSES, 0, 10**9
    budget = SimpleNamespace(queries=10**9)

    def __init__(self, teacher: Network, answers: str = "probs") -> None:
        self.teacher, self.answers = teacher, answers

    def __call__(self, sent: Tensor) -> Tensor:
        with torch.no_grad():
            probs = self.teacher(sent).softmax(dim=1)
        return probs.argmax(dim=1) if self.answers == "labels" else probs


class Batches:
    """A pool that always has the same batches: images and, unless every view is asked about, their labels."""

    def __init__(self, labelled: bool, count: int = 3) -> None:
        self.items = [(draw(N, *SHAPE, seed=10 + i).sigmoid(), labels() if labelled else None) for i in range(count)]

    def batches(self, *_: object) -> Iterator[tuple[Tensor, Tensor | None]]:
        yield from self.items


def run() -> Run:
    """A run that draws from torch's own generator, as released code does."""
    return Run(CPU, torch.manual_seed(0))


def sgd(network: nn.Module, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)


def numpy_draws_from_torch() -> Any:
    """While it lasts, both random generators are one."""
    return mock.patch("numpy.random.randn", lambda *size: torch.randn(*size).numpy())


# How they are compared


def flat(of: Any) -> Tensor:
    """All floats of a network, weights and buffers, or of its gradients, as one vector."""
    return torch.cat([value.detach().flatten() for value in of if value.is_floating_point()])


def weights(of: nn.Module) -> Tensor:
    return flat(of.state_dict().values())


def gradients(of: nn.Module) -> Tensor:
    return flat(p.grad for p in of.parameters())


def loss_and_gradient(what: str, ours: Network, released: Network, at: Tensor, *, shifted: bool = False) -> list[Pair]:
    """A loss and its gradient at some point. shifted: the losses differ by a constant, so only the gradient counts."""
    values, slopes = [], []
    for loss_of in (ours, released):
        point = at.detach().clone().requires_grad_()
        loss = loss_of(point)
        loss.backward()
        values.append(loss.detach())
        slopes.append(point.grad if point.grad is not None else torch.zeros(()))
    pairs: list[Pair] = [] if shifted else [(what, values[0], values[1])]
    return [*pairs, (f"{what}: gradient", slopes[0], slopes[1])]


def same_weights(ours: nn.Module, released: nn.Module) -> None:
    """Give ours the released weights: the layers are the same, in the same order, under other names."""
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), released.parameters(), strict=True):
            mine.copy_(theirs)


def generator(ours: nn.Module, released: nn.Module, show: Callable[..., Tensor] = nn.Module.__call__) -> list[Pair]:
    """What two generators of the same weights make, in training mode, and the gradient of its squares."""
    same_weights(ours, released)
    noise = draw(N, LATENT, seed=4)
    made, theirs = ours.train()(noise), show(released.train(), noise)
    for maps in (made, theirs):
        (maps * draw(*maps.shape, seed=5)).sum().backward()
    return [
        ("generator: images", made.detach(), theirs.detach()),
        ("generator: gradient", gradients(ours), gradients(released)),
    ]


def difference(ours: Tensor, released: Tensor) -> float:
    """The greatest difference, relative to the greatest released value."""
    return ((ours - released).abs().max() / released.abs().max()).item()


# IDEAL


def ideal_code(path: Path) -> SimpleNamespace:
    """What IDEAL's released loop is made of."""
    folder = checkout(path, "SonyResearch/IDEAL")
    names = ("ScoreLoss", "ImagePool", "MultiTransform", "UnlabeledImageDataset", "reset_model", "cal_label")
    names += ("save_image_batch", "_collect_all_images", "pack_images")
    utils = vars(pick(folder / "utils.py", *names, Image=Image))
    given = {"transforms": transforms, "augmentation": fidelity_ideal.stand_in_for_kornia(), "Counter": Counter}
    loop = pick(folder / "ideal.py", "Synthesizer", "kd_train", **given, **utils)
    return SimpleNamespace(**utils, **vars(pick(folder / "nets.py", "CNN", "Generator_2")), **vars(loop))


def twin(released: nn.Module) -> nn.Module:
    """Our generator of images with the weights of a released one."""
    ours = generators.ideal_generator(LATENT, 64, SHAPE)
    same_weights(ours, released)
    return ours


def reset(reset_model: Callable[[nn.Module], None], released: nn.Module) -> Pair:
    ours = generators.ideal_generator(LATENT, 64, SHAPE)
    torch.manual_seed(0)
    reset_model(released)
    torch.manual_seed(0)
    ours.apply(ideal.reset)
    return "generator: weights after a reset", flat(ours.parameters()), flat(released.parameters())


def compare_ideal(path: Path) -> list[Pair]:
    code = ideal_code(path)
    theirs = code.Generator_2(LATENT, 64, SHAPE[1], SHAPE[0])
    pairs = [*generator(twin(theirs), copy.deepcopy(theirs)), reset(code.reset_model, copy.deepcopy(theirs))]
    return [*pairs, *ideal_generation(code, theirs), ideal_student(code)]


def ideal_generation(code: SimpleNamespace, theirs: nn.Module) -> list[Pair]:
    """Ten steps of the generator without augmentation: loss, gradient, optimiser and choice of the best batch."""
    kept: list[Tensor] = []
    ours = twin(theirs)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fidelity_ideal.on_the_cpu(stack)
        made = code.Synthesizer(theirs, LATENT, CLASSES, SHAPE, 10, 1e-3, 2 * CLASSES, folder, "mnist")
        stack.enter_context(mock.patch.dict(made.gen_data.__func__.__globals__, reset_model=lambda _: None))
        made.aug, made.data_pool = lambda maps: (maps, None), SimpleNamespace(add=kept.append)
        torch.manual_seed(0)
        made.gen_data(network(1), network(2), 0)
    config = ideal.Config(generator_steps=10, latent=LATENT, reset_generator=False, augment_generation="none")
    with mock.patch.object(ideal, "to_8_bits", lambda maps: maps):
        best, _ = ideal.generate(ours, network(1), torch.arange(2 * CLASSES) % CLASSES, config, run())
    return ten_steps(best, kept[0], ours, theirs)


def ten_steps(best: Tensor, released: Tensor, ours: nn.Module, theirs: nn.Module) -> list[Pair]:
    return [
        ("10 generator steps: best images", best, released),
        ("10 generator steps: generator", flat(ours.parameters()), flat(theirs.parameters())),
    ]


def ideal_student(code: SimpleNamespace) -> Pair:
    ours, theirs, pool = network(1), network(1), Batches(labelled=False)
    config = ideal.Config(augment="none")
    ideal.train_on_pool(ours, sgd(ours), pool, Answering(network(2), "labels"), N, config, run())
    loader = SimpleNamespace(get_data=lambda: [shown for shown, _ in pool.items])
    with ExitStack() as stack:
        fidelity_ideal.on_the_cpu(stack)
        code.kd_train(loader, [theirs, network(2)], sgd(theirs), nn.CrossEntropyLoss())
    return "3 student steps: student", weights(ours), weights(theirs)


# DFME and MAZE


def dfme_code(path: Path) -> SimpleNamespace:
    folder = checkout(path, "cake-lab/datafree-model-extraction") / "dfme"
    code = pick(folder / "approximate_gradients.py", "estimate_gradient_objective", "compute_gradient")
    loop = pick(folder / "train.py", "train", "student_loss", myprint=print, **vars(code))
    return SimpleNamespace(**vars(code), **vars(loop), **vars(pick(folder / "network" / "gan.py", "GeneratorA")))


def dfme_arguments(folder: str, directions: int) -> SimpleNamespace:
    """num_classes 1: the estimate is not divided by the classes a second time. Images are made by our `to_image`."""
    args = SimpleNamespace(loss="l1", no_logits=1, logit_correction="mean", G_activation=generators.to_image)
    vars(args).update(forward_differences=1, approx_grad=1, grad_epsilon=1e-3, grad_m=directions, num_classes=1)
    vars(args).update(batch_size=N, nz=LATENT, epoch_itrs=1, g_iter=1, d_iter=5, log_interval=1, rec_grad_norm=0)
    vars(args).update(query_budget=0, cost_per_iteration=0, log_dir=folder)
    return args


def compare_dfme(path: Path) -> list[Pair]:
    code, teacher, student, maps = dfme_code(path), network(2), network(1), draw(N, *SHAPE)
    theirs = code.GeneratorA(LATENT, 64, SHAPE[0], SHAPE[1], generators.to_image)
    ours = generators.dfme_generator(LATENT, 64, SHAPE)
    pairs = generator(ours, copy.deepcopy(theirs), lambda made, noise: made(noise, pre_x=True))
    with tempfile.TemporaryDirectory() as folder, numpy_draws_from_torch():
        args = dfme_arguments(folder, directions=4)
        estimate = dfme.estimate_gradient(Answering(teacher), student, maps, 4, 1e-3, torch.manual_seed(0))
        torch.manual_seed(0)
        released, _ = code.estimate_gradient_objective(args, teacher, student, maps, 1e-3, 4, num_classes=1, pre_x=True)
        pairs.append(("estimated gradient, 4 directions", estimate, released))
        slope, loss = code.compute_gradient(args, teacher, student, maps, pre_x=True)
        pairs += white_box(student.eval(), teacher, maps, loss.detach(), slope)
        return [*pairs, *dfme_round(code, dfme_arguments(folder, directions=1), theirs)]


def white_box(student: nn.Module, teacher: nn.Module, maps: Tensor, loss: Tensor, slope: Tensor) -> list[Pair]:
    """The generator's loss and its true gradient, through the teacher."""
    point = maps.clone().requires_grad_()
    sent = generators.to_image(point)
    distance = -F.l1_loss(student(sent), dfme.logits_of(teacher(sent).softmax(dim=1)))
    distance.backward()
    assert point.grad is not None
    return [("generator's loss", distance.detach(), loss), ("generator's loss: gradient", point.grad, slope)]


def dfme_round(code: SimpleNamespace, args: SimpleNamespace, theirs: nn.Module) -> list[Pair]:
    """A round: a step of the generator by an estimated gradient, then five of the student."""
    ours = generators.dfme_generator(LATENT, 64, SHAPE)
    same_weights(ours, theirs)
    mine, other = network(1), network(1)
    optimizers = sgd(other, lr=0.1), torch.optim.Adam(theirs.parameters(), lr=1e-4)
    torch.manual_seed(0)
    code.train(args, network(2), other, theirs, "cpu", optimizers, 0)
    config = dfme.Config(batch_size=N, latent=LATENT)
    with mock.patch.object(dfme, "dfme_generator", return_value=ours):
        next(dfme.distill(Answering(network(2)), mine, config, run()))
    return [("a round: generator", weights(ours), weights(theirs)), ("a round: student", weights(mine), weights(other))]


def compare_maze(path: Path) -> list[Pair]:
    source = checkout(path, "sanjaykariyappa/MAZE") / "src"
    names = ("zoge_backward", "gen_loss_noreduce", "kl_div_logits")
    code = pick(source / "attacks" / "attack_utils.py", *names, tanh=generators.to_image)
    theirs = pick(source / "models" / "conv3_gen.py", "View", "conv3_gen").conv3_gen(LATENT, SHAPE[1] // 4, SHAPE[0])
    pairs = generator(maze.maze_generator(LATENT, 64, SHAPE), theirs, lambda made, noise: made(noise)[1])
    teacher, student, maps = network(2), network(1), draw(N, *SHAPE)
    with torch.no_grad():
        estimate, _ = maze.estimate_gradient(Answering(teacher), student, maps, 10, 1e-3, torch.manual_seed(0))
    args = SimpleNamespace(ndirs=10, mu=1e-3, batch_size=N, device="cpu")
    point = maps.clone().requires_grad_()
    torch.manual_seed(0)
    code.zoge_backward(args, point, generators.to_image(point), student, teacher)
    assert point.grad is not None
    pairs.append(("estimated gradient, 10 directions", estimate, point.grad))
    answers = draw(N, CLASSES, seed=6)
    return pairs + loss_and_gradient(
        "student's loss",
        lambda logits: maze.divergence(logits, answers.softmax(dim=1)).mean(),
        lambda logits: code.kl_div_logits(args, answers, logits),
        draw(N, CLASSES, seed=7),
    )


# DisGUIDE and Dual Students


class Pairing(nn.Module):
    """Two students as DisGUIDE's released code asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.students = nn.ModuleList([network(1), network(5)])

    def size(self) -> int:
        return 2

    def forward(self, shown: Tensor, idx: int) -> Tensor:
        logits: Tensor = self.students[idx](shown)
        return logits


def compare_disguide(path: Path) -> list[Pair]:
    folder = checkout(path, "lin-tan/disguide") / "disguide"
    losses = pick(folder / "my_utils.py", "student_loss", "get_standardised_logits")
    code = pick(folder / "train.py", "disguide_gen_loss", "supervised_student_training", **vars(losses))
    gan = pick(folder / "network" / "gan.py", "GeneratorA", "img_to_grayscale", cond_print=lambda *_: None)
    theirs = gan.GeneratorA(LATENT, 64, SHAPE[0], SHAPE[1], generators.to_image, grayscale=8)
    ours = generators.dfme_generator(LATENT, 64, SHAPE)
    same_weights(ours, theirs)
    args = SimpleNamespace(lambda_div=0.2, loss="l1", logit_correction="mean")
    noise, pair = draw(N, LATENT, seed=4), Pairing()
    torch.manual_seed(0)
    shown = disguide.grey_some(generators.to_image(ours(noise)), 8, torch.manual_seed(0))
    apart, diverse = disguide.disagreement_and_diversity(pair.students, shown)
    loss = -apart - 0.2 * diverse
    loss.backward()
    torch.manual_seed(0)
    released = torch.tensor(code.disguide_gen_loss(noise, theirs, pair, args))
    pairs: list[Pair] = [("generator's loss", loss.detach(), released)]
    pairs.append(("generator's loss: gradient", gradients(ours), gradients(theirs)))
    pairs.append(("logits behind probabilities", *logits_behind(losses.get_standardised_logits, args)))
    return [*pairs, *(disguide_students(code, losses, loss_name) for loss_name in ("l1", "hl"))]


def logits_behind(standardised: Callable[..., Tensor], *rest: object) -> tuple[Tensor, Tensor]:
    logits = draw(N, CLASSES, seed=6)
    return dfme.logits_of(logits.softmax(dim=1)), standardised(logits, *rest)


def disguide_students(code: SimpleNamespace, losses: SimpleNamespace, name: str) -> Pair:
    """Three steps of both students, on probabilities (l1) or labels (hl)."""
    args = SimpleNamespace(loss=name, logit_correction="mean")
    ours, theirs = Pairing().train(), Pairing().train()
    mine, other = sgd(ours), sgd(theirs)
    for seed in range(3):
        shown, logits = draw(N, *SHAPE, seed=20 + seed).sigmoid(), draw(N, CLASSES, seed=30 + seed)
        answers = logits.softmax(dim=1) if name == "l1" else logits.argmax(dim=1)
        disguide.learn(ours.students, mine, shown, answers)
        other.zero_grad()
        asked = losses.get_standardised_logits(logits, args) if name == "l1" else logits
        code.supervised_student_training(theirs, shown, asked, other, args)
    track = {"l1": "probabilities", "hl": "labels"}[name]
    return f"3 student steps, {track}: students", weights(ours), weights(theirs)


def compare_dual_students(path: Path) -> list[Pair]:
    folder = checkout(path, "James-Beetham/dual_students") / "dual_students"
    correction = pick(folder / "my_utils.py", "_correction_mean")._correction_mean
    parts = pick(folder / "my_utils.py", "SetCriterion", "TargetModel", LOGIT_CORRECTIONS={"mean": correction})
    args = SimpleNamespace(loss="l1", generator_loss="l1", no_logits=1, logit_correction="mean")
    criterion, target = parts.SetCriterion(args), parts.TargetModel(args, nn.Identity())
    averages = pick(folder / "network" / "moving_averages.py", "MovingAverages").MovingAverages(network, ([1], {}), 0.9)
    pairs = [("logits behind probabilities", *logits_behind(target)), moved_average(averages)]
    pairs += loss_and_gradient(
        "generator's loss",
        lambda shown: -dual_students.disagreement(Pairing().students, shown),
        lambda shown: -criterion(network(1)(shown), network(5)(shown)),
        images(),
    )
    asked = draw(N, CLASSES, seed=6)
    pairs += loss_and_gradient(
        "student's loss, labels",
        lambda logits: disguide.student_loss(logits, asked.argmax(dim=1)),
        lambda logits: parts.SetCriterion(SimpleNamespace(loss="ce"))(logits, asked),
        draw(N, CLASSES, seed=7),
    )
    return [*pairs, *dual_round(folder, criterion, parts.TargetModel(args, network(2)))]


def moved_average(averages: Any) -> Pair:
    """Two steps of the moving average, the first of which copies."""
    ours = network(1)
    for seed in (1, 5):
        averages.model_train.load_state_dict(network(seed).state_dict())
        averages(None, step=True)
    dual_students.move_average(ours, network(5), 0.9)
    return "moving average", weights(ours), weights(averages.model_test)


def dual_round(folder: Path, criterion: nn.Module, teacher: nn.Module) -> list[Pair]:
    """A round. Undone: images before the tanh (approx_grad), the generator's evaluation mode for the students."""
    several = pick(folder / "network" / "multi_student.py", "MultiStudentModel", COMBINE_MODES={"": (None, None)})
    names = SimpleNamespace(multi_student=several)
    code = pick(folder / "train.py", "train", time=time, json=json, network=names, my_utils=mock.MagicMock())
    theirs = pick(folder / "network" / "gan.py", "GeneratorA").GeneratorA(
        LATENT, 64, SHAPE[0], SHAPE[1], generators.to_image
    )
    ours = generators.dfme_generator(LATENT, 64, SHAPE)
    same_weights(ours, theirs)
    theirs.eval = lambda: theirs
    students = several.MultiStudentModel(SimpleNamespace(combine_student_outputs=""), [network(1), network(5)])
    opts = SimpleNamespace(student=students, generator=theirs, teacher=teacher, device="cpu", use_tqdm=mock.MagicMock())
    vars(opts).update(use_tqdm_desc="{}", student_loss=criterion, generator_loss=criterion)
    opts.student_optimizer = [sgd(student, lr=0.3) for student in students.models]
    opts.generator_optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-4)
    opts.args = SimpleNamespace(epoch_itrs=1, g_iter=1, d_iter=5, batch_size=N, nz=LATENT, num_students=2)
    vars(opts.args).update(approx_grad=0, rec_grad_norm=0, log_interval=1, epoch=0, student_momentum=0)
    vars(opts.args).update(generator_momentum=0, query_budget=0, cost_per_iteration=0)
    mine = network(1)
    with tempfile.TemporaryDirectory() as opts.args.log_dir:
        torch.manual_seed(0)
        code.train(opts)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(dual_students, "dfme_generator", return_value=ours))
        stack.enter_context(mock.patch.object(dual_students, "twin_of", return_value=network(5)))
        config = dual_students.Config(batch_size=N, latent=LATENT)
        next(dual_students.distill(Answering(network(2)), mine, config, run()))
    return [
        ("a round: generator", weights(ours), weights(theirs)),
        ("a round: student", weights(mine), weights(students.models[0])),
    ]


# DFMS and ZSDB3KD


def compare_dfms(path: Path) -> list[Pair]:
    source = checkout(path, "val-iisc/Hard-Label-Model-Stealing") / "code" / "train_generator"
    loop, verdicts = source / "train_generator_clone.py", draw(N, 1, seed=7)

    def diversity(logits: Tensor) -> Tensor:
        scope = {"sm_fake_class": F.softmax(logits, dim=1), "div_loss_sum": 0, "batch_size": N}
        loss: Tensor = play(loop, 657, 659, **scope).div_loss
        return loss

    pairs = loss_and_gradient("diversity loss", dfms.diversity_loss, diversity, draw(N, CLASSES, seed=6))
    for real in (True, False):
        # OUR reference: train_generator_clone.py:391 with 673 and 724 (real) and 739 (not), behind its sigmoid
        pairs += loss_and_gradient(
            f"discriminator's loss, {'real' if real else 'generated'}",
            lambda at, real=real: dfms.binary_loss(at, real=real),
            lambda at, real=real: nn.BCELoss()(at.sigmoid(), torch.full_like(at, float(real))),
            verdicts,
        )
    return pairs


def compare_zsdb3kd(path: Path) -> list[Pair]:
    folder = checkout(path, "zwang84/zsdb3kd")
    soft = 5 * draw(N, CLASSES, seed=6).abs()

    def released(outputs: Tensor) -> Tensor:
        scope = {
            "output": outputs,
            "batch_y": labels(),
            "batch_softy": soft / 20,
            "args": SimpleNamespace(temperature=20),
        }
        loss: Tensor = play(folder / "train_model_kd.py", 160, 162, criterion_ce=nn.CrossEntropyLoss(), **scope).loss
        return loss

    def ours(outputs: Tensor) -> Tensor:
        return zsdb3kd.distillation_loss(outputs, soft, labels(), 20)

    pairs = loss_and_gradient("student's loss", ours, released, draw(N, CLASSES, seed=7))
    return [*pairs, *boundary_search(folder)]


def boundary_search(folder: Path) -> list[Pair]:
    """The distance of one class's images to the boundary along given directions, and its gradient from signs."""
    teacher = network(2)
    wrapped = pick(folder / "models.py", "ModelWrapper").ModelWrapper(teacher, (0, 1), CLASSES)
    search = pick(folder / "untargeted_mbd.py", "UntargetedMBD", MAX_ITER=1, time=time).UntargetedMBD(wrapped, k=50)
    pool = draw(400, *SHAPE, seed=8).sigmoid()
    top = teacher(pool).argmax(dim=1)
    chosen = pool[top == top.mode().values][:N]
    classes = top.mode().values.expand(len(chosen))
    crossed = zsdb3kd.crossing(Answering(teacher, "labels"), chosen, classes, into=False)
    shifts = (pool[top != top.mode().values][: len(chosen)] - chosen).flatten(1)
    theta, far = F.normalize(shifts, dim=1), shifts.norm(dim=1)
    found = boundary.bisect(crossed, theta[:, None], far[:, None], 20)[:, 0]
    like = theta.view_as(chosen).numpy()
    with ExitStack() as stack:
        fidelity_ideal.on_the_cpu(stack)
        released, _ = search.fine_grained_binary_search(wrapped, chosen, classes, like, far.numpy(), far.numpy() + 1)
        settings = boundary.Search(gradient_samples=50)
        gradient = boundary.sign_gradient(crossed, theta, found[:, None], settings, torch.manual_seed(0))
        drawn = torch.randn(len(chosen), 50, theta.shape[1], generator=torch.manual_seed(0)).unbind(dim=1)
        stack.enter_context(mock.patch("torch.randn", side_effect=[u.view_as(chosen) for u in drawn]))
        theirs, _ = search.sign_grad_v1(chosen, classes, like, found.numpy(), h=1e-3)
    return [
        ("distance to the boundary", found, torch.from_numpy(released)),
        ("gradient of the distance", gradient, F.normalize(torch.from_numpy(theirs).flatten(1), dim=1)),
    ]


# QEDG, DFHL-RS and Knockoff Nets


def compare_qedg(path: Path) -> list[Pair]:
    folder = checkout(path, "GaozhengPei/QEDG")
    losses = ("over_confidence_loss", "diversity_loss", "Imbalance_CrossEntropyLoss")
    with ExitStack() as stack:
        fidelity_ideal.on_the_cpu(stack)
        code = pick(folder / "utils.py", *losses, "sum_intra_similarity", "cosine_similarity", "reset_model")
        theirs = pick(folder / "nets.py", "Generator_2").Generator_2(LATENT, 64, SHAPE[1], SHAPE[0])
        pairs = [*generator(twin(theirs), copy.deepcopy(theirs)), reset(code.reset_model, copy.deepcopy(theirs))]
        logits = draw(N, CLASSES, seed=7)
        pairs += loss_and_gradient(
            "over-confidence", qedg.overconfidence, lambda at: code.over_confidence_loss(at.softmax(dim=1)), logits
        )
        pairs += loss_and_gradient(
            "diversity",
            lambda at: qedg.similarity(at, labels()),
            lambda at: code.diversity_loss(at, labels()),
            images(),
        )
        pairs += loss_and_gradient(
            "student's loss",
            lambda at: qedg.misfit_loss(at, labels(), 1.5),
            lambda at: code.Imbalance_CrossEntropyLoss(at, labels(), 1.5),
            logits + 2 * F.one_hot(labels(), CLASSES),
        )
        return [*pairs, *qedg_generation(folder, vars(code), theirs), qedg_student(folder, vars(code))]


def qedg_generation(folder: Path, losses: dict[str, Any], theirs: nn.Module) -> list[Pair]:
    """Ten steps of the generator, without augmentation."""
    args = SimpleNamespace(g_steps=10, over_confidence_scale=10, div_scale=0.1, select_threshold=0.7, dataset="mnist")
    kept: list[Tensor] = []
    stand_ins = {"ImagePool": lambda *_: SimpleNamespace(add=lambda best, *_: kept.append(best)), "images_dir": ""}
    given = losses | stand_ins | {"reset_model": lambda _: None, "data_aug": lambda _: (lambda maps: maps, None)}
    code = pick(folder / "main.py", "Synthesizer", args=args, blackBox_net=None, **given)
    made = code.Synthesizer(theirs, LATENT, CLASSES, SHAPE, 10, 1e-3, N, "mnist")
    ours = twin(theirs)
    torch.manual_seed(0)
    made.gen_data(network(1))
    config = qedg.Config(generator_steps=10, latent=LATENT, confidence_weight=10, diversity_weight=0.1)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(qedg, "ideal_generator", return_value=ours))
        stack.enter_context(mock.patch.object(qedg, "reset", return_value=None))
        stack.enter_context(mock.patch.object(qedg, "move", lambda maps, *_: maps))
        best = qedg.generate(network(1), N, Answering(network(2)), config, run())
    return ten_steps(best, kept[0], ours, theirs)


def qedg_student(folder: Path, losses: dict[str, Any]) -> Pair:
    ours, theirs, pool = network(1), network(1), Batches(labelled=True)
    config = qedg.Config(passes=20, free_flip=0, misfit_weight=1.5)
    qedg.train_on_pool(ours, sgd(ours), pool, N, config, run())
    args = SimpleNamespace(free_aug=False, balance_scale=1.5)
    code = pick(folder / "main.py", "sub_train", args=args, sub_net=theirs, **losses)
    code.sub_train(SimpleNamespace(get_data=lambda: pool.items), sgd(theirs))
    return "20 passes over 3 batches: student", weights(ours), weights(theirs)


def dfhl_code(folder: Path, **given: Any) -> SimpleNamespace:
    """Without augmentation and noise, on this device."""
    losses = pick(folder / "losses.py", "cross_entropy", "smooth_one_hot", "div_loss", "Entropy_Loss")
    search = pick(folder / "query_sample.py", "generate_hee", L=losses)
    asides = {"L": losses, "device": CPU, "NUM_CLASSES": CLASSES, "save_dir": "", "std_aug": lambda maps: maps}
    asides |= {"strong_aug": lambda maps: maps, "curr_query_times": 0, "time": time, "logger": mock.MagicMock()}
    loop = pick(folder / "train.py", "data_generation", "train_clone_model", **asides, **vars(search), **given)
    return SimpleNamespace(**vars(losses), **vars(search), **vars(loop))


def compare_dfhl_rs(path: Path) -> list[Pair]:
    folder = checkout(path, "LetheSec/DFHL-RS-Attack")
    kept: list[Tensor] = []
    pool = Batches(labelled=False)
    stand_ins = {"FakeDataset": lambda **_: [0], "DataIter": lambda _: SimpleNamespace(next=shown(pool).__next__)}
    code = dfhl_code(folder, save_batch_fake=lambda best, *_: kept.append(best), **stand_ins)
    theirs = pick(folder / "models" / "generator.py", "Generator").Generator(LATENT, 64, SHAPE[1], SHAPE[0])
    targets = dfhl_rs.smooth(labels(), CLASSES, 0.2)
    pairs = generator(twin(theirs), copy.deepcopy(theirs))
    pairs.append(("smoothed labels", targets, code.smooth_one_hot(labels(), CLASSES, 0.2)))
    logits = draw(N, CLASSES, seed=7)
    pairs += loss_and_gradient("balance loss", dfhl_rs.imbalance, code.div_loss, logits)
    pairs += loss_and_gradient(
        "class loss",
        lambda at: F.cross_entropy(at, targets),
        lambda at: code.cross_entropy(at, targets),
        logits,
        shifted=True,
    )
    args = SimpleNamespace(batch_size=N, gen_dim_z=LATENT, lr_z=0.01, lr_G=2e-3, label_smooth_factor=0.2, N_G=10)
    vars(args).update(lam=3, steps_hee=10, lr_hee=0.03, N_C=3, query_mode="HEE")
    ours, config = twin(theirs), dfhl_rs.Config(latent=LATENT, augment="none")
    torch.manual_seed(0)
    code.data_generation(args, theirs, network(1), network(2), 1)
    with mock.patch.object(dfhl_rs, "to_8_bits", lambda maps: maps):
        best, _ = dfhl_rs.generate(ours, network(1), N, CLASSES, config, run())
    return [*pairs, *ten_steps(best, kept[0], ours, theirs), *dfhl_student(code, args, config, pool)]


def shown(pool: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a pool with labels that nobody reads."""
    return iter([(batch, labels()) for batch, _ in pool.items])


def dfhl_student(code: SimpleNamespace, args: SimpleNamespace, config: Any, pool: Batches) -> list[Pair]:
    ours, theirs, start = network(1), network(1), images()
    with mock.patch("torch.randn", torch.zeros):
        released = code.generate_hee(args, network(1), start)
        code.train_clone_model(args, theirs, network(2), sgd(theirs), 1)
    examples = dfhl_rs.high_entropy_examples(start, network(1), 10, 0.03)
    with mock.patch.object(dfhl_rs, "strong_augment", lambda maps, _: maps):
        dfhl_rs.train_on_pool(ours, sgd(ours), pool, Answering(network(2), "labels"), N, 3, config, run())
    return [("high-entropy examples", examples, released), ("3 student steps: student", weights(ours), weights(theirs))]


def compare_knockoff(path: Path) -> list[Pair]:
    folder = checkout(path, "tribhuvanesh/knockoffnets") / "knockoff"
    code = pick(folder / "utils" / "model.py", "soft_cross_entropy", "train_step", time=time)
    answers = draw(N, CLASSES, seed=6).softmax(dim=1)
    pairs = loss_and_gradient(
        "student's loss",
        lambda at: F.cross_entropy(at, answers),
        lambda at: code.soft_cross_entropy(at, answers),
        draw(N, CLASSES, seed=7),
    )
    ours, theirs, pool = network(1), network(1), Batches(labelled=True)
    pool.items = [(batch, answers) for batch, _ in pool.items]
    optimizer = pick(folder / "adversary" / "train.py", "get_optimizer", optim=torch.optim).get_optimizer
    mine = torch.optim.SGD(ours.parameters(), lr=0.01, momentum=knockoff.Config().momentum)
    loader = Loader(pool.items)
    for epoch in range(2):
        knockoff.train_pass(ours, mine, pool, knockoff.Config(), run())
        if epoch == 0:
            released = optimizer(theirs.parameters(), "sgdm")
        code.train_step(theirs, loader, code.soft_cross_entropy, released, epoch, CPU)
    return [*pairs, ("2 passes over 3 batches: student", weights(ours), weights(theirs))]


class Loader(list[Any]):
    """Batches as a data loader gives them."""

    dataset = range(N)


# The table


METHODS: dict[str, Callable[[Path], list[Pair]]] = {
    "ideal": compare_ideal,
    "dfme": compare_dfme,
    "maze": compare_maze,
    "disguide": compare_disguide,
    "dual_students": compare_dual_students,
    "dfms": compare_dfms,
    "zsdb3kd": compare_zsdb3kd,
    "qedg": compare_qedg,
    "dfhl_rs": compare_dfhl_rs,
    "knockoff": compare_knockoff,
}


def table(path: Path, methods: list[str]) -> bool:
    """Print a row for each comparison; whether all are within the tolerance."""
    torch.set_default_dtype(torch.float64)
    print(f"| method | what | greatest difference | within {TOLERANCE:g} |\n|---|---|---|---|")
    all_within = True
    for method in methods:
        torch.manual_seed(0)
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            pairs = METHODS[method](path)
        for what, ours, released in pairs:
            found = difference(ours, released)
            all_within &= found <= TOLERANCE
            print(f"| {method} | {what} | {found:.1e} | {'ok' if found <= TOLERANCE else 'NO'} |", flush=True)
    return all_within


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="folder of the checkouts")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"{LOOP}, or some of: {', '.join(METHODS)}")
    parser.add_argument("--data", type=Path, help=f"{LOOP}: folder of MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs"), help=f"{LOOP}: where its teacher is, or is to be")
    for name, value in vars(fidelity_ideal.Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"{LOOP}: {value}")
    asked = parser.parse_args()
    if asked.methods != [LOOP] and not set(asked.methods) <= set(METHODS):
        parser.error(f"methods {', '.join(asked.methods)}: wanted {LOOP} alone, or some of {', '.join(METHODS)}")
    if asked.methods == [LOOP] and asked.data is None:
        parser.error(f"{LOOP} needs --data, the folder of MNIST")
    return asked


def main() -> bool:
    asked = arguments()
    torch.set_num_threads(1)
    if asked.methods != [LOOP]:
        return table(asked.path, asked.methods or list(METHODS))
    setting = fidelity_ideal.Setting(**{name: getattr(asked, name) for name in vars(fidelity_ideal.Setting())})
    return fidelity_ideal.paired_runs(ideal_code(asked.path), asked.data, asked.out, setting)


if __name__ == "__main__":
    sys.exit(not main())
