"""Time cases with every peer that can be imported: `python -m benchmarks.run OUT.json`.

As `dilated-attention bench`, from a checkout and with torchscale where the user has it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dilated_attention_oracle import tolerance
from dilated_attention_pytorch.bench.cases import GROUPS, choose
from dilated_attention_pytorch.bench.machine import find_machine
from dilated_attention_pytorch.bench.peers import PEERS
from dilated_attention_pytorch.bench.report import faults, load, run_cases, save
from dilated_attention_pytorch.bench.timing import QUICK, Effort

from .peers import torchscale


def _line(result: dict[str, Any]) -> str:
    """One case in one line: milliseconds and TFLOP/s, or why there are none."""
    found = {}
    for name, entry in (*result["backends"].items(), *result["peers"].items()):
        figures = [entry[kind] for kind in ("forward", "forward_backward") if kind in entry]
        found[name] = [(x["ms"], x["tflops"]) for x in figures] or next(iter(entry.items()))
    return json.dumps({result["case"]: found, "auto": result["auto"]})


def main() -> int:
    """Run the named cases and groups, or all; returns 1 where a backend was wrong or failed."""
    known = {**PEERS, "torchscale": torchscale}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--group", action="append", default=[], choices=GROUPS)
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument("--peer", action="append", default=[], choices=known)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--append", action="store_true", help="keep the other cases of the file")
    arguments = parser.parse_args()
    machine = find_machine()
    old = load(arguments.out) if arguments.append and arguments.out.exists() else None

    chosen = choose(arguments.case, arguments.group, machine.device)

    def write(report: dict[str, Any]) -> None:
        save(report, arguments.out)

    report = run_cases(
        chosen,
        machine,
        tolerance,
        peers={name: known[name] for name in arguments.peer or known},
        effort=QUICK if arguments.quick else Effort(),
        backend_names=arguments.backend,
        old=old,
        before=lambda case: print(f"{case.name}: {case}", flush=True),
        after=write,
    )
    timed = {case.name for case in chosen}
    for result in report["results"]:
        if result["case"] in timed:
            print(_line(result))
    wrong = faults(report)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
