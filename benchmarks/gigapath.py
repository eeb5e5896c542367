"""Prov-GigaPath's slide encoder, its attention by turns ours, torchscale's and dense.

`python -m benchmarks.gigapath OUT.json --length 1025` runs on the current CUDA device, else on the
CPU. Random weights, the published shape: 12 layers, 768 wide, 16 heads, its five branches. Every
implementation has the same weights and the same input; figures of one length come from one run.
torchscale is timed where it can be imported (its flash-attn where that is installed, PyTorch's own
flash kernel under its signature elsewhere), and then every layer's output and the gradients of its
parameters are compared with ours, compatible and exact.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dilated_attention_pytorch.bench.environment import environment
from dilated_attention_pytorch.bench.machine import Machine, find_machine
from dilated_attention_pytorch.bench.power import PowerMonitor
from dilated_attention_pytorch.bench.timing import QUICK, Effort, figures
from dilated_attention_pytorch.integrations import SlideEncoder, layers_of

from .peers import _attend

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
IMPLEMENTATIONS = ("compatible", "exact", "torchscale", "dense")


class _Dense(nn.Module):
    """Ordinary attention in a layer's place: every tile sees every tile."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        heads = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads).transpose(1, 2)


class _TorchscaleEncoder(nn.Module):
    """torchscale's encoder under the call of ours."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, encoder_padding_mask: None) -> Any:
        assert encoder_padding_mask is None
        return self.encoder(src_tokens=None, token_embeddings=x, return_all_hiddens=True)


def _flash_on_cpu(
    q: Tensor, k: Tensor, v: Tensor, dropout: float, bias: None, scale: None, causal: bool
) -> Any:
    heads = (x.transpose(1, 2) for x in (q, k, v))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads)
    assert not causal
    return out.transpose(1, 2), lse.detach()


def _flash_on_cuda(
    q: Tensor, k: Tensor, v: Tensor, dropout: float, bias: None, scale: None, causal: bool
) -> Any:
    return _attend(q, k, v, causal)[:2]


def _torchscale(model: SlideEncoder, arguments: argparse.Namespace, device: torch.device) -> str:
    """Put torchscale's encoder with the same weights into `model`; return whose kernel it runs.

    Raises:
        ImportError: it, or what it needs, is not installed.
    """
    attention = importlib.import_module("torchscale.component.multihead_attention")
    longnet = importlib.import_module("torchscale.model.LongNet")
    config = importlib.import_module("torchscale.architecture.config")
    note = "its flash-attn"
    if attention.flash_attn_func is None:
        attention.flash_attn_func = _flash_on_cpu if device.type == "cpu" else _flash_on_cuda
        note = "PyTorch's flash kernel under flash-attn's signature"
    branches = next(iter(layers_of(model).values())).pattern.branches
    args = config.EncoderConfig(
        encoder_layers=arguments.layers,
        encoder_attention_heads=16,
        dilated_ratio=str([branch.dilation_rate for branch in branches]),
        segment_length=str([branch.segment_length for branch in branches]),
        flash_attention=True,
        dropout=0.0,
    )
    encoder = longnet.LongNetEncoder(args)
    encoder.load_state_dict(model.encoder.state_dict())
    model.encoder = _TorchscaleEncoder(encoder)
    return note


def build(name: str, arguments: argparse.Namespace, device: torch.device) -> tuple[Any, str]:
    """(model, note) of one implementation; all have the weights that seed 0 draws.

    Raises:
        ImportError: torchscale is not installed.
    """
    torch.manual_seed(0)
    model = SlideEncoder(
        depth=arguments.layers, dropout=0.0, drop_path_rate=0.0, exact=name == "exact"
    )
    note = {
        "compatible": "torchscale's operator, by this package",
        "exact": "the true operator, by this package",
        "dense": "scaled_dot_product_attention in every layer; another operator",
    }.get(name, "")
    if name == "torchscale":
        note = _torchscale(model, arguments, device)
    if name == "dense":
        for layer in layers_of(model).values():
            # A submodule of this name would stand behind the method.
            layer.__dict__["_call"] = _Dense()
    return model.to(device, DTYPES[arguments.dtype]), note


def tiles(n: int, arguments: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Embeddings of n - 1 tiles a slide (a class token comes to them), and coordinates."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(arguments.batch, n - 1, 1536, generator=generator)
    cells = torch.randint(1000, (arguments.batch, n - 1, 2), generator=generator)
    return x.to(device, DTYPES[arguments.dtype]), (cells * 256.0).to(device)


def fine_tune(model: nn.Module, head: nn.Module, x: Tensor, coords: Tensor) -> Tensor:
    """Forward and backward of a classification loss, gradients of all parameters included."""
    model.zero_grad(set_to_none=True)
    logits = head(model(x, coords)[0])
    loss = F.cross_entropy(logits.float(), torch.zeros(len(x), dtype=torch.int64, device=x.device))
    loss.backward()
    return loss.detach()


@torch.no_grad()
def forward(model: nn.Module, x: Tensor, coords: Tensor) -> Any:
    """The slides' embeddings."""
    return model(x, coords)[0]


def trace(model: nn.Module, x: Tensor, coords: Tensor) -> dict[str, list[Tensor]]:
    """Outputs of the layers; gradients of each layer's parameters, as one vector; of the input."""
    leaf = x.clone().requires_grad_()
    states: list[Tensor] = []
    hook = model.encoder.register_forward_hook(
        lambda module, given, result: states.extend(
            state.detach() for state in result["encoder_states"]
        )
    )
    out = model(leaf, coords)[0].float()
    hook.remove()
    # Not the sum of squares: that of a normalised embedding is a constant.
    direction = torch.linspace(-1, 1, out.shape[1], device=out.device)
    (out * direction).sum().backward()
    encoder = getattr(model.encoder, "encoder", model.encoder)
    gradients = [
        torch.cat([p.grad.ravel() for _, p in sorted(layer.named_parameters())])
        for layer in encoder.layers
    ]
    assert leaf.grad is not None
    return {"output": states[1:], "gradient": gradients, "input_gradient": [leaf.grad]}


def apart(ours: dict[str, list[Tensor]], theirs: dict[str, list[Tensor]]) -> dict[str, Any]:
    """Largest differences of what `trace` found, and how large theirs are, layer by layer."""
    return {
        name: [
            {
                "largest": float((a.float() - b.float()).abs().max()),
                "size": float(b.float().abs().max()),
            }
            for a, b in zip(ours[name], theirs[name], strict=True)
        ]
        for name in theirs
    }


def parity(n: int, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Compatible and exact, each against torchscale.

    Raises:
        ImportError: torchscale is not installed.
    """
    x, coords = tiles(n, arguments, device)
    theirs, *ours = (
        trace(build(name, arguments, device)[0], x, coords)
        for name in ("torchscale", "compatible", "exact")
    )
    named = zip(("compatible", "exact"), ours, strict=True)
    return {name: apart(found, theirs) for name, found in named}


def measure(n: int, arguments: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Figures of every implementation at one length, one after the other."""
    x, coords = tiles(n, arguments, machine.device)
    results: dict[str, Any] = {}
    head = nn.Linear(768, 2).to(machine.device, DTYPES[arguments.dtype])
    with PowerMonitor(machine.device) as monitor:
        chosen = arguments.implementation or IMPLEMENTATIONS
        for name in () if arguments.parity_only else chosen:
            try:
                model, note = build(name, arguments, machine.device)
            except ImportError as error:
                results[name] = {"absent": str(error)}
                continue
            calls: dict[str, Callable[[], object]] = {"forward": partial(forward, model, x, coords)}
            if not arguments.forward_only:
                calls["fine_tuning"] = partial(fine_tune, model, head, x, coords)
            try:
                for call in calls.values():
                    call()
                effort = QUICK if arguments.quick else Effort()
                results[name] = {"note": note, **figures(calls, machine, monitor, effort)}
            except torch.OutOfMemoryError as error:
                results[name] = {"note": note, "out_of_memory": str(error).splitlines()[0]}
            del model, calls
            machine.clear()
        result: dict[str, Any] = {"n": n, "implementations": results}
        timed = "absent" not in results.get("torchscale", {"absent": ""})
        if arguments.parity_only or (arguments.parity and timed):
            try:
                result["parity_with_torchscale"] = parity(n, arguments, machine.device)
            except torch.OutOfMemoryError as error:
                result["parity_out_of_memory"] = str(error).splitlines()[0]
    machine.clear()
    return result


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--length", type=int, action="append", help="class token included")
    parser.add_argument("--dtype", choices=DTYPES, help="float16 on CUDA, float32 on a CPU")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--implementation", action="append", choices=IMPLEMENTATIONS)
    parser.add_argument("--forward-only", action="store_true")
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument("--no-parity", dest="parity", action="store_false")
    compared.add_argument("--parity-only", action="store_true", help="compare, and time nothing")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    machine = find_machine()
    on_gpu = machine.device.type == "cuda"
    arguments.dtype = arguments.dtype or ("float16" if on_gpu else "float32")
    report: dict[str, Any] = {
        "environment": environment(machine.device),
        "case": {name: getattr(arguments, name) for name in ("dtype", "batch", "layers")},
        "results": [],
    }
    lengths = arguments.length or ([10_001, 45_681, 70_001] if on_gpu else [1025])
    for n in lengths:
        report["results"].append(measure(n, arguments, machine))
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(report["results"][-1]), flush=True)


if __name__ == "__main__":
    main()
