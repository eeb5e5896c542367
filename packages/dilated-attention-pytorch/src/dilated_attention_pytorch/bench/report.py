"""A run of many cases, and the JSON that holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import backends
from .candidate import Peer
from .cases import CASES, Case
from .environment import differences, environment
from .machine import Machine
from .power import PowerMonitor
from .runner import run_case
from .timing import Effort
from .verify import Judge


def run_cases(
    cases: Iterable[Case],
    machine: Machine,
    judge: Judge,
    *,
    peers: Mapping[str, Peer],
    effort: Effort,
    backend_names: Sequence[str] = (),
    old: Mapping[str, Any] | None = None,
    before: Callable[[Case], None] = lambda case: None,
    after: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """Run cases one after the other.

    Args:
        cases: what to run.
        machine: where.
        judge: the tolerance.
        peers: what may be timed beside this library.
        effort: how much time to spend.
        backend_names: which backends; all where empty.
        old: a report to keep the other cases of.
        before: called before each case.
        after: called after each case with the report so far.

    Returns:
        `environment`, `effort`, and `results`: what `run_case` returns, for each case.

    Raises:
        ValueError: there is no such backend, or `old` does not belong here (see `merge`).
    """
    known = backends.names()
    unknown = [name for name in backend_names if name not in known]
    if unknown:
        raise ValueError(f"unknown backend {unknown}; expected some of {list(known)}")
    report: dict[str, Any] = {
        "environment": environment(machine.device),
        "effort": asdict(effort),
        "results": [],
    }
    if old is not None:
        report = merge(old, report)
    with PowerMonitor(machine.device) as monitor:
        for case in cases:
            before(case)
            result = run_case(
                case,
                machine,
                monitor,
                judge,
                backend_names=backend_names or known,
                asked=bool(backend_names),
                peers=peers,
                effort=effort,
            )
            report = merge(report, {**report, "results": [result]})
            after(report)
    return report


def faults(report: Mapping[str, Any]) -> list[str]:
    """One line for each backend of this library that was wrong or failed."""
    return [
        f"{result['case']}, {name}: {kind}: {entry[kind]}"
        for result in report["results"]
        for name, entry in result["backends"].items()
        for kind in ("wrong", "failed")
        if kind in entry
    ]


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Both reports' cases in the registry's order; where both have a case, the new figures.

    Raises:
        ValueError: they were made in different environments or with different effort; the message
            names what differs.
    """
    found = differences(old["environment"], new["environment"])
    found += differences(old["effort"], new["effort"])
    if found:
        raise ValueError("the reports do not belong together; " + "; ".join(found))
    results = {result["case"]: result for report in (old, new) for result in report["results"]}
    order = {case.name: place for place, case in enumerate(CASES)}
    ordered = sorted(results.values(), key=lambda x: order.get(x["case"], len(order)))
    return {**new, "results": ordered}


def load(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no report.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    missing = {"environment", "effort", "results"} - (
        found.keys() if isinstance(found, dict) else set()
    )
    if missing:
        raise ValueError(f"{path} is no report of this benchmark: it lacks {sorted(missing)}")
    report: dict[str, Any] = found
    return report


def save(report: Mapping[str, Any], path: Path) -> None:
    """Write a report."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
