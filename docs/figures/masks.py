"""Draw docs/assets/masks.svg: the masks of a small pattern, from the oracle's definition.

`nox -s figures` draws it; `python docs/figures/masks.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.inputs import IntArray, prepare

ASSETS = Path(__file__).parents[1] / "assets"
STYLE = {"svg.hashsalt": "masks", "svg.fonttype": "path", "font.size": 8}
BRANCHES, N, HEADS = ((8, 1), (16, 2), (32, 4)), 30, 4
COLORS = {1: "#2b6cb0", 2: "#c05621", 3: "#1a202c"}


def counts(rule: str, *, is_causal: bool) -> IntArray:
    """`[branch, head, p, k]`: whether p sees k."""
    x = np.zeros((1, N, HEADS, 1))
    found = branch_counts(prepare(x, x, x, Pattern(BRANCHES, rule=rule), is_causal=is_causal))
    return np.asarray(found[:, 0], dtype=np.int64)


def show(axes: Axes, mask: IntArray, title: str) -> None:
    """One mask, in how many branches each pair is seen."""
    for count, color in COLORS.items():
        p, k = np.nonzero(mask == count)
        axes.scatter(k, p, marker="s", s=9, color=color, linewidths=0)
    axes.set_facecolor("#eceff4")
    axes.set_aspect("equal")
    axes.set_xlim(-0.7, N - 0.3)
    axes.set_ylim(N - 0.3, -0.7)
    axes.set_xticks([0, 10, 20, 30])
    axes.set_yticks([0, 10, 20, 30])
    axes.set_title(title, fontsize=8)


def main(folder: Path = ASSETS) -> None:
    """Write masks.svg into ``folder``."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 4, figsize=(9, 4.9), layout="constrained")
        both, causal = (counts("longnet", is_causal=flag) for flag in (False, True))
        for i, (w, r) in enumerate(BRANCHES):
            show(panels[0, i], both[i, 0], f"head 0, branch w = {w}, r = {r}")
        show(panels[0, 3], both[:, 0].sum(0), "head 0, all branches: C[p, k]")
        show(panels[1, 0], both[:, 1].sum(0), "head 1, all branches")
        show(panels[1, 1], both[:, 2].sum(0), "head 2, all branches")
        show(panels[1, 2], causal[:, 0].sum(0), "head 0, causal")
        groups = counts("head_groups", is_causal=False)
        show(panels[1, 3], groups[:, 3].sum(0), "rule head_groups, head 3")
        for axes in panels[:, 0]:
            axes.set_ylabel("query p")
        for axes in panels[1]:
            axes.set_xlabel("key k")
        figure.savefig(folder / "masks.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
