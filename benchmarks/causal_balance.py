"""How causal work is spread over the ranks of a ring, and what travels, for each order of the rows.

`python -m benchmarks.causal_balance` counts the pairs that each rank's queries score and the rows
that each rank sends, from the schedule alone, writes benchmarks/results/causal_balance.json and the
table of docs/guides/many-gpus.md. Needs no GPU; one core takes ten minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.layout import Layout, make_layout
from dilated_attention_pytorch.schedule import Groups, Problem, key_classes
from dilated_attention_pytorch.schedule.balance import balanced_map, excess, pairs_by_rank
from dilated_attention_pytorch.schedule.messages import needed

from . import markers

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/causal_balance.json"
PAGE = ROOT / "docs/guides/many-gpus.md"
RING_SIZES = (2, 3, 4, 8, 16, 32, 64)
ORDERS = ("contiguous", "zigzag", "balanced")


@dataclass(frozen=True, slots=True)
class Case:
    """A causal call whose branches reach past the shards."""

    name: str
    problem: Problem


def _ladder(n: int) -> DilationPattern:
    """(2048, 1), (4096, 2), ... up to the branch that spans the sequence."""
    rungs = 1
    while 2048 << (rungs - 1) < n:
        rungs += 1
    segments = [min(2048 << i, n) for i in range(rungs)]
    return DilationPattern.longnet(segments, [1 << i for i in range(rungs)])


def _cases() -> Iterator[Case]:
    paper = DilationPattern.preset("longnet-paper")
    for name, n, heads, pattern in (
        ("ladder, w up to n", 1 << 17, 16, _ladder(1 << 17)),
        ("ladder, w up to n", 1 << 18, 16, _ladder(1 << 18)),
        ("ladder, w up to n", 100_000, 16, _ladder(100_000)),
        ("LongNet paper", 1 << 17, 12, paper),
        ("LongNet paper", 100_000, 12, paper),
        ("one dense branch", 1 << 16, 16, DilationPattern.longnet([1 << 16], [1])),
    ):
        yield Case(name, Problem(pattern, n, heads, heads, is_causal=True))


CASES = tuple(_cases())


def layout_of(problem: Problem, ring_size: int, order: str) -> Layout:
    """The layout of an order by name."""
    if order == "balanced":
        return make_layout(problem.n, ring_size, balanced_map(problem, ring_size)[0])
    return make_layout(problem.n, ring_size, order)


def sent_rows(problem: Problem, layout: Layout) -> list[int]:
    """Rows (of k and of v, per head) that each rank sends in a forward: `cost.rank_traffic`'s."""
    owner = np.empty(problem.n, dtype=np.int64)
    for rank in range(layout.ring_size):
        owner[layout.positions(rank)] = rank
    keys = Groups(problem, np.arange(problem.n, dtype=np.int64), queries=False)
    sent = np.zeros(layout.ring_size, dtype=np.int64)
    for rank in range(layout.ring_size):
        queries = Groups(problem, layout.positions(rank), queries=True)
        for key_class in key_classes(problem):
            wanted = needed(problem, key_class, queries, keys)
            sources = owner[wanted]
            counts = np.bincount(sources[sources != rank], minlength=layout.ring_size)
            sent += len(key_class.heads) * counts
    return [int(x) for x in sent]


def measure(case: Case, ring_size: int) -> dict[str, Any]:
    """One row: by which part the busiest rank is over the mean, and the rows it sends."""
    row: dict[str, Any] = {"case": case.name, "n": case.problem.n, "ring_size": ring_size}
    counted: dict[bytes, list[int]] = {}
    for order in ORDERS:
        layout = layout_of(case.problem, ring_size, order)
        rows = np.concatenate([layout.positions(rank) for rank in range(ring_size)]).tobytes()
        # Orders may be the same one.
        sent = counted[rows] = counted.get(rows) or sent_rows(case.problem, layout)
        row[order] = {
            "excess": excess(pairs_by_rank(case.problem, layout)),
            "rows_sent_by_busiest": max(sent),
            "rows_sent_by_all": sum(sent),
        }
    return row


def table(report: dict[str, Any]) -> str:
    """The busiest rank's excess of pairs; the rows that a rank sends at most, over contiguous."""
    lines = [
        "| pattern, n | R | contiguous | zigzag | balanced | rows sent: zigzag | balanced |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        found = [f"{row[order]['excess']:.1%}" for order in ORDERS]
        base, *others = (row[order]["rows_sent_by_busiest"] for order in ORDERS)
        ratios = [f"{other / base:.2f}" if base else "–" for other in others]
        name = f"{row['case']}, {row['n']:,}"
        lines.append(f"| {' | '.join([name, str(row['ring_size']), *found, *ratios])} |")
    return "\n".join(lines)


def render(page: str, report: dict[str, Any]) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: a marker is missing.
    """
    return markers.fill(page, {"causal-balance": table(report)})


def load() -> dict[str, Any]:
    """The committed result."""
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Count, write and print."""
    rows = []
    for case in CASES:
        for ring_size in RING_SIZES:
            rows.append(measure(case, ring_size))
            print(rows[-1], flush=True)
    report = {"unit": "pairs of the schedule; rows of k and v per head", "rows": rows}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()
