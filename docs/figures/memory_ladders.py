"""Draw docs/assets/memory_ladders.svg: a rank's peak memory, measured, beside the formulae, over R.

From benchmarks/results/memory_ladders.json, which `python -m benchmarks.memory_ladders` writes.
`nox -s figures` draws it; `python docs/figures/memory_ladders.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "docs/assets"
RESULT = ROOT / "benchmarks/results/memory_ladders.json"
STYLE = {"svg.hashsalt": "memory_ladders", "svg.fonttype": "path", "font.size": 9}
COLORS = {"sharded": "#2b6cb0", "sharded_kept": "#2f855a", "replicated": "#c05621"}
FORMULAE = {
    "sharded": ("sharded: plan", "planned_sharded"),
    "sharded_kept": ("sharded, buffers kept: plan", "planned_sharded_kept"),
    "replicated": ("replicated: closed form, tiles apart", "closed_form_replicated"),
}
MIB = 2**20


def panel(axes: Axes, ladder: str, report: dict[str, Any]) -> None:
    """Both layouts of one ladder, and what a rank would hold at least that gathers all keys.

    `sharded` once more in a second step that finds the message buffers of the first.
    """
    rows = [row for row in report["rows"] if row["ladder"] == ladder]
    sizes = [row["ring_size"] for row in rows]
    for layout, color in COLORS.items():
        label, formula = FORMULAE[layout]
        planned = [row[formula] / MIB for row in rows]
        axes.plot(sizes, planned, "-", lw=1, color=color, label=label)
        measured = [row[layout] / MIB for row in rows]
        name = label.partition(":")[0]
        label = f"{name}: one rank of R"
        axes.plot(sizes, measured, "o", mfc="none", color=color, label=label)
        real = [row for row in report["processes"] if row["ladder"] == ladder]
        axes.plot(
            [row["ring_size"] for row in real],
            [max(row[layout]) / MIB for row in real],
            "x",
            color=color,
            label=f"{name}: R processes",
        )
    case = report["case"]
    array = case["n"] * case["heads"] * case["head_dim"] * 4
    share = report["shares"]["sharded"] * array
    limit = [(share / size + report["tile_bytes"]) / MIB for size in sizes]
    axes.plot(sizes, limit, ":", color=COLORS["sharded"], label="sharded: c n / R + tile")
    axes.axhline(
        2 * array / MIB, ls="--", lw=0.8, color="#718096", label="all keys and values alone"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.set_title(f"{ladder} ladder, n = {case['n']:,}")
    axes.set_xlabel("ranks R")
    axes.spines[["top", "right"]].set_visible(False)


def main(folder: Path = ASSETS) -> None:
    """Write memory_ladders.svg into ``folder``."""
    report = json.loads(RESULT.read_text(encoding="utf-8"))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(9, 4.4), sharey=True, layout="constrained")
        for axes, ladder in zip(panels, ("LongNet", "LongViT"), strict=True):
            panel(axes, ladder, report)
        panels[0].set_ylabel("peak MiB of a rank, forward + backward")
        handles, labels = panels[0].get_legend_handles_labels()
        legend = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": 8}
        figure.legend(handles, labels, **legend)
        figure.savefig(folder / "memory_ladders.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
