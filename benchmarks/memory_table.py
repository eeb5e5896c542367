"""The Markdown table of benchmarks/results/memory_per_rank.json."""

from __future__ import annotations

from typing import Any


def table(report: dict[str, Any]) -> str:
    """MiB of the worst rank: measured in both layouts, beside the closed forms."""
    lines = [
        "| R | sharded | closed form | replicated | closed form |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        sizes = (
            max(row["sharded"]),
            row["closed_form_sharded"],
            max(row["replicated"]),
            row["closed_form_replicated"],
        )
        cells = " | ".join(f"{size / 2**20:.1f} MiB" for size in sizes)
        lines.append(f"| {row['ring_size']} | {cells} |")
    return "\n".join(lines)
