"""One case of `benchmarks.scaling` on one ring: checked, counted, then timed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from dilated_attention_oracle import tolerance
from dilated_attention_pytorch import cost, positions, ring_dilated_attention, shard
from dilated_attention_pytorch.bench import inputs, verify
from dilated_attention_pytorch.bench.candidate import AbsentError
from dilated_attention_pytorch.bench.machine import Call, Machine
from dilated_attention_pytorch.bench.timing import Effort
from dilated_attention_pytorch.cli.memory_meter import MemoryMeter
from dilated_attention_pytorch.comm import record_messages
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.plan import GPUS, NVLINK
from dilated_attention_pytorch.plan import Call as PlannedCall
from dilated_attention_pytorch.plan.planning import plan_ring

from .scaling_cases import Scaled
from .scaling_peer import context_parallel_calls

ARRAYS: Final = ("out", "lse", "dq", "dk", "dv")
# Forward + backward does 3.5 times the FLOPs of the forward.
_KINDS: Final = {"forward": 1.0, "forward_backward": 3.5}
_MOST_CALLS: Final = 100


@dataclass(frozen=True, slots=True)
class Ring:
    """This process's place in a ring.

    Args:
        group: moves rows.
        side: moves Python objects between the same ranks, over Gloo.
        machine: timer of this process's device.
    """

    group: dist.ProcessGroup
    side: dist.ProcessGroup
    machine: Machine

    @property
    def rank(self) -> int:
        """This process's rank."""
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        """R."""
        return dist.get_world_size(self.group)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.side)
        return found


class _Calls:
    """The calls of this rank, on its own rows of the case's inputs."""

    def __init__(self, scaled: Scaled, ring: Ring, drawn: inputs.Inputs) -> None:
        self._scaled, self._ring = scaled, ring
        tensors = (drawn.query, drawn.key, drawn.value, drawn.dout)
        # A ring of one rank owns the tensors themselves.
        own = (shard(x, group=ring.group, order=scaled.order).clone() for x in tensors)
        self.query, self.key, self.value, self.dout = own
        self.leaves = [x.detach().requires_grad_() for x in (self.query, self.key, self.value)]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        return ring_dilated_attention(
            query,
            key,
            value,
            self._scaled.case.pattern,
            group=self._ring.group,
            order=self._scaled.order,
            is_causal=self._scaled.case.is_causal,
            **options,
        )

    def forward(self) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.attend(self.query, self.key, self.value)
            return out

    def forward_backward(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.attend(*self.leaves), self.leaves, self.dout)

    def values(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """(own rows of every array, bytes that this rank sent in each direction of the call)."""
        with record_messages() as sent:
            out, lse = self.attend(*self.leaves, return_lse=True)
        with record_messages() as sent_back:
            gradients = torch.autograd.grad(out, self.leaves, self.dout)
        named = zip(ARRAYS, (out.detach(), lse.detach(), *gradients), strict=True)
        moved = {"forward": sent, "backward": sent_back}
        return dict(named), {name: sum(m.nbytes for m in found) for name, found in moved.items()}


def measure(scaled: Scaled, ring: Ring, effort: Effort) -> dict[str, Any]:
    """All figures of one case, on every rank alike.

    Returns:
        The case's description, `share_of_budget` of sampled rows, `bytes_sent` of each rank beside
        `bytes_planned`, `peak_bytes` of each rank beside `planned_peak_bytes`, `forward` and
        `forward_backward` with the milliseconds of the slowest rank, `predicted_ms`, and for the
        dense case `context_parallel`. Where rows or bytes are wrong: `wrong`, and no times.
    """
    case, device = scaled.case, ring.machine.device
    before = _allocated(device)
    drawn = inputs.draw(case, device)
    samples = verify.sample(case, drawn) if ring.rank == 0 else None
    samples = ring.gather(samples)[0]
    calls = _Calls(scaled, ring, drawn)
    dense = drawn if scaled.kind == "dense" else None
    del drawn
    result = _description(scaled)
    values, sent = calls.values()
    result |= _bytes(scaled, ring, sent)
    try:
        result["share_of_budget"] = _judge(scaled, ring, samples, values)
    except verify.WrongResultError as error:
        result["wrong"] = str(error)
    del values
    if "wrong" in result:
        return result
    kept = 0 if dense is None else 4 * dense.query.nbytes
    result["peak_bytes"] = ring.gather(_peak(calls, device, before + kept))
    result |= _time(_named(calls), scaled, ring, effort)
    result |= _planned(scaled, device)
    if dense is not None:
        result["context_parallel"] = _peer(scaled, ring, dense, effort)
    ring.machine.clear()
    return result


def _named(calls: _Calls) -> dict[str, Call]:
    return {"forward": calls.forward, "forward_backward": calls.forward_backward}


def _bytes(scaled: Scaled, ring: Ring, sent: dict[str, int]) -> dict[str, Any]:
    """What every rank sent, and what the closed form says; `wrong` where they differ."""
    case = scaled.case
    layout = make_layout(case.n, ring.size, scaled.order)
    shape = {"batch": 1, "head_dim": case.head_dim, "itemsize": case.dtype.itemsize}
    traffic = cost.rank_traffic(case.problem, layout, ring.rank, replicated=False, **shape)
    planned = {"forward": traffic.forward, "backward": traffic.backward}
    told = ring.gather((sent, planned))
    found: dict[str, Any] = {
        name: {way: [rank[i][way] for rank in told] for way in sent}
        for i, name in enumerate(("bytes_sent", "bytes_planned"))
    }
    if found["bytes_sent"] != found["bytes_planned"]:
        found["wrong"] = f"bytes sent {found['bytes_sent']}, planned {found['bytes_planned']}"
    return found


def _judge(
    scaled: Scaled, ring: Ring, samples: verify.Samples, values: Mapping[str, Tensor]
) -> dict[str, float]:
    """Largest share of the tolerance that the sampled rows use; every rank finds the same.

    Raises:
        WrongResultError: a row is outside its bound, or some entry of some rank is not finite.
    """
    rows = positions(scaled.case.n, group=ring.group, order=scaled.order)
    place = {position: i for i, position in enumerate(rows.tolist())}
    mine: dict[int, dict[str, Tensor]] = {
        number: {name: x[0, place[p], head].double().cpu() for name, x in values.items()}
        for number, (p, head) in enumerate(samples.places)
        if p in place
    }
    # A row of lse that sees no key is -inf; every other array is finite.
    finite = all(
        bool(x.sum(dtype=torch.float32).isfinite()) for name, x in values.items() if name != "lse"
    )
    told = ring.gather((finite, mine))
    strange = [rank for rank, (fine, _) in enumerate(told) if not fine]
    if strange:
        raise verify.WrongResultError(f"{scaled.case.name}: not finite on ranks {strange}")
    found = {number: row for _, rows_of in told for number, row in rows_of.items()}
    numbers = range(len(samples.places))
    gathered = {
        name: torch.stack([found[number][name] for number in numbers])[None, :, None]
        for name in values
    }
    renumbered = verify.Samples(tuple((i, 0) for i in numbers), samples.exact, samples.naive)
    return verify.verify(scaled.case, renumbered, gathered, tolerance)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak(calls: _Calls, device: torch.device, before: int) -> int:
    """Most bytes alive at once in a forward and backward, this rank's inputs included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        calls.forward_backward()
        torch.cuda.synchronize(device)
        peak: int = torch.cuda.max_memory_allocated(device) - before
        return peak
    with MemoryMeter() as meter:
        meter.track(calls.query, calls.key, calls.value, calls.dout)
        calls.forward_backward()
    return meter.peak


def _time(
    calls: Mapping[str, Call], scaled: Scaled, ring: Ring, effort: Effort
) -> dict[str, dict[str, float]]:
    """Median milliseconds of the slowest rank, and TFLOP/s of a rank, by name of the call."""
    found = {}
    for name, call in calls.items():
        for _ in range(2):
            call()
        once = max(ring.gather(ring.machine.milliseconds(call, 1)[0])) / 1e3
        # All ranks make the same number of calls.
        times = min(max(3, round(effort.seconds / max(once, 1e-6))), _MOST_CALLS)
        told = ring.gather(statistics.median(ring.machine.milliseconds(call, times)))
        slowest = max(told)
        rate = scaled.case.flops * _KINDS[name] / slowest / 1e9 / ring.size
        found[name] = {
            "ms": round(slowest, 4),
            "ms_fastest_rank": round(min(told), 4),
            "samples": times,
            "tflops_per_rank": float(f"{rate:.4g}"),
        }
    return found


def _planned(scaled: Scaled, device: torch.device) -> dict[str, Any]:
    """What `dilated-attention plan` says of the same call on contiguous shards."""
    case = scaled.case
    call = PlannedCall(
        case.pattern,
        case.n,
        case.heads,
        case.heads,
        case.head_dim,
        case.dtype_name,
        is_causal=case.is_causal,
    )
    # Times are those of an H200 whatever the GPU is called here; a CPU has none.
    ring = plan_ring(call, scaled.ring_size, GPUS["h200"], NVLINK)
    step = ring.step if device.type == "cuda" else None
    predicted = None
    if step is not None:
        forward = step.forward + step.exposed_forward
        predicted = {"forward": forward * 1e3, "forward_backward": step.total * 1e3}
    return {"planned_peak_bytes": ring.memory.peak, "predicted_ms": predicted}


def _peer(scaled: Scaled, ring: Ring, dense: inputs.Inputs, effort: Effort) -> dict[str, Any]:
    try:
        with context_parallel_calls(dense, ring.group) as calls:
            return _time(calls, scaled, ring, effort)
    except AbsentError as error:
        return {"absent": str(error)}


def _description(scaled: Scaled) -> dict[str, Any]:
    case = scaled.case
    return {
        "case": case.name,
        "kind": scaled.kind,
        "ring_size": scaled.ring_size,
        "n": case.n,
        "heads": case.heads,
        "head_dim": case.head_dim,
        "dtype": case.dtype_name,
        "is_causal": case.is_causal,
        "order": scaled.order,
        "segment_lengths": [b.segment_length for b in case.pattern.branches],
        "dilation_rates": [b.dilation_rate for b in case.pattern.branches],
        "flops_forward": case.flops,
    }
