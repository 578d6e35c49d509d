"""DIP-KD: diverse image priors for black-box data-free knowledge distillation (Vo, Nguyen, Le, Do, Gupta, 2026).

https://arxiv.org/abs/2604.25794, manuscripts https://github.com/votrinhan88/manuscripts (papers/2024-dipkd)

Images need neither a generator nor the teacher (see image_priors.py). A first student, the primer,
learns the teacher's labels of them; then the images themselves are changed until the primer's features
tell each from all others; then the student learns the teacher's labels of the changed images and, for
what a label does not tell, the primer's logits.

`relabel` is the whole accounting question; the paper's N counts images, not queries. `once` asks about each
image as drawn and as changed, and keeps the labels: B queries buy N = B / 2 images, or B of them where
they stay as drawn (`contrast_passes: 0`). The networks then see no other views, unless `augment` says so: a
LeNet-5 on MNIST keeps its answer for 43 % of these images when they are moved by up to 3 pixels. `every_view`
asks about each augmented view in every pass of both networks: B queries buy N = B / (2 passes).
The paper never says that labels are stored, and its text ("train by querying the teacher") fits the second.

Made for 28 to 64 pixels and 10,000 images or more; noise, distortion, blobs and shifts scale with the image.
The manuscript read is that of March 2026, with the appendix of the earlier version 2025-tlmr.

Differs from the paper:
    classes are not balanced by drawing again, as the earlier version tries: the labels would be queries;
    views are moved and mirrored, but not jittered in colour (strength not stated), and images smaller
    than 32 pixels are not enlarged;
    not stated, so ours: how long the images change, and at which rate (that of the discriminator);
    the contrast compares an image with the others of its batch and with `negatives` of the rest, whose
    features are kept and projected afresh, as in CMI (Fang et al. 2021), which the paper follows;
    see image_priors.py for the images.
Differs from the released code: none was found. The steps of the learning rate, which the paper only says
    falls a hundredfold, are those of the first author's https://github.com/votrinhan88/divbfkd.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Generator, Tensor, nn

from budgets import Oracle
from methods.augment import Augment, augment, views_that_hold
from methods.disguide import twin_of
from methods.image_priors import Priors, image_priors
from methods.pool import Pool, to_8_bits
from methods.run import Run
from methods.search import Choice, Log, Range

ANSWERS = ("labels",)
DATA = "none"
PROTOCOL = "per_budget"
RESULTS = 2


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults: the appendix on training, colour images. Small grey images: passes 100, lr 0.01, lr_steps ()."""

    batch_size: Annotated[int, Log(25, 256)] = Field(100, ge=1)
    passes: Annotated[int, Log(20, 200)] = Field(200, ge=1)  # of the primer, and of the student
    lr: Annotated[float, Log(3e-3, 0.3)] = Field(0.1, gt=0)
    lr_steps: tuple[float, ...] = (0.5, 0.75)
    lr_scale: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = Field(5e-4, ge=0)
    relabel: Literal["once", "every_view"] = "once"
    augment: Annotated[Augment, Choice()] = "crop_flip"  # crop for digits; none where labels are kept
    priors: Priors = Priors()
    contrast_passes: Annotated[int, Range(0, 50)] = Field(50, ge=0)  # ours
    contrast_augment: Augment = "crop_flip"  # crop for digits; of the view that an image is to be told by
    # stated for the discriminator; the images take the same
    contrast_lr: Annotated[float, Log(3e-4, 1e-2)] = Field(1e-3, gt=0)
    negatives: int = Field(4096, ge=0)  # CMI's, which the contrast follows
    hidden: int = Field(512, ge=1)  # ours, of the discriminator: as wide as ResNet-18's features
    embedding: int = Field(128, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _views(cls, settings: Any) -> Any:
        return views_that_hold(settings)


def distill(oracle: Oracle, student: nn.Module, config: Config, run: Run) -> Iterator[dict[str, float]]:
    """One round: a pass of the primer, or of the student, over N images."""
    n = oracle.budget.queries // price(config)
    if n < 2:
        return  # an image needs another to differ from
    primer = twin_of(student, run.rng)
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        for network in (primer, student)
    ]
    drawn, changed = Pool(n), Pool(n)
    run.track(
        primer=primer, primer_optimizer=optimizers[0], student_optimizer=optimizers[1], drawn=drawn, changed=changed
    )
    done = run.round
    while len(drawn) < n:
        images = to_8_bits(image_priors(min(config.batch_size, n - len(drawn)), oracle.shape, config.priors, run.rng))
        drawn.add(images, oracle(images) if config.relabel == "once" else None)
    yield from train(primer, optimizers[0], drawn, None, oracle, done, config, run)
    primer.requires_grad_(False).eval()
    if config.contrast_passes and not len(changed):
        for images in to_8_bits(contrast(drawn, primer, config, run)).split(config.batch_size):
            changed.add(images, oracle(images) if config.relabel == "once" else None)
    pool = changed if config.contrast_passes else drawn
    yield from train(student, optimizers[1], pool, primer, oracle, done - config.passes, config, run)


def price(config: Config) -> int:
    """The queries that an image costs."""
    if config.relabel == "every_view":
        return 2 * config.passes
    return 2 if config.contrast_passes else 1


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    pool: Pool,
    primer: nn.Module | None,
    oracle: Oracle,
    done: int,
    config: Config,
    run: Run,
) -> Iterator[dict[str, float]]:
    """The passes not yet done: cross-entropy with the labels plus, if there is a primer, L1 distance to its logits."""
    for passed in range(max(done, 0), config.passes):
        decay = config.lr_scale ** sum(passed >= step * config.passes for step in config.lr_steps)
        optimizer.param_groups[0]["lr"] = config.lr * decay
        network.train()
        losses = []
        for images, labels in pool.batches(config.batch_size, run.rng):
            views = view(images, config.augment, run.rng)
            logits = network(views)
            loss = F.cross_entropy(logits, oracle(views) if labels is None else labels)
            if primer is not None:
                loss = loss + F.l1_loss(logits, primer(views))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        yield {"loss": torch.stack(losses).mean().item(), "pool": len(pool)}


def view(images: Tensor, kind: Augment, rng: Generator) -> Tensor:
    """A random view of each image, moved by up to 1/8 of its side, mirrored, both or neither."""
    return augment(images, kind, max(images.shape[-2:]) // 8, rng)


def contrast(pool: Pool, primer: nn.Module, config: Config, run: Run) -> Tensor:
    """Change the images so that each can be told from all others by the primer's features. Costs no query."""
    images, _ = next(pool.batches(len(pool), run.rng))
    last = [module for module in primer.modules() if isinstance(module, nn.Linear)][-1]
    discriminator = nn.Sequential(
        nn.Linear(last.in_features, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.embedding)
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
            turned = order.roll(-start)
            batch, others = turned[: config.batch_size], turned[config.batch_size :][: config.negatives]
            views = pixels(batch).view(-1, *images.shape[1:])
            embedded = features(primer, last, views)
            positives = features(primer, last, view(views, config.contrast_augment, run.rng))
            loss = contrastive_loss(discriminator(embedded), discriminator(positives), discriminator(bank[others]))
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            bank[batch] = embedded.detach()
            pixels.weight.data[batch] = pixels.weight.data[batch].clamp(0, 1)
    changed: Tensor = pixels.weight.detach().view(images.shape)
    return changed


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
