"""Every transport of a ring on the GPUs of this machine, even a single one, beside one process.

`python -m benchmarks.shared_gpu OUT` runs rings of 2 and 3 processes over NCCL's sends and receives
(`p2p`), over symmetric memory (`symmetric`), and with the choice left to measured links (`auto`).
Ranks share GPUs where there are fewer: NCCL does that from 2.30 on, and PyTorch's symmetric memory
where it is told to. out, lse, dq, dk and dv of every rank are judged by the tolerance, against one
process in float64. `--gloo` runs on the CPU, to see that the suite works.

Times of a shared GPU say nothing, and none are taken.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from dilated_attention_oracle import tolerance
from dilated_attention_pytorch import (
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
    shard,
    unshard,
)
from dilated_attention_pytorch.bench.environment import environment
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.comm.transports import VARIABLE
from dilated_attention_pytorch.functional import measured_links

from .memory_per_rank import free_port
from .sharing import SHARING, nccl_version

ARRAYS: Final = ("out", "lse", "dq", "dk", "dv")
TRANSPORTS: Final = ("p2p", "symmetric", "auto")
RANKS: Final = (2, 3)
SECONDS: Final = 240
_TIMEOUT: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Case:
    """One call.

    Args:
        name: of the case.
        pattern: branches and offsets.
        n: global length.
        lengths: rows of each rank, by ring size; even where it is not there.
        options: of the ring function; `is_causal` of one process as well.
        masked: with a key mask.
        dtypes: in which it runs.
    """

    name: str
    pattern: DilationPattern
    n: int
    lengths: dict[int, list[int]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    masked: bool = False
    dtypes: tuple[str, ...] = ("bfloat16",)


def cases(unit: int) -> list[Case]:
    """All cases; `unit` is the length of the ladder's first segment."""
    n = 8 * unit
    ladder = DilationPattern.longnet([unit, 2 * unit, 4 * unit, n], [1, 2, 4, 8])
    dense = DilationPattern.longnet([n // 2], [1])
    odd = DilationPattern.longnet([unit - 3, n - 5], [1, 3])
    uneven = {2: [5 * unit - 11, 3 * unit + 6], 3: [unit, 4 * unit - 6, 3 * unit + 1]}
    causal = {"is_causal": True}
    both = ("bfloat16", "float32")
    return [
        Case("ladder", ladder, n, dtypes=both),
        Case("ladder, causal", ladder, n, options=causal, dtypes=both),
        Case("dense", dense, n // 2, dtypes=both),
        Case("dense, causal, zigzag", dense, n // 2, options={**causal, "order": "zigzag"}),
        Case("ragged shards", odd, n - 5, uneven, causal),
        Case("key mask", ladder, n, masked=True),
        Case("replicated", ladder, n, options={**causal, "layout": "replicated"}),
        Case("deterministic", odd, n - 5, uneven, {**causal, "deterministic": True}),
    ]


class _Run:
    """One rank of a ring, and what it makes of a case."""

    def __init__(
        self, group: dist.ProcessGroup, side: dist.ProcessGroup, device: torch.device
    ) -> None:
        self.group, self.side, self.device = group, side, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def inputs(self, case: Case, dtype: torch.dtype) -> tuple[list[Tensor], Tensor | None]:
        """query, key, value and dout of all rows, and the key mask; equal on every rank."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, case.n, 4, 64)
        drawn = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
        mask = torch.rand(1, case.n, generator=generator) > 0.2 if case.masked else None
        return [x.to(self.device) for x in drawn], None if mask is None else mask.to(self.device)

    def attend(self, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        """All rows of every array, on the CPU, after two steps of which the first is forgotten."""
        (query, key, value, dout), mask = self.inputs(case, dtype)
        lengths = case.lengths.get(self.size)
        cut = {"order": case.options.get("order", "contiguous"), "shard_lengths": lengths}
        whole = case.options.get("layout") == "replicated"

        def own(tensor: Tensor, *, all_rows: bool = False) -> Tensor:
            return tensor if all_rows else shard(tensor, group=self.group, **cut)

        leaves = [
            own(query, all_rows=whole).detach().requires_grad_(),
            *(own(x).detach().requires_grad_() for x in (key, value)),
        ]
        if mask is not None:
            mask = own(mask)
        out, lse = ring_dilated_attention(
            *leaves,
            case.pattern,
            group=self.group,
            shard_lengths=lengths,
            key_mask=mask,
            return_lse=True,
            **case.options,
        )
        gradients = torch.autograd.grad(out, leaves, own(dout, all_rows=whole))
        found = dict(zip(ARRAYS, (out.detach(), lse.detach(), *gradients), strict=True))
        kept = {"out", "lse", "dq"} if whole else set()
        return {
            name: (x if name in kept else unshard(x, group=self.group, **cut)).cpu()
            for name, x in found.items()
        }

    def expect(self, case: Case, dtype: torch.dtype, plain: torch.dtype) -> dict[str, Tensor]:
        """All rows by one process with the reference kernels, from the same rounded inputs."""
        (query, key, value, dout), mask = self.inputs(case, dtype)
        leaves = [x.to(plain).requires_grad_() for x in (query, key, value)]
        out, lse = dilated_attention(
            *leaves,
            case.pattern,
            is_causal=case.options.get("is_causal", False),
            key_mask=mask,
            backend="eager",
            return_lse=True,
        )
        gradients = torch.autograd.grad(out, leaves, dout.to(plain))
        named = zip(ARRAYS, (out.detach(), lse.detach(), *gradients), strict=True)
        return {name: x.cpu() for name, x in named}

    def judge(self, case: Case, kind: str) -> dict[str, Any]:
        """Shares of the tolerance, and how many message buffers a repeated step allocates."""
        dtype = getattr(torch, kind)
        workspace = ProcessGroupCommunicator(self.group).workspace
        first = self.attend(case, dtype)
        self.attend(case, dtype)
        made = workspace.made
        again = self.attend(case, dtype)
        result: dict[str, Any] = {
            "case": case.name,
            "dtype": kind,
            "repeats": all(torch.equal(first[name], again[name]) for name in ARRAYS),
            "buffers_made_by_third_step": workspace.made - made,
        }
        if self.rank:
            return result
        exact = self.expect(case, dtype, torch.float64)
        plain = self.expect(case, dtype, dtype)
        shares, wrong = {}, []
        for name in ARRAYS:
            arrays = (x[name].double().numpy() for x in (again, exact, plain))
            check: Callable[..., Any] = tolerance.check
            given: tuple[Any, ...] = (name, *arrays, kind)
            if name == "lse":
                check, given = tolerance.check_lse, given[1:]
            try:
                shares[name] = round(check(*given).share, 3)
            except AssertionError as error:
                wrong.append(str(error))
        digest = {name: float(again[name].double().sum()) for name in ARRAYS}
        return result | {"shares": shares, "wrong": wrong, "sums": digest}


def _rank(rank: int, size: int, port: int, arguments: argparse.Namespace, out: str) -> None:
    """One process: all cases, one after the other; the first that fails ends it."""
    rows: list[dict[str, Any]] = []

    def save(links: object = None) -> None:
        text = json.dumps({"rows": rows, "links": None if links is None else str(links)})
        Path(out, f"{rank}.json").write_text(text, encoding="utf-8")

    faulthandler.dump_traceback_later(0.9 * SECONDS)
    try:
        torch.set_num_threads(1)
        device, backend = torch.device("cpu"), "gloo"
        if not arguments.gloo:
            device, backend = torch.device("cuda", rank % torch.cuda.device_count()), "nccl"
            torch.cuda.set_device(device)
        dist.init_process_group(
            backend,
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=size,
            timeout=_TIMEOUT,
        )
        side = dist.new_group(backend="gloo", timeout=timedelta(seconds=SECONDS))
        assert dist.group.WORLD is not None
        run = _Run(dist.group.WORLD, side, device)
        for case in cases(64 if arguments.gloo else 1024):
            for kind in case.dtypes:
                rows.append(run.judge(case, kind))
                save()
                if rank == 0:
                    print(f"R = {size}: {case.name}, {kind}", flush=True)
        save(measured_links(run.group))
        dist.barrier(side)
        dist.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()
    except Exception:
        rows.append({"case": "", "dtype": "", "wrong": [traceback.format_exc()], "shares": {}})
        save()


def run_ring(size: int, transport: str, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run one ring in processes of its own, and end them."""
    out.mkdir(parents=True)
    os.environ[VARIABLE] = transport
    context = multiprocessing.get_context("spawn")
    port = free_port()
    processes = [
        context.Process(target=_rank, args=(rank, size, port, arguments, str(out)))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        process.kill()
        process.join()
    found: dict[str, Any] = {"ranks": size, "transport": transport, "rows": [], "links": None}
    for rank in reversed(range(size)):
        path, code = out / f"{rank}.json", processes[rank].exitcode
        if code:
            words = f"rank {rank} ended with exit code {code} (-9: it was late)"
            found["rows"].append({"case": "", "wrong": [words]})
        if not path.exists():
            continue
        told = json.loads(path.read_text(encoding="utf-8"))
        wrong = [row for row in told["rows"] if row.get("wrong")]
        found["rows"] += told["rows"] if rank == 0 else wrong
        found["links"] = told["links"]
    return found


def _print(ring: dict[str, Any]) -> None:
    print(f"\nR = {ring['ranks']}, {ring['transport']}; links {ring['links']}")
    for row in ring["rows"]:
        verdict = "FAIL" if row["wrong"] else "PASS"
        shares = " ".join(f"{name} {share:.2f}" for name, share in row.get("shares", {}).items())
        print(
            f"  {verdict}  {row['case']:<24} {row.get('dtype', ''):<9} {shares}  repeats "
            f"{row.get('repeats')}, buffers made by a third step "
            f"{row.get('buffers_made_by_third_step')}"
        )
        for words in row["wrong"]:
            print("        " + words.replace("\n", "\n        "))


def main() -> int:
    """Run all rings, write OUT and print the table; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--gloo", action="store_true", help="on the CPU, small, p2p alone")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=None)
    arguments = parser.parse_args()
    ways = arguments.transports or (TRANSPORTS[:1] if arguments.gloo else TRANSPORTS)
    os.environ |= SHARING
    import tempfile

    rings = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.ranks:
            for transport in ways:
                rings.append(
                    run_ring(size, transport, arguments, Path(folder, f"{size}{transport}"))
                )
                _print(rings[-1])
                report = {"environment": _environment(arguments.gloo), "rings": rings}
                arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = sum(bool(row["wrong"]) for ring in rings for row in ring["rows"])
    print(f"\n{'FAIL' if wrong else 'PASS'}: {wrong} wrong of {sum(len(r['rows']) for r in rings)}")
    return 1 if wrong else 0


def _environment(gloo: bool) -> dict[str, str]:
    if gloo:
        return environment(torch.device("cpu"))
    return environment(torch.device("cuda")) | {
        "nccl": nccl_version(),
        "gpus": str(torch.cuda.device_count()),
    }


if __name__ == "__main__":
    raise SystemExit(main())
