"""Run `pytest -m cuda` in several processes, and write one record of all.

`python tools/check_gpu.py RECORD.json [--jobs 12] [pytest options]` on a machine with a GPU. Most
of the time goes into compiling kernels, one core for each process. The record is committed as
`benchmarks/results/cuda_correctness.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = "packages/dilated-attention-pytorch/tests"
# More pieces than processes, so that one slow piece does not leave the others idle.
PIECES_PER_JOB = 2


def collect(options: list[str]) -> list[str]:
    """Names of the tests, in pytest's order: neighbours share kernels, and what is compiled."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "cuda", *options]
    found = subprocess.run(
        [*command, TESTS], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [line for line in found.splitlines() if re.match(r"\S+\.py::", line)]


def cut(names: list[str], pieces: int) -> list[list[str]]:
    """The names in about equal pieces."""
    size = max(1, -(-len(names) // pieces))
    return [names[i : i + size] for i in range(0, len(names), size)]


def run(names: list[str], record: Path) -> tuple[int, str]:
    """(exit status, output) of one process."""
    listed = record.with_suffix(".txt")
    listed.write_text("\n".join(names), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "cuda", f"@{listed}"],
        cwd=ROOT,
        env=os.environ | {"DILATED_ATTENTION_RECORD": str(record)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def merge(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One record with the largest share of each.

    Raises:
        ValueError: the records are of other kernels or another machine.
    """
    merged: dict[str, Any] = {"environment": records[0]["environment"], "backends": {}}
    for record in records:
        if record["environment"] != merged["environment"]:
            raise ValueError("records of different machines")
        for name, entry in record["backends"].items():
            known = merged["backends"].setdefault(
                name, {"hash": entry["hash"], "largest_share_of_budget": {}}
            )
            if known["hash"] != entry["hash"]:
                raise ValueError(f"records of different versions of {name}")
            for dtype, directions in entry["largest_share_of_budget"].items():
                worst = known["largest_share_of_budget"].setdefault(dtype, {})
                for direction, share in directions.items():
                    worst[direction] = max(worst.get(direction, 0.0), share)
    return merged


def main() -> int:
    """Exit status 1 where a test failed; the record is written all the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("--jobs", type=int, default=12)
    arguments, options = parser.parse_known_args()
    start = time.perf_counter()
    pieces = cut(collect(options), arguments.jobs * PIECES_PER_JOB)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        records = [Path(folder) / f"{i}.json" for i in range(len(pieces))]
        results = list(pool.map(run, pieces, records))
        found = [json.loads(x.read_text(encoding="utf-8")) for x in records if x.exists()]
    for _, output in results:
        for line in output.splitlines():
            if re.match(r"(FAILED|ERROR|SKIPPED|E  )|\d+ (passed|failed|skipped)", line):
                print(line)
    if found:
        text = json.dumps(merge(found), indent=2)
        arguments.record.write_text(text + "\n", encoding="utf-8")
    print(f"{sum(map(len, pieces))} tests, {time.perf_counter() - start:.0f} s")
    return int(any(status not in (0, 5) for status, _ in results))


if __name__ == "__main__":
    sys.exit(main())
