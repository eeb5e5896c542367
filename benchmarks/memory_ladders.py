"""Peak bytes of one rank for the LongNet and the LongViT ladder, R up to 64, beside the formulae.

`python -m benchmarks.memory_ladders` writes benchmarks/results/memory_ladders.json and the table of
docs/theory/cost.md; `nox -s figures` draws the figure from it. One process runs one rank of R: its
messages go nowhere and zeros arrive, but it plans, posts, holds and computes as a rank among R
does. Rings of 2 and 4 real processes are measured as well. Of the tiles of a run one of each shape
is computed: the bytes follow from the shapes. `sharded` is measured twice: as over Gloo, where
message buffers come and go, and in a second step that keeps them, as over NCCL. Needs no GPU; one
core takes three minutes.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Registers the backend `fake`.
import torch.testing._internal.distributed.fake_pg
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]

from dilated_attention_pytorch import DilationPattern, cost, ring_dilated_attention
from dilated_attention_pytorch.cli.memory_meter import MemoryMeter
from dilated_attention_pytorch.comm import Workspace
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.comm.transports import state_of
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.plan.memory import ring_rank
from dilated_attention_pytorch.ring import packing
from dilated_attention_pytorch.schedule import Problem, Run

from . import markers, memory_per_rank

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/memory_ladders.json"
PAGE = ROOT / "docs/theory/cost.md"
N, HEADS, HEAD_DIM, ITEMSIZE = 65_536, 4, 32, 4
LADDERS = {
    "LongNet": DilationPattern.longnet([2048 << i for i in range(6)], [1 << i for i in range(6)]),
    "LongViT": DilationPattern.preset("longvit", exact=True),
}
RING_SIZES = (1, 2, 4, 8, 16, 32, 64)
PROCESSES = (2, 4)
LAYOUTS = ("sharded", "replicated")
SHAPE: dict[str, Any] = {"batch": 1, "head_dim": HEAD_DIM, "itemsize": ITEMSIZE}
# The constant c of the ladders, in arrays of n / R rows of one of q, k, v; `cost.rank_memory` is
# that of any pattern. Kept buffers are there while tiles are computed.
SHARES = {"sharded": 11, "sharded_kept": 18, "replicated": 7}
MIB = 2**20

Attend = Callable[..., Tensor]


@contextmanager
def one_rank_of(size: int, rank: int) -> Iterator[dist.ProcessGroup]:
    """A group of `size` whose other ranks do not exist: what they would send arrives as zeros."""
    original = ProcessGroupCommunicator.exchange

    def exchange(comm: Any, label: str, sends: Any, receives: Any) -> Any:
        work = original(comm, label, sends, receives)
        for _, buffer in receives:
            buffer.zero_()
        return work

    dist.init_process_group("fake", rank=rank, world_size=size, store=HashStore())
    ProcessGroupCommunicator.exchange = exchange  # type: ignore[method-assign, assignment]
    try:
        assert dist.group.WORLD is not None
        yield dist.group.WORLD
    finally:
        ProcessGroupCommunicator.exchange = original  # type: ignore[method-assign]
        dist.destroy_process_group()


@contextmanager
def one_tile_of_each_shape() -> Iterator[None]:
    """Skip a run's other tiles: they would use the same bytes again, for hours."""
    original = Run.tiles

    def tiles(run: Run, block: int) -> Iterator[Run]:
        seen = set()
        for tile in original(run, block):
            shape = len(tile.query), len(tile.key), tile.masked
            if shape not in seen:
                seen.add(shape)
                yield tile

    Run.tiles = tiles  # type: ignore[method-assign]
    try:
        yield
    finally:
        Run.tiles = original  # type: ignore[method-assign]


@contextmanager
def workspace(group: dist.ProcessGroup, *, keep: bool) -> Iterator[Workspace]:
    """Give a group's messages other buffers."""
    state = state_of(group)
    before, state.workspace = state.workspace, Workspace(keep=keep)
    try:
        yield state.workspace
    finally:
        state.workspace = before


def peak(
    pattern: DilationPattern,
    layout: str,
    group: dist.ProcessGroup,
    attend: Attend = ring_dilated_attention,
    n: int = N,
    *,
    kept: bool = False,
) -> int:
    """Most bytes alive at once on this rank in one forward and backward, inputs included.

    With `kept` in a second step that finds the message buffers of the first.
    """
    rows = n // dist.get_world_size(group)
    # A measurement before this one may have left them: they count.
    for tables in (packing._places, packing._gathered_places):
        tables.cache_clear()
    with workspace(group, keep=kept), one_tile_of_each_shape(), MemoryMeter() as meter:
        inputs = [
            torch.ones(1, length, HEADS, HEAD_DIM, requires_grad=True)
            for length in (rows if layout == "sharded" else n, rows, rows)
        ]
        for _ in range(2 if kept else 1):
            meter.reset_peak()
            # One rank computes by the kernels of the others: rings have them alone.
            out = attend(*inputs, pattern, group=group, layout=layout, backend="eager")
            out.backward(torch.ones_like(out))
            del out
            for x in inputs:
                x.grad = None
        return meter.peak


def tile_bytes() -> int:
    """Temporaries of the largest tile, whatever n and R: four score matrices, operands, sums."""
    return HEADS * eager.BLOCK * (4 * eager.BLOCK + 2 * HEAD_DIM + 4) * 4


def limit(layout: str, ring_size: int, n: int = N) -> int:
    """What no rank may exceed on these ladders.

    sharded, and sharded_kept where buffers are kept: `c n / R + tile`, c = `SHARES[layout]` arrays
    of one row. replicated: q, out, dout, dq and four numbers a row and head are whole; the rest is
    `SHARES["replicated"]` arrays of n / R rows, and a tile.
    """
    row = HEADS * HEAD_DIM * ITEMSIZE
    whole = n * (4 * row + 4 * HEADS * 4) if layout == "replicated" else 0
    return whole + SHARES[layout] * row * n // ring_size + tile_bytes()


def busiest(problem: Problem, ring_size: int, *, keep: bool) -> tuple[int, int]:
    """The rank that holds most by the plan, and how much that is."""
    layout = make_layout(problem.n, ring_size)
    held = [ring_rank(problem, layout, r, **SHAPE, keep=keep).peak for r in range(ring_size)]
    return held.index(max(held)), max(held)


def measure(ladder: str, ring_size: int) -> dict[str, Any]:
    """One row: both layouts' peaks on the busiest rank, the formulae, and the limits."""
    pattern = LADDERS[ladder]
    problem, split = Problem(pattern, N, HEADS, HEADS), make_layout(N, ring_size)
    rank, planned = busiest(problem, ring_size, keep=False)
    row: dict[str, Any] = {"ladder": ladder, "ring_size": ring_size, "rank": rank}
    for layout in LAYOUTS:
        with one_rank_of(ring_size, rank) as group:
            row[layout] = peak(pattern, layout, group)
    row["closed_form_sharded"] = cost.rank_memory(problem, split, rank, **SHAPE)
    row["closed_form_replicated"] = cost.replicated_memory(problem, split, rank, **SHAPE)
    row["planned_sharded"] = planned
    row["rank_kept"], row["planned_sharded_kept"] = busiest(problem, ring_size, keep=True)
    with one_rank_of(ring_size, row["rank_kept"]) as group:
        row["sharded_kept"] = peak(pattern, "sharded", group, kept=True)
    return row


def _rank(rank: int, size: int, port: int, folder: str) -> None:
    with memory_per_rank.joined(rank, size, port) as group:
        found = {
            ladder: {layout: peak(pattern, layout, group) for layout in LAYOUTS}
            | {"sharded_kept": peak(pattern, "sharded", group, kept=True)}
            for ladder, pattern in LADDERS.items()
        }
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def measure_processes(size: int) -> list[dict[str, Any]]:
    """Peaks of every rank of a ring of real processes."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (size, memory_per_rank.free_port(), folder)
        torch.multiprocessing.spawn(_rank, args=arguments, nprocs=size)
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]
    return [
        {"ladder": ladder, "ring_size": size}
        | {name: [found[ladder][name] for found in ranks] for name in (*LAYOUTS, "sharded_kept")}
        for ladder in LADDERS
    ]


def table(report: dict[str, Any]) -> str:
    """MiB of the busiest rank: measured, and what the formulae say."""
    lines = [
        "| ladder | R | sharded | planned | closed form, tiles apart | limit c·n/R + tile "
        "| buffers kept, second step | planned | limit "
        "| replicated | closed form, tiles apart | limit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = ("planned_sharded", "closed_form_sharded")
    for row in report["rows"]:
        size = row["ring_size"]
        values = (
            row["sharded"],
            *(row[name] for name in names),
            limit("sharded", size),
            row["sharded_kept"],
            row["planned_sharded_kept"],
            limit("sharded_kept", size),
            row["replicated"],
            row["closed_form_replicated"],
            limit("replicated", size),
        )
        cells = (f"{value / MIB:.1f}" for value in values)
        lines.append(f"| {row['ladder']} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def render(page: str, report: dict[str, Any]) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: a marker is missing.
    """
    return markers.fill(page, {"memory-ladders": table(report)})


def load() -> dict[str, Any]:
    """The committed result."""
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Measure, write and print."""
    torch.set_num_threads(1)
    sizes = [int(x) for x in sys.argv[1:]] or list(RING_SIZES)
    rows = []
    for ladder in LADDERS:
        for size in sizes:
            rows.append(measure(ladder, size))
            print(rows[-1], flush=True)
    report = {
        "case": {"n": N, "heads": HEADS, "head_dim": HEAD_DIM, "dtype": "float32"},
        "shares": SHARES,
        "tile_bytes": tile_bytes(),
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
        "rows": rows,
        "processes": [row for size in PROCESSES for row in measure_processes(size)],
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()
