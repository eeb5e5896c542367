"""Draw docs/assets/resumed_losses.svg: a run stopped twice, over one that was never stopped.

resumed_losses.json holds the losses of the logs (log.jsonl) of two runs of
examples/train_longnet.py with the same options (length 256, batch 2, embed-dim 64, heads 4,
layers 2, warmup 10, float32, 60 steps): one process; and a ring of 4, stopped by SIGTERM and
resumed on a ring of 2, stopped again and resumed on one. `nox -s figures` draws them;
`python docs/figures/resumed_losses.py FOLDER` draws them elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

ASSETS = Path(__file__).parents[1] / "assets"
LOSSES = Path(__file__).with_suffix(".json")
STYLE = {"svg.hashsalt": "resumed_losses", "svg.fonttype": "path", "font.size": 9}
COLORS = {4: "#2f855a", 2: "#c05621", 1: "#2b6cb0"}


def main(folder: Path = ASSETS) -> None:
    """Write resumed_losses.svg into ``folder``."""
    found = json.loads(LOSSES.read_text(encoding="utf-8"))
    whole, resumed = found["one process, never stopped"], found["resumed"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
        steps = range(1, len(whole["loss"]) + 1)
        axes.plot(steps, whole["loss"], color="#cbd5e0", lw=6, label="one process, never stopped")
        for ring, color in COLORS.items():
            own = [i for i, size in enumerate(resumed["ring"]) if size == ring]
            losses = [resumed["loss"][i] for i in own]
            axes.plot([i + 1 for i in own], losses, ".-", color=color, label=f"R = {ring}")
        axes.set(xlabel="step", ylabel="loss (nats per byte)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(folder / "resumed_losses.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
