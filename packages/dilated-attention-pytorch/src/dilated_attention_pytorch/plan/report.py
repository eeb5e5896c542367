"""A plan as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from .planning import Plan, Ring
from .step import Transport

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def as_json(plan: Plan) -> str:
    """All numbers of a plan, bytes and seconds; `total` of a step is added."""
    found = asdict(plan)
    for ring, one in ((found["ring"], plan.ring), *zip(found["rings"], plan.rings, strict=True)):
        if one.step is not None:
            ring["step"]["total"] = one.step.total
    return json.dumps(found, indent=1)


def amount(size: float) -> str:
    """Bytes with three figures, in powers of 1,000."""
    unit = 0
    while size >= 999.5 and unit + 1 < len(_UNITS):
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds with three figures."""
    for scale, unit in ((1, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return f"{seconds * scale:,.4g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def as_text(plan: Plan) -> str:
    """A page about the ring asked for, and a line for each other ring size."""
    call, ring = plan.call, plan.ring
    branches = ", ".join(f"({b.segment_length}, {b.dilation_rate})" for b in call.pattern.branches)
    shape = f"n = {call.n:,}, b = {call.batch}, H = {call.num_heads}, H_kv = {call.num_kv_heads}"
    kind = f"{call.dtype}{', causal' if call.is_causal else ''}"
    verdict = "fits" if ring.fits else "does NOT fit"
    forward, backward = plan.flops
    lines = [
        f"pattern    {call.pattern.rule}: (w, r) = {branches}",
        f"call       {shape}, d = {call.head_dim}, {kind}",
        f"ring       R = {ring.ring_size} of {plan.gpu.name}, contiguous shards",
        f"memory     forward {amount(ring.memory.forward)}, backward "
        f"{amount(ring.memory.backward)} of {amount(plan.gpu.memory)} on a rank: {verdict}",
        "           attention alone; weights, other layers and the optimizer aside",
        f"longest    n = {plan.largest_n:,} fits R = {ring.ring_size}",
        f"FLOPs      forward {forward:.4g}, backward {backward:.4g}; busiest rank "
        f"{ring.flops[0]:.4g}, {ring.flops[1]:.4g}",
        *_bytes(ring),
        *_time(plan),
        "",
        *_table(plan),
    ]
    if plan.best is None:
        lines.append(f"No ring up to R = {plan.rings[-1].ring_size} fits.")
    else:
        lines.append(f"Best R: {plan.best}, the smallest that fits and so the least GPU time.")
    if plan.fastest is not None:
        lines.append(f"Done first: R = {plan.fastest}.")
    return "\n".join(lines)


def _bytes(ring: Ring) -> list[str]:
    if ring.ring_size == 1:
        return ["bytes      R = 1: nothing travels"]
    over = "all" if ring.ranks == ring.ring_size else f"the {ring.ranks} likely busiest"
    return [
        f"bytes      forward: a rank sends {ring.sent.forward:,}, receives "
        f"{ring.received.forward:,}; to one other {ring.per_link.forward:,}",
        f"           backward: a rank sends {ring.sent.backward:,}, receives "
        f"{ring.received.backward:,}; to one other {ring.per_link.backward:,}",
        f"           (most of any rank, over {over} ranks)",
        *(f"transport  {_way(way)}" for way in ring.transports),
    ]


def _way(way: Transport) -> str:
    both = ("p2p", way.p2p), ("symmetric", way.symmetric)
    times = ", ".join(f"{name} {duration(x)}" for name, x in both if x is not None)
    exchange = way.exchange
    return f"{exchange.label} by {way.chosen}: at most {amount(exchange.nbytes)} at once, {times}"


def _time(plan: Plan) -> list[str]:
    step = plan.ring.step
    if step is None:
        return [f"time       unknown: {plan.untimed}"]
    bound = step.is_bound
    parts = {
        "forward": step.forward,
        "backward": step.backward,
        "waiting for rows, forward": step.exposed_forward,
        "waiting for rows, backward": step.exposed_backward,
    }
    shares = [f"{name} {duration(x)} ({x / step.total:.0%})" for name, x in parts.items() if x]
    lines = [f"time       {'at least ' if bound else ''}{duration(step.total)} a step"]
    lines += [f"           {share}" for share in shares]
    assert plan.rates is not None
    lines.append(
        f"           GPU time at the rates of the backend {plan.rates.backend} on one "
        f"{plan.rates.device}"
    )
    if bound:
        lines.append(
            "           (pairs at their least: no timed kernels take a ring's rows cut like this)"
        )
    if plan.gpu.note is not None:
        lines.append(f"           {plan.gpu.note}")
    return lines


def _table(plan: Plan) -> list[str]:
    head = f"{'R':>6} {'memory':>9} {'fits':>5} {'sent fwd':>9} {'sent bwd':>9} {'step':>12}"
    lines = [head]
    for ring in plan.rings:
        mark = ">= " if ring.step is not None and ring.step.is_bound else ""
        step = "-" if ring.step is None else mark + duration(ring.step.total)
        cells = (
            f"{ring.ring_size:>6}",
            f"{amount(ring.memory.peak):>9}",
            f"{'yes' if ring.fits else 'no':>5}",
            f"{amount(ring.sent.forward):>9}",
            f"{amount(ring.sent.backward):>9}",
            f"{step:>12}",
        )
        lines.append(" ".join(cells))
    return lines
