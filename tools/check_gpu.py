"""Run `pytest -m cuda` in several processes, and write one record of all.

`python tools/check_gpu.py RECORD.json [--jobs 12] [--limit 500] [pytest options]` on a machine with
a GPU. Most of the time goes into compiling kernels, one core for each process. The record is
committed as `benchmarks/results/cuda_correctness.json`; what an older one at this path says of
versions that are still present, and were not run now, stays in it. Tests that the limit stopped, or
that failed, are listed in it as unfinished.
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = "packages/dilated-attention-pytorch/tests"
# More pieces than processes, so that one slow piece does not leave the others idle.
PIECES_PER_JOB = 4
_STOPPED = 124
# NumPy and PyTorch would each take every core in every process.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


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


def run(names: list[str], record: Path, deadline: float) -> tuple[int, str]:
    """(exit status, output) of one process; `_STOPPED` where the deadline stopped it."""
    listed = record.with_suffix(".txt")
    listed.write_text("\n".join(names), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "--durations=3", f"@{listed}"],
            cwd=ROOT,
            env=os.environ | ONE_THREAD | {"DILATED_ATTENTION_RECORD": str(record)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=max(deadline - time.monotonic(), 0.0),
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        return _STOPPED, "\n".join((output, *(f"FAILED {name}: not finished" for name in names)))
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


def kept(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The new record, and those backends of an older one from a like machine that it lacks."""
    if old.get("environment") != new["environment"]:
        return new
    return new | {"backends": old["backends"] | new["backends"]}


def failed(output: str) -> list[str]:
    """Names of the tests that a process's output says failed."""
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", output, flags=re.MULTILINE)


def main() -> int:
    """Exit status 1 where a test failed or did not finish; what passed is recorded all the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for all")
    arguments, options = parser.parse_known_args()
    start = time.monotonic()
    pieces = cut(collect(options), arguments.jobs * PIECES_PER_JOB)
    found, statuses, unfinished = [], set(), []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        records = [Path(folder) / f"{i}.json" for i in range(len(pieces))]
        deadline = start + arguments.limit
        started = {
            pool.submit(run, names, record, deadline): (names, record)
            for names, record in zip(pieces, records, strict=True)
        }
        for piece in as_completed(started):
            status, output = piece.result()
            statuses.add(status)
            names, record = started[piece]
            unfinished += names if status == _STOPPED else failed(output)
            print(f"{time.monotonic() - start:.0f} s, exit status {status}")
            for line in output.splitlines():
                if re.match(
                    r"(FAILED|ERROR|SKIPPED|E  )|\d+ (passed|failed|skipped)|\d\S*s c", line
                ):
                    print("   ", line, flush=True)
            if record.exists():
                found.append(json.loads(record.read_text(encoding="utf-8")))
    if found:
        merged = merge(found) | {"unfinished": sorted(unfinished)}
        if arguments.record.exists():
            merged = kept(merged, json.loads(arguments.record.read_text(encoding="utf-8")))
        arguments.record.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(map(len, pieces))} tests, {time.monotonic() - start:.0f} s")
    return int(not statuses <= {0, 5})


if __name__ == "__main__":
    sys.exit(main())
