"""How close to the oracle a test run came: printed at its end and written to build/.

Every comparison with the oracle notes the largest share of its error budget per dtype and ring
size. Workers of pytest-xdist send theirs home.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dilated_attention_oracle import Report

FILE = "oracle_shares.json"
Key = tuple[str, str, int]


class OracleShares:
    """For each (kind, dtype, ring size): comparisons made, and the largest share of the budget."""

    def __init__(self) -> None:
        self.examples: defaultdict[Key, int] = defaultdict(int)
        self.largest: defaultdict[Key, float] = defaultdict(float)
        self.array: dict[Key, str] = {}

    def note(self, kind: str, dtype: str, ring_size: int, reports: Mapping[str, Report]) -> None:
        """Count one comparison, whose reports are all within their budgets."""
        key = (kind, dtype, ring_size)
        self.examples[key] += 1
        for name, report in reports.items():
            self._raise_to(key, report.share, name)

    def _raise_to(self, key: Key, share: float, name: str) -> None:
        if share > self.largest[key]:
            self.largest[key] = share
            self.array[key] = name

    def rows(self) -> list[dict[str, Any]]:
        """One record per key, as JSON holds it."""
        return [
            {
                "kind": kind,
                "dtype": dtype,
                "ring_size": size,
                "examples": self.examples[kind, dtype, size],
                "largest_share": round(self.largest[kind, dtype, size], 4),
                "array": self.array.get((kind, dtype, size), ""),
            }
            for kind, dtype, size in sorted(self.examples)
        ]

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Merge the records of another process."""
        for row in rows:
            key = (row["kind"], row["dtype"], row["ring_size"])
            self.examples[key] += row["examples"]
            self._raise_to(key, row["largest_share"], row["array"])

    def table(self) -> list[str]:
        """Lines: a row per (kind, dtype), a column per ring size."""
        sizes = sorted({size for _, _, size in self.examples})
        lines = [" " * 28 + "".join(f"{f'R = {size}':>14}" for size in sizes)]
        for kind, dtype in sorted({(kind, dtype) for kind, dtype, _ in self.examples}):
            cells = [
                f"{self.largest[kind, dtype, size]:.2f} of {self.examples[kind, dtype, size]}"
                if (kind, dtype, size) in self.examples
                else "-"
                for size in sizes
            ]
            lines.append(f"{kind:<18}{dtype:<10}" + "".join(f"{cell:>14}" for cell in cells))
        return lines


SHARES = OracleShares()


class SharesReport:
    """Pytest plugin: collects, prints and writes the shares."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["oracle_shares"] = SHARES.rows()
        elif SHARES.examples:
            folder = Path(self._config.rootpath) / "build"
            folder.mkdir(exist_ok=True)
            text = json.dumps(SHARES.rows(), indent=1)
            (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        SHARES.add(getattr(node, "workeroutput", {}).get("oracle_shares", []))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not SHARES.examples:
            return
        terminalreporter.section("largest error as a share of its budget, of so many comparisons")
        for line in SHARES.table():
            terminalreporter.write_line(line)
