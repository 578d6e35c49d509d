"""Tasks by name: a data set, the teacher's network and the student's."""

from dataclasses import dataclass

from bench.errors import unknown


@dataclass(frozen=True)
class Task:
    """dataset: a name in data.SOURCES. teacher, student: names in networks.NETWORKS.

    gpu: training the teacher or the students would take days on a CPU, so a plan for a machine
    without a GPU leaves the task out, with this reason, unless the device is chosen by hand.
    """

    dataset: str
    teacher: str
    student: str
    gpu: bool = False


TASKS = {
    "digits-lenet": Task("digits", "lenet-bn", "lenet-bn"),
    "digits-mlp": Task("digits", "lenet-bn", "mlp"),
    "mnist-lenet5": Task("mnist", "lenet5", "lenet5"),
    "mnist-lenet": Task("mnist", "lenet-bn", "lenet-bn"),
    "mnist-alexnet": Task("mnist", "alexnet", "alexnet"),
    "mnist-mlp": Task("mnist", "mlp", "mlp"),
    "fmnist-lenet5": Task("fmnist", "lenet5", "lenet5"),
    "fmnist-lenet": Task("fmnist", "lenet-bn", "lenet-bn"),
    "cifar10-cnn3": Task("cifar10", "cnn3", "cnn3", gpu=True),
    "cifar10-vgg11": Task("cifar10", "vgg11", "vgg11", gpu=True),
    "cifar10-resnet18": Task("cifar10", "resnet18", "resnet18", gpu=True),
    "cifar10-resnet34-resnet18": Task("cifar10", "resnet34-8x", "resnet18-8x", gpu=True),
}


def task_of(name: str) -> Task:
    """The task of that name; raises UsageError for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
