"""`dilated-attention plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..pattern import DilationPattern
from ..plan import GPUS, NVLINK, Call, as_json, as_text, plan_call
from .plan_figure import draw


def _numbers(text: str | None, name: str) -> list[int]:
    """`1024,4096` as ints."""
    try:
        return [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(
            f"expected numbers with commas between them, got {text!r}", param_hint=name
        ) from None


def _pattern(
    preset: str | None, rule: str, segment_lengths: str | None, dilation_rates: str | None
) -> DilationPattern:
    given = segment_lengths is not None or dilation_rates is not None
    if (preset is not None) == given:
        raise typer.BadParameter(
            "give either --preset or --segment-lengths with --dilation-rates", param_hint="--preset"
        )
    if preset is not None:
        return DilationPattern.preset(preset, exact=True)
    rules = {
        "longnet": DilationPattern.longnet,
        "torchscale": DilationPattern.torchscale,
        "head_groups": DilationPattern.head_groups,
    }
    if rule not in rules:
        raise ValueError(f"unknown rule {rule!r}; expected one of {list(rules)}")
    return rules[rule](
        _numbers(segment_lengths, "--segment-lengths"), _numbers(dilation_rates, "--dilation-rates")
    )


def plan(
    n: Annotated[int, typer.Option(min=1, help="Global sequence length.")],
    heads: Annotated[int, typer.Option(min=1, help="Query heads H.")],
    head_dim: Annotated[int, typer.Option(min=1, help="Head dimension d.")],
    preset: Annotated[
        str | None, typer.Option(help="A published pattern, torchscale's switches off.")
    ] = None,
    segment_lengths: Annotated[
        str | None, typer.Option(help="w of each branch, as 2048,4096.")
    ] = None,
    dilation_rates: Annotated[str | None, typer.Option(help="r of each branch, as 1,2.")] = None,
    rule: Annotated[str, typer.Option(help="longnet, torchscale or head_groups.")] = "longnet",
    kv_heads: Annotated[
        int | None, typer.Option(min=1, help="Key/value heads; H where not given.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size b.")] = 1,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16, float32 or float64.")] = "bfloat16",
    causal: Annotated[bool, typer.Option("--causal", help="Causal attention.")] = False,
    ring_size: Annotated[int, typer.Option(min=1, help="GPUs that hold the sequence, R.")] = 1,
    most: Annotated[
        int | None, typer.Option(min=1, help="Largest other R; the larger of 64 and R.")
    ] = None,
    buffer_shards: Annotated[int, typer.Option(min=2, help="Receive buffers, in shards.")] = 2,
    gpu: Annotated[str, typer.Option(help=f"One of {', '.join(GPUS)}.")] = "h200",
    gpu_memory: Annotated[
        float | None, typer.Option(min=0, help="GB of a GPU that attention may take.")
    ] = None,
    link_gbps: Annotated[
        float | None, typer.Option(min=0.001, help="GB/s of a link in one direction; NVLink's.")
    ] = None,
    as_a_json: Annotated[bool, typer.Option("--json", help="Print JSON, not text.")] = False,
    png: Annotated[Path | None, typer.Option(help="Draw memory and time over R.")] = None,
) -> None:
    """Tell memory, FLOPs, bytes and time of a call before it is made; needs no GPU.

    Memory and bytes come from the schedule that the call runs, times from measurements on one
    H200. Ends with 1 where the call does not fit the GPUs.
    """
    if png is not None and not png.absolute().parent.is_dir():
        raise typer.BadParameter(f"no folder {png.absolute().parent}", param_hint="--png")
    if gpu not in GPUS:
        raise typer.BadParameter(f"expected one of {list(GPUS)}, got {gpu!r}", param_hint="--gpu")
    device = GPUS[gpu]
    if gpu_memory is not None:
        device = replace(device, memory=int(gpu_memory * 1e9))
    links = NVLINK
    if link_gbps is not None:
        p2p = replace(NVLINK.p2p, bandwidth=link_gbps * 1e9)
        links = replace(NVLINK, p2p=p2p, source="--link-gbps")
    try:
        pattern = _pattern(preset, rule, segment_lengths, dilation_rates)
        call = Call(
            pattern,
            n,
            heads,
            kv_heads or heads,
            head_dim,
            dtype=dtype,
            batch=batch,
            is_causal=causal,
            buffer_shards=buffer_shards,
        )
        found = plan_call(call, ring_size, device, links, most=most)
        if png is not None:
            draw(found, png)
    except (ValueError, ModuleNotFoundError) as error:
        raise typer.BadParameter(str(error)) from None
    print(as_json(found) if as_a_json else as_text(found))
    if png is not None:
        Console(stderr=True).print(f"picture: {png}", soft_wrap=True)
    raise typer.Exit(0 if found.ring.fits else 1)
