"""Tables of docs/guides/torchscale-gigapath.md from the committed results.

`python -m benchmarks.gigapath_page` rewrites what stands between `<!-- name -->` and
`<!-- /name -->`: `parity` from benchmarks/results/gigapath_parity.json, `times` from
benchmarks/results/gigapath.json and, for the ring, gigapath_ring.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import markers

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/guides/torchscale-gigapath.md"
RESULTS = ROOT / "benchmarks/results"
ABSENT = "Not measured yet: `python -m benchmarks.gigapath OUT.json` on a machine with a GPU."


def _origin(report: Mapping[str, Any]) -> str:
    found, case = report["environment"], report["case"]
    return (
        f"{found['device']}, PyTorch {found['torch']}; {case['dtype']}, batch {case['batch']}, "
        f"{case['layers']} layers, random weights."
    )


def _share(entry: Mapping[str, float]) -> str:
    return f"{entry['largest'] / entry['size']:.1e}"


def parity(report: Mapping[str, Any]) -> str:
    """Largest differences from torchscale, as shares of its largest number, layer by layer."""
    lines = [_origin(report)]
    for result in report["results"]:
        found = result["parity_with_torchscale"]
        compatible, exact = found["compatible"], found["exact"]
        lines += [
            "",
            f"| n = {result['n']:,} | output, compatible | output, exact "
            "| gradient, compatible | gradient, exact |",
            "|---|---|---|---|---|",
        ]
        for i, outputs in enumerate(zip(compatible["output"], exact["output"], strict=True)):
            gradients = compatible["gradient"][i], exact["gradient"][i]
            cells = " | ".join(_share(entry) for entry in (*outputs, *gradients))
            lines.append(f"| layer {i} | {cells} |")
        inputs = " | ".join(_share(which["input_gradient"][0]) for which in (compatible, exact))
        lines.append(f"| the input | | | {inputs} |")
    return "\n".join(lines)


def times(reports: list[Mapping[str, Any]]) -> str:
    """Milliseconds and peak memory of the slide encoder, every implementation of a run beside."""
    if not reports:
        return ABSENT
    lines = []
    for report in reports:
        lines += [
            _origin(report),
            "",
            "| n | implementation | forward ms | MiB | fine-tuning ms | MiB |",
            "|---|---|---|---|---|---|",
        ]
        for result in report["results"]:
            for name, entry in result["implementations"].items():
                if "forward" not in entry:
                    reason = entry.get("absent") or entry["out_of_memory"]
                    lines.append(f"| {result['n']:,} | {name} | {reason} | | | |")
                    continue
                cells = [
                    cell
                    for call in ("forward", "fine_tuning")
                    for cell in _time(entry.get(call, {}))
                ]
                lines.append(f"| {result['n']:,} | {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _time(figure: Mapping[str, float]) -> tuple[str, str]:
    return tuple(f"{figure[key]:,.0f}" if key in figure else "" for key in ("ms", "peak_mib"))


def load(*names: str) -> list[Mapping[str, Any]]:
    """Those of the results that are there."""
    paths = [RESULTS / f"{name}.json" for name in names]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def render(page: str) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: a marker is missing.
    """
    parts = {
        "parity": parity(load("gigapath_parity")[0]),
        "times": times(load("gigapath", "gigapath_ring")),
    }
    return markers.fill(page, parts)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
