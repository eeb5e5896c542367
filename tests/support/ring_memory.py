"""Peak attention memory of each rank of a ring, measured in real Gloo processes.

`python tests/support/ring_memory.py` prints the table of the migration guide, and with `--json` all
peaks. Ranks are forked, so that torch is imported once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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


def _rank(rank: int, size: int, store: str) -> dict[str, int]:
    """Return the peak bytes of one rank, by kind."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=TIMEOUT),
    )
    found = {kind: _measure(kind) for kind in KINDS}
    dist.destroy_process_group()
    return found


def _ring(size: int) -> dict[str, list[int]]:
    """Return the peak bytes of every rank of a ring of `size` processes, by kind."""
    context = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(size, mp_context=context) as pool,
    ):
        store = str(Path(folder) / "store")
        found = list(pool.map(_rank, range(size), [size] * size, [store] * size))
    return {kind: [rank[kind] for rank in found] for kind in KINDS}


def peaks() -> dict[int, dict[str, list[int]]]:
    """Return the peak bytes of every rank, by ring size and kind.

    The kinds are the layouts `sharded` and `replicated` of `ring_dilated_attention`, and
    `historical`, the deprecated class. A process of its own forks the ranks: this one may have
    threads.

    Raises:
        RuntimeError: A rank failed; the message is what was written to the standard error.
    """
    done = subprocess.run(
        [sys.executable, __file__, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"the measurement failed:\n{done.stderr}")
    return {int(size): kinds for size, kinds in json.loads(done.stdout).items()}


def table(found: Mapping[int, Mapping[str, Sequence[int]]]) -> str:
    """Return the peaks as a Markdown table, in MiB of the worst rank.

    Args:
        found: What `peaks` returned.
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
    """Print the table, or all peaks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="all peaks, in bytes")
    arguments = parser.parse_args()
    found = {size: _ring(size) for size in SIZES}
    print(json.dumps(found) if arguments.json else table(found))


if __name__ == "__main__":
    main()
