"""Draw docs/assets/attention_weights.svg: what a slide's class token looks at.

`nox -s figures` draws it; `python docs/figures/attention_weights.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes

from dilated_attention_pytorch import AttentionWeights, DilationPattern, attention_weights

ASSETS = Path(__file__).parents[1] / "assets"
STYLE = {"svg.hashsalt": "attention_weights", "svg.fonttype": "path", "font.size": 8}
SIDE, HEADS, WIDTH = 24, 16, 48
COLORS = ("#a0aec0", "#63a4e8", "#2b6cb0", "#c05621", "#1a202c")
# GigaPath's five rates, on segments of a slide of 576 tiles.
PATTERN = DilationPattern.torchscale([48, 96, 192, 384, 768], [1, 2, 4, 8, 16])


def slide() -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of a class token and 24 x 24 tiles, and which tiles lie in the round region."""
    rng = np.random.default_rng(0)
    row, column = np.divmod(np.arange(SIDE**2), SIDE)
    region = (row - 9) ** 2 + (column - 14) ** 2 < 30
    key = rng.standard_normal((1, SIDE**2 + 1, HEADS, WIDTH))
    key[:, 1:, :, 0] += 9 * region[None, :, None]
    return torch.tensor(key), torch.tensor(region)


def class_token() -> AttentionWeights:
    """Weights of position 0, whose query asks for the region."""
    key, _ = slide()
    query = torch.zeros_like(key)
    query[:, 0, :, 0] = 2.0
    return attention_weights(query, key, PATTERN, [0])


def draw_multiplicity(axes: Axes, multiplicity: npt.NDArray[np.float64]) -> None:
    """A mark for each key that a head sees; an image would lose single columns."""
    for count, color in enumerate(COLORS, start=1):
        heads, keys = np.nonzero(multiplicity == count)
        axes.vlines(keys, heads - 0.4, heads + 0.4, color=color, lw=0.9, label=str(count))
    axes.set_xlim(-2, SIDE**2 + 2)
    axes.set_ylim(HEADS - 0.4, -0.6)
    axes.set_title("keys that position 0 sees, and in how many branches")
    axes.set_xlabel("key")
    axes.set_ylabel("head")
    axes.legend(title="branches", fontsize=7, loc="center right", framealpha=1)


def main(folder: Path = ASSETS) -> None:
    """Write attention_weights.svg into ``folder``."""
    found = class_token()
    dense, multiplicity = found.dense()[0, 0], found.multiplicity()[0]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplot_mosaic(
            [["seen", "seen"], ["grid", "share"]],
            figsize=(9, 5.5),
            layout="constrained",
            width_ratios=[1, 1.2],
        )
        draw_multiplicity(panels["seen"], multiplicity.numpy())
        tiles = dense[:1, 1:].mean(0).view(SIDE, SIDE).numpy()
        image = panels["grid"].imshow(np.ma.masked_equal(tiles, 0), cmap="magma")
        figure.colorbar(image, ax=panels["grid"], label="weight", shrink=0.8)
        panels["grid"].set_title("head 0, on the slide's grid")
        panels["grid"].set_xticks([])
        panels["grid"].set_yticks([])
        shares = found.share[0, 0]
        labels = [f"w = {x.segment_length}, r = {x.dilation_rate}" for x in PATTERN.branches]
        bottom = np.zeros(HEADS)
        for i, label in enumerate(labels):
            panels["share"].bar(range(HEADS), shares[:, i].numpy(), bottom=bottom, label=label)
            bottom += shares[:, i].numpy()
        panels["share"].set_title("share of each branch")
        panels["share"].set_xlabel("head")
        panels["share"].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(folder / "attention_weights.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
