"""Figures of benchmarks/results/one_gpu.json; `python -m benchmarks.page` draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dilated_attention_pytorch.bench.summary import KINDS, PEERS, auto_entry

NAMES = {"auto": "this library", **PEERS}
COLORS = {
    "auto": "#1b7f5c",
    "torchscale": "#b5541c",
    "strided": "#8a6bb5",
    "dense_same_n": "#5a6b8c",
    "dense_same_flops": "#a9b4c8",
    "flex": "#c2a23a",
}
_TITLES = {"forward": "forward", "forward_backward": "forward + backward"}


def _entry(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (
        auto_entry(result) if name == "auto" else result["peers"].get(name, {})
    )
    return found


def _bars(axes: Axes, results: list[Any], names: list[str], kind: str, number: str) -> None:
    height = 0.84 / len(names)
    for i, name in enumerate(names):
        places, widths = [], []
        for row, result in enumerate(results):
            figure = _entry(result, name).get(kind, {})
            if number in figure:
                places.append(row + (i - (len(names) - 1) / 2) * height)
                widths.append(figure[number])
        axes.barh(places, widths, height=height, color=COLORS[name], label=NAMES[name])
    axes.set_title(_TITLES[kind], fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(len(results) - 0.5, -0.5)


def _grid(report: Mapping[str, Any], names: list[str], number: str) -> tuple[Figure, Any]:
    """Bars of every case that a peer ran, a panel for each direction."""
    names = [
        name
        for name in names
        if any(number in _entry(r, name).get("forward", {}) for r in report["results"])
    ]
    results = [
        result
        for result in report["results"]
        if any(number in _entry(result, name).get("forward", {}) for name in names[1:])
    ]
    size = (9, 0.16 * len(names) * max(1, len(results)) + 1.4)
    figure, panels = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axes, kind in zip(panels, KINDS, strict=True):
        _bars(axes, results, names, kind, number)
    panels[0].set_yticks(range(len(results)), [result["case"] for result in results])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(report["environment"]["device"])
    return figure, panels


def rates(report: Mapping[str, Any]) -> Figure:
    """TFLOP/s by case, of 4 d pairs forward; dense attention over all of n does other pairs."""
    figure, panels = _grid(report, [x for x in NAMES if x != "dense_same_n"], "tflops")
    for axes in panels:
        axes.set_xlabel("TFLOP/s (more is better)")
    return figure


def memory(report: Mapping[str, Any]) -> Figure:
    """MiB beyond inputs, out and gradients, by case."""
    figure, panels = _grid(report, ["auto", "torchscale", "dense_same_n"], "extra_mib")
    for axes in panels:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.set_xlabel("MiB beyond inputs, out and gradients (less is better)", fontsize="small")
    return figure


def length(report: Mapping[str, Any]) -> Figure:
    """Nanoseconds of the forward for each token and head over n, non-causal ladder, d = 64."""
    results = sorted(
        (
            r
            for r in report["results"]
            if r["case"].startswith("ladder") and r["head_dim"] == 64 and not r["is_causal"]
        ),
        key=lambda r: (r["n"], -r["heads"]),
    )
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in ("auto", "torchscale", "strided", "dense_same_n"):
        # At one n the case with more heads fills the device better; both lie on the line.
        points = [
            (r["n"], _entry(r, name)["forward"]["ms"] * 1e6 / r["n"] / r["heads"])
            for r in results
            if "forward" in _entry(r, name)
        ]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker="o", color=COLORS[name], label=NAMES[name])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("sequence length n")
    axes.set_ylabel("ns per token and head, forward")
    axes.set_title(f"{report['environment']['device']}: LongNet ladder, d = 64, bfloat16")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


FIGURES = {"rates": rates, "memory": memory, "length": length}


def draw(report: Mapping[str, Any], digest: str, folder: Path) -> list[Path]:
    """Draw every figure.

    Args:
        report: what `benchmarks.run` wrote.
        digest: of the report's file; each figure carries it, so that a test can tell an old one.
        folder: where to.
    """
    written = []
    # Fixed identifiers and no date: the same report gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "dilated-attention"}):
        for name, make in FIGURES.items():
            figure = make(report)
            written.append(folder / f"one_gpu_{name}.svg")
            metadata = {"Date": None, "Description": f"one_gpu.json {digest}"}
            figure.savefig(written[-1], metadata=metadata)
            plt.close(figure)
    return written
