"""The Markdown tables of benchmarks/results/faults_gloo.json and faults_nccl.json."""

from __future__ import annotations

from collections.abc import Iterable
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
    then = [f"`{found['then']}`"] if "then" in found else []
    return ", then ".join([said, *then, *([ending] if ending else [])])


def _seconds(ranks: list[dict[str, Any]]) -> str:
    times = [found["seconds"] for found in ranks if found["seconds"] is not None]
    return f"{max(times):.2f} s" if times else "–"


def table(report: dict[str, Any], names: Iterable[str]) -> str:
    """One row for each fault: where it was injected, and the other ranks; last those not run."""
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
    found = {row["fault"] for row in report["faults"]}
    missing = "; ".join(name for name in names if name not in found)
    return "\n".join([*lines, *(["", f"Not run: {missing}."] if missing else [])])


def _short(words: str) -> str:
    """The library's own words, without the transport's; patterns are long."""
    words = words.partition(": [")[0].replace("|", "/")
    return words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]} …"


def price(report: dict[str, Any]) -> str:
    """What an agreement costs."""
    if not report["agreement"]:
        return "Not measured: the ranks took turns on one GPU."
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
    names = dict.fromkeys(row["fault"] for x in reports.values() if x for row in x["faults"])
    for backend, report in reports.items():
        absent = f"Not measured yet: `python -m benchmarks.faults --backend {backend}`."
        parts[f"faults-{backend}"] = table(report, names) if report else absent
        parts[f"price-{backend}"] = price(report) if report else absent
    return markers.fill(page, parts)
