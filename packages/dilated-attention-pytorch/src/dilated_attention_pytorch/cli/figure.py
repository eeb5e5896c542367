"""The demo's picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(
    losses: Mapping[int, Sequence[float]], peaks: Mapping[int, int], length: int, path: Path
) -> None:
    """Loss curves of all rings over each other, and bars of peak memory beside 1/R.

    Args:
        losses: Loss of each step, by ring size.
        peaks: Peak bytes of the rank that needs most, by ring size; the first is R = 1.
        length: Sequence length of the memory's measurement.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    styles: tuple[dict[str, Any], ...] = (
        {"linewidth": 4, "alpha": 0.4},
        {"linewidth": 1.2, "linestyle": "--"},
    )
    for (ring_size, values), style in zip(losses.items(), styles, strict=True):
        curves.plot(range(1, len(values) + 1), values, label=f"R = {ring_size}", **style)
    curves.set(
        title="Training on one rank and on a ring",
        xlabel="step",
        ylabel="loss (nats/byte)",
    )
    curves.xaxis.get_major_locator().set_params(integer=True)
    curves.legend()

    sizes = list(peaks)
    mebibytes = [peaks[size] / 2**20 for size in sizes]
    places = range(len(sizes))
    drawn = bars.bar(places, mebibytes, width=0.6, label="measured peak")
    bars.bar_label(drawn, fmt="%.1f MiB", label_type="center", color="white")
    bars.plot(
        places,
        [mebibytes[0] / size for size in sizes],
        color="black",
        marker="o",
        linestyle=":",
        label="1/R of the first",
    )
    bars.set(
        title=f"Peak attention memory per rank, n = {length:,}",
        ylabel="MiB",
        xticks=list(places),
        xticklabels=[f"R = {size}" for size in sizes],
    )
    bars.legend()
    figure.savefig(path, dpi=120)
