"""`dilated-attention verify`."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .pool import RankFailedError, RankPool
from .rank import Rank
from .verify_checks import Row
from .verify_ranks import VerifySettings, check_rank

_ROWS_PER_RANK = 1024
# So many that the tiles a kernel works on are small beside the rows.
_MEMORY_ROWS_PER_RANK = 16_384


def verify(
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes to start here, where torchrun has not: 4, or the GPUs."
        ),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Sequence length; 1024 for each rank.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds after which a silent rank has failed.")
    ] = 60.0,
) -> None:
    """Check this machine or, under torchrun, this cluster: a table of PASS and FAIL.

    Every rank hears every other; on rings of 1, 2, 4, ... ranks random rows of out, lse and the
    gradients agree with the definition in float64, and all rows with one device; deterministic
    results are equal to the bit; no rank holds all keys. Bandwidth and memory are measured. Exits
    with 1 where a check fails, on every rank.
    """
    console = Console()
    try:
        if dist.is_torchelastic_launched():
            if ranks is not None:
                raise typer.BadParameter("torchrun decides it", param_hint="--ranks")
            rows, title, speaks = _under_torchrun(length, timeout)
        else:
            rows, title = _alone(ranks, length, timeout)
            speaks = True
    except KeyboardInterrupt:
        console.print("interrupted; every process has ended")
        raise typer.Exit(130) from None
    except RankFailedError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    if speaks:
        _print(rows, title, console)
    raise typer.Exit(1 if any(row.passed is False for row in rows) else 0)


def _settings(length: int | None, timeout: float, size: int) -> VerifySettings:
    return VerifySettings(length or _ROWS_PER_RANK * size, _MEMORY_ROWS_PER_RANK * size, timeout)


def _alone(ranks: int | None, length: int | None, timeout: float) -> tuple[list[Row], str]:
    """Start processes on this machine."""
    gpus = torch.cuda.device_count()
    size = ranks or (gpus if gpus > 1 else 4)
    with (
        tempfile.TemporaryDirectory(prefix="dilated-attention-") as folder,
        RankPool(size, (size,), Path(folder)) as pool,
    ):
        pool.start()
        rows = pool.run(check_rank, size, _settings(length, timeout, size))[0]
        return rows, f"{size} processes of this machine, {pool.backend}"


def _under_torchrun(length: int | None, timeout: float) -> tuple[list[Row], str, bool]:
    """Be one of torchrun's processes; the last value says whether it is the one that prints."""
    local, neighbours = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    device, backend, gpus = torch.device("cpu"), "gloo", torch.cuda.device_count()
    # NCCL refuses two ranks of one GPU unless it is told otherwise.
    if gpus >= neighbours or (gpus and os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"):
        device, backend = torch.device("cuda", local % gpus), "nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    assert dist.group.WORLD is not None
    rank = Rank(dist.group.WORLD, device, lambda value: None)
    size, first = rank.ring_size, rank.index == 0
    rows = check_rank(rank, _settings(length, timeout, size))
    # After a failure a rank may be gone, and a goodbye would wait for it.
    if all(row.passed is not False for row in rows):
        dist.destroy_process_group()
    return rows, f"{size} ranks, {backend}", first


def _print(rows: list[Row], title: str, console: Console) -> None:
    table = Table("check", "R", "measured", "expected", "", title=f"verify: {title}")
    verdicts = {True: "[green]PASS", False: "[bold red]FAIL", None: "[dim]measured"}
    for row in rows:
        # What was measured may hold the words of an error, which are no markup.
        cells = (escape(x) for x in (row.check, row.ring, row.measured, row.limit))
        table.add_row(*cells, verdicts[row.passed])
    console.print(table)
    judged = [row.passed for row in rows if row.passed is not None]
    failed = judged.count(False)
    if failed:
        console.print(f"FAIL: {failed} of {len(judged)} checks", style="bold red")
    else:
        console.print(f"PASS: {len(judged)} checks", style="bold green")
