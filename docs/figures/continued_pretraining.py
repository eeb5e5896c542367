"""Draw docs/assets/continued_pretraining.svg: losses at a longer context, dense and dilated.

The losses are those that `python examples/continue_pretraining.py --out FOLDER` wrote, with its
default options, into FOLDER/losses.json. `nox -s figures` draws them;
`python docs/figures/continued_pretraining.py FOLDER` draws them elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

ASSETS = Path(__file__).parents[1] / "assets"
LOSSES = Path(__file__).with_suffix(".json")
STYLE = {"svg.hashsalt": "continued_pretraining", "svg.fonttype": "path", "font.size": 9}
COLORS = {"dense": "#4a5568", "dilated": "#2b6cb0"}


def main(folder: Path = ASSETS) -> None:
    """Write continued_pretraining.svg into ``folder``."""
    found = json.loads(LOSSES.read_text(encoding="utf-8"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
        for name, losses in found.items():
            label = f"{name}, held out at the end {losses['after']:.3f}"
            steps = range(1, len(losses["training"]) + 1)
            axes.plot(steps, losses["training"], color=COLORS[name], label=label)
        axes.set(xlabel="step at the longer context", ylabel="loss (nats per byte)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(folder / "continued_pretraining.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
