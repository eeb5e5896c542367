"""Draw docs/assets/introduction.svg: from dense attention to a dilated one over four ranks.

The masks are the oracle's. `nox -s figures` draws it; `python docs/figures/introduction.py FOLDER`
draws it elsewhere.
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
STYLE = {"svg.hashsalt": "introduction", "svg.fonttype": "path", "font.size": 9}
BRANCHES, N, RANKS = ((8, 1), (16, 2), (32, 4)), 32, 4
HERE, AWAY = "#2b6cb0", "#c05621"


def seen(*branches: tuple[int, int]) -> IntArray:
    """`[p, k]`: in how many of the branches head 0 sees key k from query p."""
    x = np.zeros((1, N, 1, 1))
    found = branch_counts(prepare(x, x, x, Pattern(branches), is_causal=True))
    return np.asarray(found[:, 0, 0].sum(0), dtype=np.int64)


def show(axes: Axes, mask: IntArray, title: str, color: str = HERE) -> None:
    """A square for each pair that is computed, and how many they are."""
    p, k = np.nonzero(mask)
    axes.scatter(k, p, marker="s", s=11, color=color, linewidths=0)
    axes.set_facecolor("#eceff4")
    axes.set_aspect("equal")
    axes.set_xlim(-0.7, N - 0.3)
    axes.set_ylim(N - 0.3, -0.7)
    axes.set_xticks([0, 8, 16, 24])
    axes.set_yticks([0, 8, 16, 24])
    axes.set_title(title, fontsize=9)


def main(folder: Path = ASSETS) -> None:
    """Write introduction.svg into ``folder``."""
    together = seen(*BRANCHES)
    rank = np.arange(N) // (N // RANKS)
    local = rank[:, None] == rank
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 3, figsize=(8.4, 6), layout="constrained")
        show(panels[0, 0], seen((N, 1)), "1. dense: every earlier token")
        show(panels[0, 1], seen(BRANCHES[0]), "2. segments of 8, every token")
        show(panels[0, 2], seen(BRANCHES[1]), "3. segments of 16, every 2nd")
        show(panels[1, 0], seen(BRANCHES[2]), "4. segments of 32, every 4th")
        show(panels[1, 1], together, "5. dilated: 2, 3 and 4 together")
        show(panels[1, 2], together * local, "6. on four ranks")
        show(panels[1, 2], together * ~local, "6. on four ranks", AWAY)
        for cut in range(N // RANKS, N, N // RANKS):
            panels[1, 2].axhline(cut - 0.5, color="#4a5568", lw=0.8)
        for axes in panels[:, 0]:
            axes.set_ylabel("token that looks (query)")
        for axes in panels[1]:
            axes.set_xlabel("token that is looked at (key)")
        figure.savefig(folder / "introduction.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
