"""Tasks by name: a data set, the teacher's network and the student's."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bench.errors import unknown
from bench.tasks.data import sources

SCALING = (0.5, 0.25)
DEFENDED = "+"  # between the name of a task and the defence of its teacher


@dataclass(frozen=True)
class Task:
    """dataset: a name in data.SOURCES. teacher, student: names in networks.NETWORKS.

    scaling: what students' images are lessened and then divided by. It knows nothing of the data, and is there because
    networks without batch norm do not learn from uniform noise in [0, 1]: a LeNet-5 stays at the share of the commonest
    label, and reaches 74 % with it (MNIST, 10,000 labels).
    teacher_seed: of the teacher's recipe. A grid may ask for several teachers of a task, alike but for it.
    defence: what stands between the teacher and its answers (bench/boxes/defences.py), or nothing.
    gpu: training the teacher or the students would take days on a CPU, so a plan for a machine
    without a GPU leaves the task out, with this reason, unless the device is chosen by hand.
    """

    dataset: str
    teacher: str
    student: str
    gpu: bool = False
    scaling: tuple[float, float] = SCALING
    teacher_seed: int = 0
    defence: str = ""


# The name says data set and network, or both networks where they differ. What follows `#` is where the pair is from;
# "released" is the authors' code where the paper's text leaves the network open.
TASKS = {
    "digits-lenet": Task("digits", "lenet-bn", "lenet-bn"),
    "digits-mlp": Task("digits", "lenet-bn", "mlp"),
    "mnist-lenet5": Task("mnist", "lenet5", "lenet5"),  # DIP-KD
    "mnist-lenet": Task("mnist", "lenet-bn", "lenet-bn"),  # IDEAL, released
    "mnist-alexnet": Task("mnist", "alexnet", "alexnet"),  # IDEAL, released
    "mnist-mlp": Task("mnist", "mlp", "mlp"),  # IDEAL, released
    "mnist-lenet5-mlp": Task("mnist", "lenet5", "mlp"),
    "mnist-alexnet-lenet5": Task("mnist", "alexnet", "lenet5"),
    "mnist-lenet5-half": Task("mnist", "lenet5-wide", "lenet5-wide-half"),  # ZSDB3KD
    "mnist-lenet5-fifth": Task("mnist", "lenet5-wide", "lenet5-wide-fifth"),  # ZSDB3KD
    "mnist-resnet34-resnet18": Task("mnist", "resnet34", "resnet18", gpu=True),  # QEDG, released
    "fmnist-lenet5": Task("fmnist", "lenet5", "lenet5"),  # DIP-KD
    "fmnist-lenet": Task("fmnist", "lenet-bn", "lenet-bn"),  # IDEAL, released
    "fmnist-alexnet": Task("fmnist", "alexnet", "alexnet"),  # IDEAL, released
    "fmnist-mlp": Task("fmnist", "mlp", "mlp"),  # IDEAL, released
    "fmnist-lenet5-half": Task("fmnist", "lenet5-wide", "lenet5-wide-half"),  # ZSDB3KD
    "fmnist-lenet5-fifth": Task("fmnist", "lenet5-wide", "lenet5-wide-fifth"),  # ZSDB3KD
    "fmnist-lenet5-wrn22": Task("fmnist", "lenet5", "wrn22-2", gpu=True),  # MAZE
    "fmnist-resnet34-resnet18": Task("fmnist", "resnet34", "resnet18", gpu=True),  # QEDG, released
    # DIP-KD as published: 32 pixels, and no normalisation on either side.
    "mnist32-lenet5": Task("mnist32", "lenet5-32", "lenet5-32", scaling=(0.0, 1.0)),
    "fmnist32-lenet5": Task("fmnist32", "lenet5-32", "lenet5-32", scaling=(0.0, 1.0)),
    "usps-lenet5": Task("usps", "lenet5", "lenet5"),  # DIP-KD
    "emnist-lenet5": Task("emnist", "lenet5", "lenet5"),
    "emnist-resnet18": Task("emnist", "resnet18", "resnet18", gpu=True),
    "svhn-cnn3": Task("svhn", "cnn3", "cnn3", gpu=True),  # IDEAL, released, under the names alexnet and vgg
    "svhn-alexnet": Task("svhn", "alexnet-bn", "alexnet-bn", gpu=True),  # DIP-KD; IDEAL
    "svhn-vgg8": Task("svhn", "vgg8", "vgg8", gpu=True),  # IDEAL
    "svhn-resnet18": Task("svhn", "resnet18", "resnet18", gpu=True),  # IDEAL, released
    "svhn-resnet34-resnet18": Task("svhn", "resnet34-8x", "resnet18-8x", gpu=True),  # DFME, QEDG
    "svhn-resnet20-wrn22": Task("svhn", "resnet20", "wrn22-2", gpu=True),  # MAZE
    "cifar10-cnn3": Task("cifar10", "cnn3", "cnn3", gpu=True),  # IDEAL, released
    "cifar10-alexnet": Task("cifar10", "alexnet-bn", "alexnet-bn", gpu=True),
    "cifar10-vgg11": Task("cifar10", "vgg11", "vgg11", gpu=True),
    "cifar10-vgg16-vgg11": Task("cifar10", "vgg16", "vgg11", gpu=True),
    "cifar10-resnet18": Task("cifar10", "resnet18", "resnet18", gpu=True),  # DIP-KD, DFHL-RS; IDEAL, released
    "cifar10-resnet34-resnet18": Task("cifar10", "resnet34-8x", "resnet18-8x", gpu=True),  # DFME, DisGUIDE, QEDG
    "cifar10-resnet50-resnet18": Task("cifar10", "resnet50", "resnet18", gpu=True),
    "cifar10-resnet18-lenet5": Task("cifar10", "resnet18", "lenet5", gpu=True),  # DIP-KD
    "cifar10-resnet18-alexnet": Task("cifar10", "resnet18", "alexnet-bn", gpu=True),  # DIP-KD
    "cifar10-alexnet-half": Task("cifar10", "alexnet-bn", "alexnet-bn-half", gpu=True),  # ZSDB3KD
    "cifar10-alexnet-quarter": Task("cifar10", "alexnet-bn", "alexnet-bn-quarter", gpu=True),  # ZSDB3KD
    "cifar10-resnet20-wrn22": Task("cifar10", "resnet20", "wrn22-2", gpu=True),  # MAZE
    "cifar100-resnet18": Task("cifar100", "resnet18", "resnet18", gpu=True),  # DIP-KD, DFHL-RS
    "cifar100-resnet50": Task("cifar100", "resnet50", "resnet50", gpu=True),  # IDEAL, released
    "cifar100-resnet34-resnet18": Task("cifar100", "resnet34-8x", "resnet18-8x", gpu=True),  # DisGUIDE
    "tinyimagenet-resnet18": Task("tinyimagenet", "resnet18", "resnet18", gpu=True),  # DIP-KD
    "tinyimagenet-resnet34-resnet18": Task("tinyimagenet", "resnet34", "resnet18", gpu=True),
    "imagenet12-resnet18": Task("imagenet12", "resnet18", "resnet18", gpu=True),  # IDEAL, released
    "imagenet12-resnet50-resnet18": Task("imagenet12", "resnet50", "resnet18", gpu=True),
}


def task_of(name: str, teacher_seed: int = 0) -> Task:
    """The task of that name, with the teacher of that seed; raises UsageError for an unknown one.

    NAME+DEFENCE is the task NAME with a teacher that defends itself.
    """
    plain, _, defence = name.partition(DEFENDED)
    if plain not in TASKS:
        raise unknown("task", plain, TASKS)
    task = TASKS[plain]
    return _variant(task, teacher_seed, defence) if teacher_seed or defence else task


@cache  # a plan asks for the same few a hundred thousand times
def _variant(task: Task, teacher_seed: int, defence: str) -> Task:
    return replace(task, teacher_seed=teacher_seed, defence=defence)


def obstacle(task: Task, data_folder: Path, gpu: bool) -> str | None:
    """Why no cell of the task can run here, or None."""
    if task.gpu and not gpu:
        return "no GPU here; --device cpu runs it all the same"
    return sources.missing(task.dataset, data_folder)
