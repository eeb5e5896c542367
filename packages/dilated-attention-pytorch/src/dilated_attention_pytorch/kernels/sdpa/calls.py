"""PyTorch's attention kernels behind one face: forward with lse, backward from a given lse.

The backward of each takes out and lse from its caller and computes P = exp(s - lse) and
delta = <dout, out> from them. Given those of the whole softmax, it returns one branch's share of
the exact gradient, and the shares of all branches add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_aten = torch.ops.aten
Gradients = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Library:
    """A library's kernels for views of shape (batch, heads, rows, d).

    Args:
        forward: (query, key, value, is_causal, scale) -> (out, lse), lse (batch, heads, rows).
        backward: (dout, query, key, value, out, lse, is_causal, scale) -> (dq, dk, dv).
        like: an empty tensor laid out as `backward` takes the out and dout of a query; the CPU's
            takes them in any layout.
        grouped: whether one key/value head may serve several query heads.
    """

    forward: Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]
    backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, bool, float],
        Gradients,
    ]
    like: Callable[[Tensor], Tensor]
    grouped: bool


def _cpu_forward(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, scale=scale
    )
    return out, lse


def _cpu_backward(
    dout: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float,
) -> Gradients:
    gradients: Gradients = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dout, query, key, value, out, lse, 0.0, is_causal, scale=scale
    )
    return gradients


def _cudnn_forward(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = _aten._scaled_dot_product_cudnn_attention(
        query, key, value, None, True, 0.0, is_causal, False, scale=scale
    )
    return out, lse


@lru_cache(maxsize=8)
def _stats_dims(device: torch.device) -> int:
    """Dimensions of cuDNN's lse: releases of PyTorch differ in a last one of size 1."""
    x = torch.zeros((1, 1, 8, 8), dtype=torch.float16, device=device)
    _, lse = _cudnn_forward(x, x, x, False, 1.0)
    return lse.dim()


def _cudnn_backward(
    dout: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float,
) -> Gradients:
    # Seed and offset of a dropout that does not take place; some devices convert them all the same.
    none = torch.empty((), dtype=torch.int64, device=query.device)
    rows = query.shape[2]
    lse = lse.reshape(*lse.shape[:3], *(1,) * (_stats_dims(query.device) - 3))
    gradients: Gradients = _aten._scaled_dot_product_cudnn_attention_backward(
        *(dout, query, key, value, out, lse, none, none, None, None, None),
        *(rows, rows, 0.0, is_causal),
        scale=scale,
    )
    return gradients


def _flash_forward(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = _aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, is_causal, False, scale=scale
    )
    return out, lse


def _flash_backward(
    dout: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float,
) -> Gradients:
    none = torch.empty((), dtype=torch.int64, device=query.device)
    rows = query.shape[2]
    gradients: Gradients = _aten._scaled_dot_product_flash_attention_backward(
        *(dout, query, key, value, out, lse, None, None, rows, rows, 0.0, is_causal, none, none),
        scale=scale,
    )
    return gradients


def _rows_before_heads(query: Tensor) -> Tensor:
    b, h, m, d = query.shape
    return query.new_empty((b, m, h, d)).transpose(1, 2)


CPU = Library(_cpu_forward, _cpu_backward, torch.empty_like, grouped=False)
# PyTorch caches cuDNN's plans by the sizes and strides of query, key and value alone, so a backward
# whose out has other strides than the first one of these sizes would read wrong rows. This layout
# is a function of the query's strides, and the one that forward gives its own out.
CUDNN = Library(_cudnn_forward, _cudnn_backward, torch.empty_like, grouped=True)
# PyTorch's flash backward copies an out or dout that is laid out otherwise.
FLASH = Library(_flash_forward, _flash_backward, _rows_before_heads, grouped=True)


@lru_cache(maxsize=1024)
def layout(library: Library, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of `library.like` for a query of this shape and these strides."""
    query = torch.empty_strided(shape, strides, device="meta")
    return library.like(query).stride()


@lru_cache(maxsize=8)
def has_cudnn(device: torch.device) -> bool:
    """Whether PyTorch itself prefers cuDNN's kernels to flash on this device."""
    major, _ = torch.cuda.get_device_capability(device)
    return major in (9, 10) and (torch.backends.cudnn.version() or 0) > 91500


@lru_cache(maxsize=1024)
def library(device: torch.device, head_dim: int, rows: int) -> Library:
    """The kernels for views of so many rows on a device."""
    if device.type == "cpu":
        return CPU
    # cuDNN takes no single key, and larger head dimensions on some devices only.
    if rows > 1 and head_dim <= 128 and has_cudnn(device):
        return CUDNN
    return FLASH
