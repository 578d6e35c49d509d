"""Students: a task's network with fresh weights, behind a fixed scaling of its input that knows nothing of the data."""

from torch import nn, tensor

from bench.tasks.data import sources
from bench.tasks.networks import Normalised, build
from bench.tasks.table import Task


def student_of(task: Task) -> nn.Module:
    """A student of the task: float images N x C x H x W in [0, 1] -> logits N x K."""
    source = sources.source_of(task.dataset)
    mean, std = task.scaling
    return Normalised(build(task.student, source.shape, source.classes), tensor(mean), tensor(std))
