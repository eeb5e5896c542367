"""Draw docs/assets/ring.svg: what ranks hold and get, and what R does to bytes and memory.

Everything is read off the schedule that the ring runs. `nox -s figures` draws it;
`python docs/figures/ring.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from dilated_attention_pytorch import cost
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.pattern import DilationPattern
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.messages import message

ASSETS = Path(__file__).parents[1] / "assets"
STYLE = {"svg.hashsalt": "ring", "svg.fonttype": "path", "font.size": 9}
COLORS = ("#2b6cb0", "#c05621", "#2f855a")
SMALL = Problem(DilationPattern.longnet((16, 32, 64), (1, 2, 4)), 64, 1, 1)
LONG = Problem(DilationPattern.longnet((1024, 8192, 65536), (1, 8, 64)), 65536, 8, 8)
SIZE = {"batch": 1, "head_dim": 64, "itemsize": 2}
RINGS = (1, 2, 4, 8, 16)


def rows(axes: Axes, ring_size: int = 4) -> None:
    """For each rank: its own rows, and those that it gets from each other rank."""
    layout = make_layout(SMALL.n, ring_size)
    for rank in range(ring_size):
        own = layout.positions(rank)
        axes.scatter(own, np.full(len(own), -rank), marker="s", s=24, color=COLORS[0])
        for other in range(ring_size):
            if other == rank:
                continue
            got = message(SMALL, layout, other, rank).positions[0]
            axes.scatter(got, np.full(len(got), -rank), marker="s", s=24, color=COLORS[1])
    for cut in range(0, SMALL.n + 1, SMALL.n // ring_size):
        axes.axvline(cut - 0.5, color="#4a5568", lw=0.8)
    axes.set_yticks([-rank for rank in range(ring_size)], [f"rank {r}" for r in range(ring_size)])
    axes.set_title("head 0: key and value rows that a rank holds (blue) and gets (orange)")
    axes.set_xlim(-1, SMALL.n)


def costs(bytes_axes: Axes, memory_axes: Axes) -> None:
    """The busiest rank's bytes on the wire and bytes held, over R."""
    traffic, memory = [], []
    for ring_size in RINGS:
        layout = make_layout(LONG.n, ring_size)
        ranks = range(ring_size)
        sent = [cost.rank_traffic(LONG, layout, r, replicated=False, **SIZE) for r in ranks]
        traffic.append([max(t.forward for t in sent), max(t.backward for t in sent)])
        memory.append(max(cost.rank_memory(LONG, layout, r, **SIZE) for r in ranks))
    all_rows = 2 * LONG.n * LONG.num_kv_heads * SIZE["head_dim"] * SIZE["itemsize"]
    dense = [all_rows * (ring_size - 1) / ring_size for ring_size in RINGS]
    mib = np.array(traffic) / 2**20
    bytes_axes.plot(RINGS, mib[:, 0], "o-", color=COLORS[0], label="forward")
    bytes_axes.plot(RINGS, mib[:, 1], "s-", color=COLORS[1], label="backward")
    bytes_axes.plot(
        RINGS,
        np.array(dense) / 2**20,
        "--",
        color="#718096",
        label="every row to every rank, forward",
    )
    bytes_axes.set_title("MiB that the busiest rank sends")
    bytes_axes.legend(frameon=False, fontsize=8)
    memory_axes.plot(RINGS, np.array(memory) / 2**20, "o-", color=COLORS[0], label="closed form")
    memory_axes.plot(
        RINGS, memory[0] / np.array(RINGS) / 2**20, "--", color="#718096", label="R = 1, over R"
    )
    memory_axes.set_title("peak MiB of a rank, forward + backward")
    memory_axes.set_yscale("log", base=2)
    memory_axes.legend(frameon=False, fontsize=8)
    for axes in (bytes_axes, memory_axes):
        axes.set_xscale("log", base=2)
        axes.set_xticks(RINGS, map(str, RINGS))
        axes.minorticks_off()
        axes.set_xlabel("ranks R")


def main(folder: Path = ASSETS) -> None:
    """Write ring.svg into ``folder``."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(9, 5.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.6))
        upper = figure.add_subplot(grid[0, :])
        lower = [figure.add_subplot(grid[1, i]) for i in range(2)]
        rows(upper)
        costs(*lower)
        for axes in (upper, *lower):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / "ring.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
