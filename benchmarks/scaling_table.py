"""The Markdown table of benchmarks/results/scaling.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "Not measured yet: `python -m benchmarks.scaling` on a machine with GPUs."
_NOTHING = "–"
_MIB = 2**20


def table(report: Mapping[str, Any]) -> str:
    """A row for each case and ring."""
    lines = [
        "| case | n | R | ms | TFLOP/s a GPU | of R = 1 | predicted | MiB sent | peak MiB | plan "
        "| of n / R | context_parallel |",
        f"|{'---|' * 12}",
    ]
    results = report["results"]
    single = {_series(one): one for one in results if one["ring_size"] == 1}
    for one in sorted(results, key=lambda one: (_series(one), one["ring_size"])):
        if "wrong" in one:
            lines.append(f"| {_series(one)} | {one['n']:,} | {one['ring_size']} | wrong |")
            continue
        base = single.get(_series(one))
        cells = (
            _series(one),
            f"{one['n']:,}",
            str(one["ring_size"]),
            _pair(one, "ms", "{:.3g}"),
            _pair(one, "tflops_per_rank", "{:.0f}"),
            _efficiency(one, base),
            _predicted(one),
            " / ".join(f"{max(sent) / _MIB:,.0f}" for sent in one["bytes_sent"].values()),
            f"{max(one['peak_bytes']) / _MIB:,.0f}",
            f"{one['planned_peak_bytes'] / _MIB:,.0f}",
            _memory(one, base),
            _pair(one.get("context_parallel", {}), "tflops_per_rank", "{:.0f}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _series(one: Mapping[str, Any]) -> str:
    return f"{one['kind']}{', causal' if one['is_causal'] else ''}"


def _pair(one: Mapping[str, Any], number: str, form: str) -> str:
    """A number of the forward / of forward + backward."""
    found = [
        form.format(one[kind][number]) for kind in ("forward", "forward_backward") if kind in one
    ]
    return " / ".join(found) or _NOTHING


def efficiency(one: Mapping[str, Any], base: Mapping[str, Any]) -> float:
    """Rate of a rank in forward + backward over that of one GPU: weak and strong scaling alike."""
    rates = [x["forward_backward"]["tflops_per_rank"] for x in (one, base)]
    return float(rates[0] / rates[1])


def _efficiency(one: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    if base is None or "forward_backward" not in base:
        return _NOTHING
    return f"{efficiency(one, base):.1%}"


def _predicted(one: Mapping[str, Any]) -> str:
    """Predicted over measured time of forward + backward; below 1 where it is a lower bound."""
    if one["predicted_ms"] is None:
        return _NOTHING
    return f"{one['predicted_ms']['forward_backward'] / one['forward_backward']['ms']:.2f}"


def _memory(one: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """A row's peak bytes over a row's at R = 1."""
    if base is None or "peak_bytes" not in base:
        return _NOTHING
    rows = [max(x["peak_bytes"]) * x["ring_size"] / x["n"] for x in (one, base)]
    return f"{rows[0] / rows[1]:.2f}"
