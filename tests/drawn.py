"""Draws the picture of docs/method.md: a row of images for each source.

python tests/drawn.py docs/sources.png
"""

import sys
from pathlib import Path

import torch
from torchvision.utils import save_image

from methods.sources import SOURCES
from methods.sources.tones import tone

GREY, COLOUR, LARGER = 16, 8, 3  # images of each kind in a row, and how much larger they are shown


def main(file: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = []
    for source in SOURCES.values():
        grey = source(GREY, (1, 32, 32), rng).expand(-1, 3, -1, -1)
        rows += [tone(grey, rng), tone(source(COLOUR, (3, 32, 32), rng), rng)]
    images = torch.cat(rows).repeat_interleave(LARGER, dim=2).repeat_interleave(LARGER, dim=3)
    save_image(images, file, nrow=GREY + COLOUR, padding=4, pad_value=1.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
