"""What ranks run for the recipes of the guide, and for DTensors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from dilated_attention_oracle.precision import lse_dtype, round_to
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import DilationPattern, ring_dilated_attention
from dilated_attention_pytorch.functional import dtensor_dilated_attention

from .gloo_pool import Member
from .pages import page_namespace
from .ring_calls import keywords, library_pattern, tensors

Array = npt.NDArray[Any]
GUIDE = Path(__file__).parents[2] / "docs/guides/many-gpus.md"
PLACEMENTS = {"batch": Shard(0), "sequence": Shard(1), "heads": Shard(2), "copy": Replicate()}


@cache
def guide() -> dict[str, Any]:
    """What the blocks of the guide define."""
    return page_namespace(GUIDE)


def recipe_tokens() -> torch.Tensor:
    """(4, n + 1) tokens, n not a multiple of anything."""
    return torch.from_numpy(np.random.default_rng(3).integers(0, 64, (4, 60)))


def _arrays(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, Array]:
    found = {"loss": loss.detach().double().cpu().numpy()}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
        found[name.removeprefix("module.")] = whole.double().cpu().numpy()
    return found


def recipe_step(member: Member, recipe: str, shape: tuple[int, int]) -> dict[str, Array]:
    """Mean loss and gradients of one step of a recipe on a mesh of that shape."""
    device = "cuda" if dist.get_backend(member.group) == "nccl" else "cpu"
    mesh = init_device_mesh(device, shape, mesh_dim_names=("data", "sequence"))
    given = guide()
    model = given[recipe](given["build_model"]().to(device), mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loss = given["training_step"](model, optimizer, recipe_tokens().to(device), mesh)
    return _arrays(model, loss)


def one_process_step(dtype: torch.dtype) -> dict[str, Array]:
    """The same of one process, by PyTorch's own cross-entropy."""
    model = guide()["build_model"]().to(dtype)
    tokens = recipe_tokens()
    logits = model(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    return _arrays(model, loss)


def attend_dtensors(
    member: Member, case: Case, shape: tuple[int, ...], places: tuple[str, ...], order: Any
) -> dict[str, Array]:
    """Full out, lse, dq, dk and dv of DTensors on a mesh; places name what each dimension cuts."""
    mesh = init_device_mesh("cpu", shape)
    placements = [PLACEMENTS[place] for place in places]
    mask_placements = [PLACEMENTS["copy" if x == "heads" else x] for x in places]
    stored = np.arange(case.length) if isinstance(order, str) else np.array(order)
    rows = torch.from_numpy(stored)

    def distribute(tensor: torch.Tensor, wanted: list[Any]) -> DTensor:
        return distribute_tensor(tensor[:, rows].contiguous(), mesh, wanted)

    inputs = [distribute(x, placements).requires_grad_() for x in tensors(case)]
    call = keywords(case)
    if case.key_mask is not None:
        call["key_mask"] = distribute(call["key_mask"], mask_placements)
    out, lse = dtensor_dilated_attention(
        *inputs, library_pattern(case.pattern), order=order, return_lse=True, **call
    )
    assert out.placements == lse.placements == inputs[0].placements
    gradients = [
        distribute(torch.tensor(round_to(x, kind), dtype=getattr(torch, kind)), placements)
        for x, kind in ((case.dout, case.dtype), (case.dlse, lse_dtype(case.dtype)))
    ]
    found = torch.autograd.grad((out, lse), inputs, gradients)
    arrays = {}
    named = zip(("out", "lse", "dq", "dk", "dv"), (out, lse, *found), strict=True)
    for name, tensor in named:
        assert tensor.placements == inputs[0].placements
        whole = tensor.detach().full_tensor().double().numpy()
        arrays[name] = np.empty_like(whole)
        arrays[name][:, stored] = whole
    return arrays


def different_maps(member: Member, odd: int) -> str:
    """Rank `odd` passes another index map of the same length."""
    rows = list(range(8))
    if member.rank == odd:
        rows[0], rows[1] = rows[1], rows[0]
    x = torch.ones(1, 8 // member.size, 2, 4)
    pattern = DilationPattern.longnet([8], [1])
    ring_dilated_attention(x, x, x, pattern, group=member.group, order=rows)
    return "did not raise"


def refused_dtensors(member: Member, places: tuple[str, ...], change: str) -> str:
    """A call that is refused on every rank before any row travels."""
    mesh = init_device_mesh("cpu", (2, 2))
    placements = [PLACEMENTS[place] for place in places]
    x = distribute_tensor(torch.ones(2, 8, 3 if change == "odd heads" else 4, 4), mesh, placements)
    pattern = DilationPattern.longnet([8], [1])
    options: dict[str, Any] = {}
    key: Any = x
    if change == "dropout":
        options["dropout_p"] = 0.5
    if change == "plain key":
        key = x.to_local()
    if change == "other placement":
        key = x.redistribute(placements=[Replicate(), Replicate()])
    if change == "plain mask":
        options["key_mask"] = torch.ones(2, 8, dtype=torch.bool)
    if change == "trained":
        pattern = DilationPattern.torchscale([8], [1], phantom_keys=True)
    dtensor_dilated_attention(x, key, x, pattern, **options)
    return "did not raise"
