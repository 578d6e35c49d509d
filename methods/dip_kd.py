"""DIP-KD: diverse image priors for black-box data-free knowledge distillation (Vo, Nguyen, Le, Do, Gupta, 2026).

https://arxiv.org/abs/2604.25794, manuscripts https://github.com/votrinhan88/manuscripts (papers/2024-dipkd)

Images need no generator and no teacher: noise of many scales, distorted, and mixed in blobs of irregular
shape, is diverse enough. A first student, the primer, learns the labels of these images; then the
images themselves are changed until the primer's features tell each from all others; the student learns
the teacher's labels of the changed images and, for what a label does not tell, the primer's logits.

Images are asked about twice, as they are drawn and as they are after the change, and both are charged:
a budget of B queries buys N = B / 2 images, where the paper's N counts images and not queries. Labels are
kept for augmented views. With `contrast_passes: 0` the images stay as drawn and B queries buy B of them.

Differs from the paper, here the manuscript of March 2026 and the appendix of an earlier version:
    no class is balanced by drawing again, as the earlier versions try, which would cost further queries;
    the two cases of the diverging filter are printed the wrong way round, its stated properties settle it;
    layers of noise are mixed and stretched to [0, 1] as in methods/noise.py; the paper does not stretch;
    views are moved and mirrored, not jittered in colour, and small images are not enlarged to 32 pixels;
    the loss that separates images compares each of a batch with all others, afresh if in the batch.
Not stated there, so ours, and marked in the settings: how long and how fast the images change, what share of
    them is mixed with one colour, how blobs are blurred; elastic distortion is torchvision's default for 32 pixels.
Differs from the released code: none was found. The steps of the learning rate are those of the first
    author's https://github.com/votrinhan88/divbfkd.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.augment import Augment, augment
from methods.disguide import twin_of
from methods.noise import multiscale
from methods.pool import Pool, to_8_bits
from methods.run import Run

ANSWERS = ("labels",)
DATA = "none"
PROTOCOL = "per_budget"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the appendix on training, colour images. Small grey images: passes 100, lr 0.01, lr_steps ()."""

    batch_size: int = Field(100, ge=1)
    passes: int = Field(200, ge=1)  # of the primer, and of the student
    lr: float = Field(0.1, gt=0)
    lr_steps: tuple[float, ...] = (0.5, 0.75)
    lr_scale: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    augment: Augment = "crop_flip"  # crop for digits
    rotation: float = Field(45.0, ge=0)  # degrees
    one_colour: float = Field(0.5, ge=0, le=1)  # ours
    mask_passes: int = Field(10, ge=0)
    mask_blur: float = Field(1 / 16, gt=0)  # ours, share of the image's side
    contrast_passes: int = Field(10, ge=0)  # ours
    contrast_lr: float = Field(1e-3, gt=0)  # stated for the discriminator; the images take the same
    negatives: int = Field(4096, ge=0)  # CMI's, which the contrast follows
    embedding: int = Field(128, ge=1)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: a pass of the primer, or of the student, over N images."""
    n = oracle.budget.queries // 2 if config.contrast_passes else oracle.budget.queries
    if n < 2:
        return  # an image needs another to differ from
    primer = twin_of(student, run.rng)
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        for network in (primer, student)
    ]
    drawn, changed = Pool(), Pool()
    run.track(
        primer=primer, primer_optimizer=optimizers[0], student_optimizer=optimizers[1], drawn=drawn, changed=changed
    )
    done = run.round
    while len(drawn) < n:
        images = to_8_bits(image_priors(min(config.batch_size, n - len(drawn)), oracle.shape, config, run.rng))
        drawn.add(images, oracle(images))
    yield from train(primer, optimizers[0], drawn, None, done, config, run)
    primer.requires_grad_(False).eval()
    if config.contrast_passes and not len(changed):
        for images in to_8_bits(contrast(drawn, primer, config, run)).split(config.batch_size):
            changed.add(images, oracle(images))
    pool = changed if config.contrast_passes else drawn
    yield from train(student, optimizers[1], pool, primer, done - config.passes, config, run)


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    pool: Pool,
    primer: nn.Module | None,
    done: int,
    config: Config,
    run: Run,
) -> Iterator[dict[str, float]]:
    """The passes not yet done: cross-entropy with the labels plus, if there is a primer, L1 distance to its logits."""
    for index in range(max(done, 0), config.passes):
        decay = config.lr_scale ** sum(index >= step * config.passes for step in config.lr_steps)
        optimizer.param_groups[0]["lr"] = config.lr * decay
        network.train()
        losses = []
        for images, labels in pool.batches(config.batch_size, run.rng):
            views = view(images, config, run.rng)
            logits = network(views)
            loss = F.cross_entropy(logits, labels)
            if primer is not None:
                loss = loss + F.l1_loss(logits, primer(views))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        yield {"loss": torch.stack(losses).mean().item()}


def view(images: Tensor, config: Config, rng: Generator) -> Tensor:
    """A random view of each image, moved by up to 1/8 of its side."""
    return augment(images, config.augment, max(images.shape[-2:]) // 8, rng)


# Phase 1, synthesis.


def image_priors(n: int, shape: tuple[int, int, int], config: Config, rng: Generator) -> Tensor:
    """Images n x C x H x W in [0, 1]: hierarchical noise, distorted and cut to size, mixed in blobs."""
    channels, height, width = shape
    side = 2 ** math.ceil(math.log2(max(height, width)))
    noise = multiscale(n, (channels, side, side), side.bit_length(), rng)
    images = distort(noise, height, width, config.rotation, rng)
    colours = torch.rand(n, channels, 1, 1, generator=rng, device=rng.device)
    one_colour = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < config.one_colour
    others = torch.where(one_colour, colours, images.roll(1, dims=0))
    mask = torch.rand(n, 1, height, width, generator=rng, device=rng.device)
    for _ in range(config.mask_passes):
        mask = diverge(blur(mask, config.mask_blur * side))
    return mask * images + (1 - mask) * others


def distort(noise: Tensor, height: int, width: int, rotation: float, rng: Generator) -> Tensor:
    """Rotate by up to `rotation` degrees, distort elastically and cut height x width at a random place, in one resampling.

    What comes from outside the square of noise is black. The elastic field at S x S pixels: uniform noise
    in [-1, 1], blurred by 5 S / 32 pixels, times 50 / 32 of half the side at S = 32.
    """
    n, channels, side, _ = noise.shape
    size = torch.tensor([width, height], device=noise.device) / side
    upright = torch.eye(2, 3, device=noise.device).expand(n, 2, 3)
    grid = F.affine_grid(upright, [n, channels, height, width], align_corners=False) * size
    grid = grid + (2 * torch.rand(n, 1, 1, 2, generator=rng, device=noise.device) - 1) * (1 - size)
    field = 2 * torch.rand(n, 2, height, width, generator=rng, device=noise.device) - 1
    grid = grid + 50 / 32 * (side / 32) * blur(field, 5 * side / 32).permute(0, 2, 3, 1)
    angle = math.radians(rotation) * (2 * torch.rand(n, generator=rng, device=noise.device) - 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 1, 2, 2)
    return F.grid_sample(noise, grid @ turn, align_corners=False)


def blur(maps: Tensor, sigma: float) -> Tensor:
    """A Gaussian of `sigma` pixels over N x C x H x W, mirrored at the borders."""
    radius = min(math.ceil(3 * sigma), min(maps.shape[-2:]) - 1)
    distance = torch.arange(-radius, radius + 1, device=maps.device)
    kernel = (-((distance / sigma) ** 2) / 2).softmax(dim=0).expand(maps.shape[1], 1, 1, -1)
    padded = F.pad(maps, [radius] * 4, mode="reflect")
    rows = F.conv2d(padded, kernel, groups=maps.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=maps.shape[1])


def diverge(mask: Tensor) -> Tensor:
    """Drive values in [0, 1] away from 1/2, towards 0 and 1: two half-parabolas that meet at (1/2, 1/2)."""
    return torch.where(mask < 0.5, 2 * mask**2, 1 - 2 * (1 - mask) ** 2)


# Phase 2, contrast.


def contrast(pool: Pool, primer: nn.Module, config: Config, run: Run) -> Tensor:
    """Change the images so that each can be told from all others by the primer's features. Costs no query."""
    images, _ = next(pool.batches(len(pool), run.rng))
    last = [module for module in primer.modules() if isinstance(module, nn.Linear)][-1]
    discriminator = nn.Sequential(
        nn.Linear(last.in_features, last.in_features), nn.ReLU(), nn.Linear(last.in_features, config.embedding)
    ).to(run.device)
    # A row for each image, and Adam's moments for each row: a step changes the images of its batch alone.
    pixels = nn.Embedding.from_pretrained(images.flatten(1), freeze=False, sparse=True)
    optimizers = [
        torch.optim.SparseAdam(pixels.parameters(), lr=config.contrast_lr, betas=(0.5, 0.999)),
        torch.optim.Adam(discriminator.parameters(), lr=config.contrast_lr, betas=(0.5, 0.999)),
    ]
    with torch.no_grad():
        bank = torch.cat([features(primer, last, part) for part in images.split(config.batch_size)])
    for _ in range(config.contrast_passes):
        order = torch.randperm(len(images), generator=run.rng, device=run.device)
        for start in range(0, len(images), config.batch_size):
            batch, others, _ = order.roll(-start).tensor_split((config.batch_size, config.batch_size + config.negatives))
            views = pixels(batch).view(-1, *images.shape[1:])
            embedded = features(primer, last, views)
            positives = features(primer, last, view(views, config, run.rng))
            loss = contrastive_loss(discriminator(embedded), discriminator(positives), discriminator(bank[others]))
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            bank[batch] = embedded.detach()
            pixels.weight.data[batch] = pixels.weight.data[batch].clamp(0, 1)
    return pixels.weight.detach().view_as(images)


def features(network: nn.Module, last: nn.Linear, images: Tensor) -> Tensor:
    """What enters the network's last linear layer."""
    entered: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    network(images)
    hook.remove()
    return entered[0]


def contrastive_loss(anchors: Tensor, positives: Tensor, others: Tensor) -> Tensor:
    """Minus the log of exp(cosine with the own view) over the sum of exp(cosine with each other image).

    anchors, positives: embeddings n x D of a batch and of a view of each. others: M x D, of images outside the batch.
    """
    anchors, positives, others = (F.normalize(embedded, dim=1) for embedded in (anchors, positives, others))
    itself = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    within = (anchors @ anchors.T).masked_fill(itself, -torch.inf)
    others_too = torch.cat([within, anchors @ others.T], dim=1)
    return (others_too.logsumexp(dim=1) - (anchors * positives).sum(dim=1)).mean()
