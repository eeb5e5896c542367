"""Figure and table of benchmarks/results/one_gpu.json: `python -m benchmarks.plot`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "ours": "this library",
    "torchscale": "torchscale",
    "dense_same_n": "dense, same n",
    "dense_rows_2048": "dense, same FLOPs",
}
COLORS = {
    "ours": "#1b7f5c",
    "torchscale": "#b5541c",
    "dense_same_n": "#5a6b8c",
    "dense_rows_2048": "#a9b4c8",
}


def draw(report: dict[str, Any], target: Path) -> None:
    """Milliseconds of forward + backward, by case and implementation, on a logarithmic axis.

    Args:
        report: what `benchmarks.run` wrote.
        target: the SVG file.
    """
    rows = [r for r in report["results"] if r["peers"] and "forward_backward" in r["ours"]]
    figure, axes = plt.subplots(figsize=(8, 0.62 * len(rows) + 1.2), layout="constrained")
    height = 0.8 / len(NAMES)
    for i, name in enumerate(NAMES):
        places, widths = [], []
        for row, result in enumerate(rows):
            entry = result["ours"] if name == "ours" else result["peers"].get(name, {})
            if "forward_backward" in entry:
                places.append(row + (i - 1.5) * height)
                widths.append(entry["forward_backward"]["ms"])
        axes.barh(places, widths, height=height, color=COLORS[name], label=NAMES[name])
    axes.set_yticks(range(len(rows)), [result["case"] for result in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("forward + backward, ms (median; less is better)")
    axes.set_title(report["environment"]["gpu"].split(",")[0])
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    # The same bytes every time, so that a drift shows as a difference.
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def table(report: dict[str, Any]) -> str:
    """The medians as a Markdown table: ms forward, ms forward + backward, TFLOP/s, ratios."""
    lines = [
        "| case | forward | + backward | TFLOP/s | torchscale / ours | dense, same n / ours |",
        "|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        ours, peers = result["ours"], result["peers"]
        both = ours.get("forward_backward")
        rates = [f"{entry['tflops']:.0f}" for entry in (ours["forward"], both) if entry]
        cells = [
            result["case"],
            f"{ours['forward']['ms']:.2f} ms",
            f"{both['ms']:.2f} ms" if both else "not timed",
            " / ".join(rates),
        ]
        for name in ("torchscale", "dense_same_n"):
            ratios = [
                f"{peers[name][kind]['ms'] / ours[kind]['ms']:.2f}"
                for kind in ("forward", "forward_backward")
                if kind in peers.get(name, {}) and kind in ours
            ]
            cells.append(" / ".join(ratios) or "not timed")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Draw the committed results and print their table."""
    matplotlib.rcParams["svg.hashsalt"] = "dilated-attention"
    report = json.loads((RESULTS / "one_gpu.json").read_text(encoding="utf-8"))
    draw(report, RESULTS.parents[1] / "docs/assets/one_gpu.svg")
    print(table(report))


if __name__ == "__main__":
    main()
