"""The naive PyTorch implementation of the torchscale switches, branch by branch with autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.inputs import Inputs
from dilated_attention_oracle.torchscale import geometry

if TYPE_CHECKING:
    import torch


def one_pass(
    inputs: Inputs, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense attention of each branch, its phantoms as scores of 0, mixed by softmax of the lses.

    Args:
        inputs: Checked arguments; its arrays are not used.
        query: ``(b, n, H, d)``, in the dtype to compute in.
        key: ``(b, n, H, d)``, repeated to the query's heads.
        value: ``(b, n, H, d)``, likewise.

    Returns:
        ``(out, lse)``: ``(b, n, H, d)`` and ``(b, n, H)``, differentiable; rows that see nothing
        have lse -inf and no gradient.
    """
    import torch

    outs, lses = [], []
    offsets = inputs.pattern.offsets(inputs.num_heads)
    for (w, r), row in zip(inputs.pattern.branches, offsets, strict=True):
        layouts = [geometry(inputs, w, r, offset) for offset in row if offset is not None]
        source = _stack([layout.source for layout in layouts], query)
        seen = _stack([layout.seen for layout in layouts], query)
        phantoms = _stack([layout.phantoms for layout in layouts], query)
        rows = query.transpose(1, 2).take_along_dim(source.clamp(min=0)[None, :, :, None], dim=2)
        rows = torch.where((source >= 0)[None, :, :, None], rows, torch.zeros_like(rows))
        scores = torch.einsum("bhpd,bkhd->bhpk", rows, key) * inputs.scale
        scores = scores.masked_fill(~seen, -torch.inf)
        phantom = phantoms.to(query.dtype).log()[None, :, :, None].expand(*scores.shape[:3], 1)
        every = torch.cat([scores, phantom], dim=3)
        covered = torch.isfinite(every).any(dim=3)
        lse = every.masked_fill(~covered[..., None], 0.0).logsumexp(dim=3)
        if inputs.pattern.phantom_keys:
            covered = covered & (lse != 0.0)
        probability = (scores - lse[..., None]).exp().masked_fill(~covered[..., None], 0.0)
        outs.append(torch.einsum("bhpk,bkhd->bhpd", probability, value))
        lses.append(lse.masked_fill(~covered, -torch.inf))
    stacked = torch.stack(lses)
    sees = torch.isfinite(stacked).any(dim=0)
    lse = stacked.masked_fill(~sees, 0.0).logsumexp(dim=0).masked_fill(~sees, -torch.inf)
    shares = (stacked - lse.masked_fill(~sees, 0.0)).exp()
    if inputs.pattern.detach_mix:
        shares, lse = shares.detach(), lse.detach()
    out = (shares[..., None] * torch.stack(outs)).sum(dim=0)
    return out.transpose(1, 2), lse.transpose(1, 2)


def _stack(arrays: list[npt.NDArray[Any]], like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.stack(arrays)).to(like.device)
