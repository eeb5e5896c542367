"""Draw docs/assets/attention_weights.svg: what a slide's class token looks at.

`nox -s figures` draws it; `python docs/figures/attention_weights.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from dilated_attention_pytorch import AttentionWeights, DilationPattern, attention_weights

ASSETS = Path(__file__).parents[1] / "assets"
STYLE = {"svg.hashsalt": "attention_weights", "svg.fonttype": "path", "font.size": 8}
SIDE, HEADS, WIDTH = 24, 16, 48
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


def main(folder: Path = ASSETS) -> None:
    """Write attention_weights.svg into ``folder``."""
    found = class_token()
    dense, multiplicity = found.dense()[0, 0], found.multiplicity()[0]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, 3, figsize=(10, 3), layout="constrained", width_ratios=[1.5, 1, 1]
        )
        seen = np.ma.masked_equal(multiplicity.numpy(), 0)
        image = panels[0].imshow(seen, aspect="auto", cmap="viridis", interpolation="nearest")
        figure.colorbar(image, ax=panels[0], label="branches", ticks=range(1, 6))
        panels[0].set_title("what position 0 sees: multiplicity")
        panels[0].set_xlabel("key")
        panels[0].set_ylabel("head")
        tiles = dense[:1, 1:].mean(0).view(SIDE, SIDE).numpy()
        image = panels[1].imshow(np.ma.masked_equal(tiles, 0), cmap="magma")
        figure.colorbar(image, ax=panels[1], label="weight", shrink=0.8)
        panels[1].set_title("head 0, on the slide's grid")
        panels[1].set_xticks([])
        panels[1].set_yticks([])
        shares = found.share[0, 0]
        labels = [f"w = {x.segment_length}, r = {x.dilation_rate}" for x in PATTERN.branches]
        bottom = np.zeros(HEADS)
        for i, label in enumerate(labels):
            panels[2].bar(range(HEADS), shares[:, i].numpy(), bottom=bottom, label=label)
            bottom += shares[:, i].numpy()
        panels[2].set_title("share of each branch")
        panels[2].set_xlabel("head")
        panels[2].legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(folder / "attention_weights.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
