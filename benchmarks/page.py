"""Tables and figures of docs/performance.md from the committed results.

`python -m benchmarks.page` rewrites what stands between `<!-- name -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dilated_attention_pytorch.bench import summary

from . import markers, memory_table, plot, scaling_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
ASSETS = ROOT / "docs/assets"
RESULTS = ROOT / "benchmarks/results"


def load(name: str) -> dict[str, Any]:
    """A committed result."""
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def digest() -> str:
    """Of the file that the figures are drawn from."""
    return hashlib.sha256((RESULTS / "one_gpu.json").read_bytes()).hexdigest()[:16]


def _markdown(heading: summary.Row, rows: list[summary.Row]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ("---",) * len(heading), *rows))


def _origin(report: Mapping[str, Any]) -> str:
    found = report["environment"]
    names = {
        "power.limit": "power limit",
        "driver_version": "driver",
        "torch": "PyTorch",
        "cudnn": "cuDNN",
        "triton": "Triton",
        "python": "Python",
    }
    parts = [f"{label} {found[name]}" for name, label in names.items() if name in found]
    return f"{found['device']}, {', '.join(parts)}."


def _absent(report: Mapping[str, Any]) -> str:
    """Why implementations are missing, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for result in report["results"]:
        for name, entry in (*result["backends"].items(), *result["peers"].items()):
            for kind in ("absent", "failed", "wrong"):
                if kind in entry:
                    reasons.setdefault(f"{name} {kind}: {entry[kind]}", []).append(result["case"])
    return "\n".join(f"- {reason} ({', '.join(cases)})" for reason, cases in reasons.items())


def _scaling() -> str:
    """The scaling suite's table and machine, or that there is none."""
    if not (RESULTS / "scaling.json").exists():
        return scaling_table.ABSENT
    report = load("scaling.json")
    return f"{_origin(report)}\n\n{scaling_table.table(report)}"


def parts() -> dict[str, str]:
    """What stands between the markers, by name."""
    report = load("one_gpu.json")
    return {
        "origin": _origin(report),
        "cases": _markdown(*summary.by_case(report)),
        "memory": _markdown(*summary.memory(report)),
        "backends": _markdown(*summary.by_backend(report)),
        "absent": _absent(report),
        "ring-memory": memory_table.table(load("memory_per_rank.json")),
        "scaling": _scaling(),
    }


def render(page: str) -> str:
    """The page with its parts made anew.

    Raises:
        ValueError: a marker is missing.
    """
    return markers.fill(page, parts())


def main() -> None:
    """Rewrite the page and draw the figures."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for path in plot.draw(load("one_gpu.json"), digest(), ASSETS):
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
