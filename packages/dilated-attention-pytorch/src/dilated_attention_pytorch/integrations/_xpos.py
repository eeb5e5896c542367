"""torchscale's xPos (Sun et al. 2022, arXiv 2212.10554) at global positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._placement import Rows


def rotate(query: Tensor, key: Tensor, xpos: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
    """Turn and scale the rows of query and key, (b, rows, h, d).

    Pair j of a head, entries 2j and 2j + 1, of the row at global position p is turned by the angle
    `p * 10000 ** (-2 j / d)` and multiplied by `zeta_j ** ((p - ceil(n / 2)) / scale_base)`, a key
    by its inverse: scores depend on distances alone, so that a ring's ranks need no more than the
    place of their rows. Computed in float32 at least; torchscale rounds the angles of a 16-bit
    model to 16 bits. The factors leave float32's range at n of about 70,000.

    Args:
        query: not yet turned.
        key: likewise.
        xpos: torchscale's module; read are its buffer `scale` (zeta, (d/2,)) and `scale_base`.
        rows: where they lie.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    zeta, base = xpos.get_buffer("scale").to(dtype), xpos.scale_base
    assert isinstance(base, int | float)
    device = query.device
    p = torch.arange(rows.first, rows.first + query.shape[1], device=device, dtype=torch.float64)
    pairs = torch.arange(len(zeta), device=device, dtype=torch.float64)
    angle = p[:, None] * 10000.0 ** (-pairs / len(zeta))
    power = (p - (rows.n + 1) // 2)[:, None] / base
    factor = zeta.double() ** power
    sin, cos = angle.sin()[:, None], angle.cos()[:, None]

    def turn(x: Tensor, by: Tensor) -> Tensor:
        even, odd = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
        c, s = (cos * by).to(dtype), (sin * by).to(dtype)
        turned = torch.stack((even * c - odd * s, odd * c + even * s), dim=-1)
        return turned.flatten(-2).to(x.dtype)

    return turn(query, factor[:, None]), turn(key, 1 / factor[:, None])
