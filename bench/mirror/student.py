"""A kept student as an MLflow model: images in, logits out."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.mirror.server import short

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_student(client: "MlflowClient", run_id: str, task: str, folder: Path) -> str | None:
    """Log the weights in the cell's folder, if there are any; returns why it cannot be done, or None."""
    if not (folder / "student.pt").exists():
        return None
    try:
        _log(client, run_id, task, folder / "student.pt")
    except (UsageError, RuntimeError) as error:  # a task of a folder of images, or a network that has changed since
        return f"student not shown as a model: {short(error)}"
    return None


def _log(client: "MlflowClient", run_id: str, task: str, weights: Path) -> None:
    import mlflow
    import torch

    from bench.tasks.data import sources
    from bench.tasks.students import student_of
    from bench.tasks.table import task_of

    known = task_of(task)
    source = sources.source_of(known.dataset)
    student = student_of(known)
    student.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    student.to(memory_format=torch.contiguous_format)  # the layout in which MLflow's format stores weights
    images = torch.zeros(2, *source.shape)  # two: of one, MLflow could not tell that the batch may vary
    with torch.no_grad():
        signature = mlflow.models.infer_signature(images.numpy(), student.eval()(images).numpy())
    mlflow.set_tracking_uri(client.tracking_uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.pytorch.log_model(
            student, name="student", input_example=images.numpy(), signature=signature, pip_requirements=["torch"]
        )
