"""IDEAL in plain PyTorch, in the structure of the released code, to be timed beside ours.

Images are PNG files that DataLoader workers read, the teacher is asked about every view in every pass, an up-sampling
and its convolution are two layers, and a step of the generator also computes the gradients of the student. Views are
drawn by our own `augment` in generation, which is no slower than the kornia of the released code, and by torchvision in
the workers.
"""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from methods.augment import augment
from methods.ideal import reset

WORKERS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def generator_of(latent: int, width: int, shape: tuple[int, int, int]) -> nn.Module:
    """Noise N x latent -> images N x C x H x W in [0, 1]."""
    channels, height, width_px = shape
    start = (2 * width, height // 4, width_px // 4)
    return nn.Sequential(
        nn.Linear(latent, start[0] * start[1] * start[2]),
        nn.Unflatten(1, start),
        nn.BatchNorm2d(2 * width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Sigmoid(),
    )


def generate(
    generator: nn.Module, student: nn.Module, batch_size: int, latent: int, steps: int, rng: torch.Generator
) -> Tensor:
    """The batch of lowest loss on the way, float images in [0, 1]."""
    generator.apply(reset)
    student.eval()
    noise = torch.randn(batch_size, latent, generator=rng, device=rng.device)
    targets = torch.arange(batch_size, device=rng.device) % 10
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    lowest, best = float("inf"), torch.empty(0)
    for _ in range(steps):
        images = generator(noise)
        logits = student(augment(images, "crop_flip", 4, rng))
        probs = logits.softmax(dim=1)
        loss = F.cross_entropy(logits, targets) + 5.0 * (probs * probs.log()).mean()
        if loss.item() < lowest:
            lowest, best = loss.item(), images.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best


def save(images: Tensor, folder: Path) -> None:
    """Add the images, float N x C x H x W in [0, 1], to the pool, each as a PNG file."""
    folder.mkdir(parents=True, exist_ok=True)
    first = len(list(folder.iterdir()))
    levels = images.mul(255).to(torch.uint8).permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()
    for number, image in enumerate(levels, start=first):
        Image.fromarray(image).save(folder / f"{number}.png")


class Files(Dataset[Tensor]):
    """The pool in a folder: a view of each image, float C x H x W, decoded anew whenever it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.iterdir())
        self._view = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self._files[index]) as image:
            view: Tensor = self._view(image)
            return view


def train_on_pool(
    student: nn.Module,
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    batch_size: int,
    device: torch.device,
) -> float:
    """One pass over the pool; returns the mean loss."""
    student.train()
    loader = batches(folder, batch_size, device)
    total = 0.0
    for batch in loader:
        images = batch.to(device)
        loss = F.cross_entropy(student(images), ask(teacher, images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def batches(folder: Path, batch_size: int, device: torch.device) -> DataLoader[Tensor]:
    """The loader of one pass, in random order."""
    pinned = device.type == "cuda"
    return DataLoader(Files(folder), batch_size, shuffle=True, num_workers=WORKERS, pin_memory=pinned)


def ask(teacher: nn.Module, images: Tensor) -> Tensor:
    """The teacher's top-1 classes."""
    with torch.no_grad():
        classes: Tensor = teacher(images).argmax(dim=1)
        return classes
