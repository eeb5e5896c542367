"""Peak attention memory of each rank of a ring, measured in real Gloo processes.

`python tests/support/ring_memory.py` prints the table of the migration guide. With `--rank` the
same file is one rank's program and prints its peaks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

LENGTH = 8192
HEADS, HEAD_DIM = 2, 64
# The second branch spans the whole sequence, so every rank needs rows of every other.
SEGMENT_LENGTHS, DILATION_RATES = (512, LENGTH), (1, 8)
SIZES = (1, 2, 4)
TIMEOUT = 120.0
KINDS = ("sharded", "replicated", "historical")


def _attention(kind: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if kind == "historical":
        import dilated_attention_compat as compat

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
            attention = compat.load(compat.require("RingDilatedAttention"))(
                SEGMENT_LENGTHS, DILATION_RATES, ring_size=dist.get_world_size()
            )
        return attention

    from dilated_attention_pytorch import DilationPattern, ring_dilated_attention

    pattern = DilationPattern.longnet(SEGMENT_LENGTHS, DILATION_RATES)
    return lambda query, key, value: ring_dilated_attention(
        query, key, value, pattern, group=dist.group.WORLD, layout=kind
    )


def _measure(kind: str) -> int:
    """Return this rank's peak bytes over one forward and backward."""
    from memory_meter import MemoryMeter

    rows = LENGTH // dist.get_world_size() if kind == "sharded" else LENGTH
    attend = _attention(kind)
    with MemoryMeter() as meter, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        inputs = [torch.randn(1, rows, HEADS, HEAD_DIM).requires_grad_() for _ in range(3)]
        out = attend(*inputs)
        out.backward(torch.ones_like(out))
    assert all(x.grad is not None for x in inputs)
    return meter.peak


def share_bytes(size: int) -> int:
    """Return the bytes of one rank's share of q when `size` ranks divide it."""
    return LENGTH // size * HEADS * HEAD_DIM * torch.float32.itemsize


def _run_rank(rank: int, size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=TIMEOUT),
    )
    print(json.dumps({kind: _measure(kind) for kind in KINDS}))
    dist.destroy_process_group()


def peaks(size: int) -> dict[str, list[int]]:
    """Return the peak bytes of every rank of a ring of `size` processes, by kind.

    The kinds are the layouts `sharded` and `replicated` of `ring_dilated_attention`, and
    `historical`, the deprecated class.

    Raises:
        RuntimeError: A rank failed; the message is what it wrote to its standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--store", str(Path(folder) / "store")]
        ranks = [
            subprocess.Popen(
                [*command, "--size", str(size), "--rank", str(rank)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        try:
            done = [(*process.communicate(timeout=TIMEOUT), process) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
                process.wait()
    for rank, (_, errors, process) in enumerate(done):
        if process.returncode:
            raise RuntimeError(f"rank {rank} of {size} failed:\n{errors}")
    found = [json.loads(output) for output, _, _ in done]
    return {kind: [rank[kind] for rank in found] for kind in KINDS}


def table(found: Mapping[int, Mapping[str, Sequence[int]]]) -> str:
    """Return the peaks as a Markdown table, in MiB of the worst rank.

    Args:
        found: What `peaks` returned, by ring size.
    """
    lines = [
        "| | " + " | ".join(f"R = {size}" for size in found) + " |",
        "|---" * (len(found) + 1) + "|",
    ]
    for kind in KINDS:
        worst = (max(found[size][kind]) / 2**20 for size in found)
        lines.append(f"| {kind} | " + " | ".join(f"{mib:.1f}" for mib in worst) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run one rank, or print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--store")
    arguments = parser.parse_args()
    if arguments.rank is None:
        print(table({size: peaks(size) for size in SIZES}))
    else:
        _run_rank(arguments.rank, arguments.size, arguments.store)


if __name__ == "__main__":
    main()
