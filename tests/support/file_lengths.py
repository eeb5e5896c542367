"""The lengths of the Python files: how long they may be, and how long they are.

Run as a script it prints the median and fails on a file that is too long.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("oracle", "packages", "tests", "benchmarks")
LIMIT = 400
KERNEL_LIMIT = 700
MEDIAN_GOAL = 150


def limit_of(path: Path) -> int:
    """Return the lines that the file may have."""
    return KERNEL_LIMIT if "kernels" in path.parts else LIMIT


def line_counts(root: Path = ROOT) -> dict[Path, int]:
    """Return the number of lines of each Python file of the project, by path below ``root``."""
    files = [
        *root.glob("*.py"),
        *(path for name in FOLDERS for path in root.joinpath(name).rglob("*.py")),
    ]
    return {
        path.relative_to(root): len(path.read_text(encoding="utf-8").splitlines()) for path in files
    }


def too_long(counts: dict[Path, int]) -> list[str]:
    """Return one line for each file above its limit."""
    return [
        f"{path}: {lines} lines, at most {limit_of(path)}: split it by concept"
        for path, lines in sorted(counts.items())
        if lines > limit_of(path)
    ]


def summary(counts: dict[Path, int]) -> str:
    """Return the median length of the library's files, without the near-empty ones."""
    library = [lines for path, lines in counts.items() if "src" in path.parts and lines >= 5]
    return (
        f"{len(library)} library files, median {statistics.median(library):.0f} lines "
        f"(goal: at most {MEDIAN_GOAL}), longest {max(library)}"
    )


def main() -> int:
    """Print the summary and every file that is too long; return the exit status."""
    counts = line_counts()
    print(summary(counts))
    faults = too_long(counts)
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
