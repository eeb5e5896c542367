"""`dilated-attention doctor`."""

from __future__ import annotations

import typer

from .doctor_checks import Finding, backends, devices, gpus, packages, process_groups, software


def verdict(tried: list[Finding], findings: list[Finding]) -> str:
    """One line: what may be used, or what is broken."""
    broken = [finding.topic for finding in findings if finding.broken]
    if broken:
        return f"BROKEN: {', '.join(broken)}; the lines above say why"
    usable = [finding.topic for finding in tried if finding.works]
    return f"OK: {', '.join(usable)}"


def doctor() -> None:
    """Tell versions, devices and what works here: the text to paste into a report of a bug.

    Every backend that serves a small call is run forward and backward and compared with the
    definition in float64; Gloo and NCCL are tried in one process. Exits with 1 where something
    that should work does not.
    """
    found = [packages(), *software(), *gpus()]
    tried = [finding for device in devices() for finding in backends(device)]
    tried += process_groups()
    lines = [*found, *tried]
    width = max(len(finding.topic) for finding in lines) + 2
    for finding in lines:
        print(f"{finding.topic:{width}}{finding.text}")
    print(f"{'verdict':{width}}{verdict(tried, lines)}")
    raise typer.Exit(any(finding.broken for finding in lines))
