"""The Markdown tables of benchmarks/results/faults_gloo.json and faults_nccl.json."""

from __future__ import annotations

from typing import Any

from . import markers

BACKENDS = ("gloo", "nccl")
_MOST_WORDS = 200


def _rank(found: dict[str, Any]) -> str:
    """What one rank reported and how its process ended."""
    code = found["exit"]
    ending = {0: "", 1: "", -9: "killed", -6: "aborted", "stays": "its process stays"}.get(
        code, f"exit {code}"
    )
    if found["reported"] is None:
        return ending
    said = found["reported"]
    if said not in ("finished", "monitor"):
        said = f"`{said}`"
    return f"{said}, then {ending}" if ending else said


def _seconds(ranks: list[dict[str, Any]]) -> str:
    times = [found["seconds"] for found in ranks if found["seconds"] is not None]
    return f"{max(times):.2f} s" if times else "–"


def table(report: dict[str, Any]) -> str:
    """One row for each fault: where it was injected, and the other ranks."""
    lines = [
        "| fault of one rank | that rank | the others | after | one of the others says |",
        "|---|---|---|---|---|",
    ]
    for row in report["faults"]:
        odd = row["injected_on"]
        others = [found for rank, found in enumerate(row["ranks"]) if rank != odd]
        kinds = " / ".join(dict.fromkeys(_rank(found) for found in others))
        words = next((found["message"] for found in others if found["message"]), "")
        cells = (row["fault"], _rank(row["ranks"][odd]), kinds, _seconds(others), _short(words))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(words: str) -> str:
    """The library's own words, without the transport's; patterns are long."""
    words = words.partition(": [")[0].replace("|", "/")
    return words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]} …"


def price(report: dict[str, Any]) -> str:
    """What an agreement costs."""
    lines = ["| R | agreement | its all-gather | posting the step |", "|---|---|---|---|"]
    for row in report["agreement"]:
        cells = (f"{row[f'{name}_us']:,.0f} µs" for name in ("agreement", "all_gather", "posting"))
        lines.append(f"| {row['ring_size']} | {' | '.join(cells)} |")
    alone = f"A process that waits for nobody takes {report['agreement_alone_us']:.0f} µs of it."
    return "\n".join([*lines, "", alone])


def render(page: str, reports: dict[str, dict[str, Any] | None]) -> str:
    """The page with its tables made anew.

    Args:
        page: its text.
        reports: by backend; None where there is none yet.

    Raises:
        ValueError: a marker is missing.
    """
    parts = {}
    for backend, report in reports.items():
        absent = f"Not measured yet: `python -m benchmarks.faults --backend {backend}`."
        for name, make in ((f"faults-{backend}", table), (f"price-{backend}", price)):
            parts[name] = absent if report is None else make(report)
    return markers.fill(page, parts)
