"""Peak bytes of each rank of a ring, measured in real processes, beside the closed forms.

`python -m benchmarks.memory_per_rank` writes benchmarks/results/memory_per_rank.json and prints its
table. Counts live tensor storage on the CPU: inputs, receive buffers, saved tensors, gradients and
temporaries of one forward and backward. Needs no GPU; two cores take two minutes.
"""

from __future__ import annotations

import json
import platform
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dilated_attention_pytorch import DilationPattern, cost, ring_dilated_attention
from dilated_attention_pytorch.cli.memory_meter import MemoryMeter
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import Problem

from .memory_table import table

N, HEADS, HEAD_DIM = 65_536, 4, 32
SEGMENTS, RATES = (1024, 8192, 65_536), (1, 8, 64)
RING_SIZES = (1, 2, 4, 8)
LAYOUTS = ("sharded", "replicated")
RESULT = Path(__file__).parent / "results" / "memory_per_rank.json"


def _measure(layout: str) -> int:
    """This rank's peak; with `replicated` it passes its own rows of k and v."""
    pattern = DilationPattern.longnet(SEGMENTS, RATES)
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.group.WORLD
    rows = len(range(N)[rank * N // size : (rank + 1) * N // size])
    with MemoryMeter() as meter:
        query_rows = rows if layout == "sharded" else N
        inputs = [
            torch.randn(1, length, HEADS, HEAD_DIM).requires_grad_()
            for length in (query_rows, rows, rows)
        ]
        # One rank computes by the kernels of the others: rings have them alone.
        out = ring_dilated_attention(*inputs, pattern, group=group, layout=layout, backend="eager")
        out.backward(torch.ones_like(out))
    return meter.peak


@contextmanager
def joined(rank: int, size: int, port: int) -> Iterator[dist.ProcessGroup]:
    """Be one of `size` processes of this machine, over Gloo."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=size,
        timeout=timedelta(minutes=10),
    )
    assert dist.group.WORLD is not None
    yield dist.group.WORLD
    dist.destroy_process_group()


def _rank(rank: int, size: int, port: int, folder: str) -> None:
    with joined(rank, size, port):
        found = {layout: _measure(layout) for layout in LAYOUTS}
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(size: int, folder: Path) -> dict[str, Any]:
    """Peaks of all ranks of a ring of `size` processes, and the closed forms."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.spawn(_rank, args=(size, free_port(), str(folder)), nprocs=size)
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]
    problem = Problem(DilationPattern.longnet(SEGMENTS, RATES), N, HEADS, HEADS)
    layout = make_layout(N, size)
    shape = {"batch": 1, "head_dim": HEAD_DIM, "itemsize": 4}
    planned = {
        "closed_form_sharded": cost.rank_memory,
        "closed_form_replicated": cost.replicated_memory,
    }
    return {
        "ring_size": size,
        **{
            name: max(formula(problem, layout, rank, **shape) for rank in range(size))
            for name, formula in planned.items()
        },
        **{layout: [found[layout] for found in ranks] for layout in LAYOUTS},
    }


def main() -> None:
    """Measure, write and print."""
    import tempfile

    sizes = [int(x) for x in sys.argv[1:]] or list(RING_SIZES)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(size, Path(folder, str(size))) for size in sizes]
    result = {
        "case": {"n": N, "heads": HEADS, "head_dim": HEAD_DIM, "dtype": "float32"}
        | {"segment_lengths": SEGMENTS, "dilation_rates": RATES},
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
