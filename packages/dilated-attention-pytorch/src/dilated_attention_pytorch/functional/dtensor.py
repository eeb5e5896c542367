"""Dilated attention of DTensors whose sequence is sharded over one dimension of a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from ..pattern import DilationPattern
from . import validation
from .group import Order
from .ring import ring_dilated_attention

if TYPE_CHECKING:
    from torch.distributed.tensor.placement_types import Placement

_BATCH, _SEQUENCE, _HEADS = 0, 1, 2


def dtensor_dilated_attention(
    query: DTensor,
    key: DTensor,
    value: DTensor,
    pattern: DilationPattern,
    *,
    order: Order = "contiguous",
    buffer_shards: int = 2,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: DTensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
    deterministic: bool = False,
    return_lse: bool = False,
) -> Any:
    """Dilated attention of `(b, n, h, d)` DTensors with `Shard(1)` on one dimension of their mesh.

    The ranks along that dimension are the ring; the result equals `dilated_attention` of the full
    tensors up to the order of summation. Along every other dimension of the mesh the tensors may be
    `Replicate()`, `Shard(0)` (the batch: data parallelism) or `Shard(2)` (heads, evenly: tensor
    parallelism; each rank keeps the offsets of its own heads). No row moves but those of the ring.

    Shards may be uneven or empty, as DTensor cuts them. Gradients are placed as the inputs are.

    Args:
        query: (b, n, H, d).
        key: (b, n, H_kv, d), on the mesh and with the placements of query.
        value: like key.
        pattern: branches and offset rule, of all H heads.
        order: which position of the sequence row i of the DTensor is: `contiguous` (i itself),
            `zigzag` or an index map.
        buffer_shards: as in `ring_dilated_attention`, as are all that follow.
        is_causal: causal or not.
        scale: softmax scale.
        key_mask: bool DTensor (b, n), sharded as query but for the heads.
        cu_seqlens: global bounds.
        dropout_p: needs batch and heads whole on every rank.
        seed: of the dropout.
        backend: `auto` or a name.
        deterministic: bits that do not depend on the ring.
        return_lse: return (out, lse).

    Returns:
        out, a DTensor like query; with `return_lse` also lse (b, n, H), placed likewise.

    Raises:
        ValueError: placements other than these; as `ring_dilated_attention`.
        TypeError: a plain tensor; as `ring_dilated_attention`.
        RankDisagreementError: ranks made different calls.
        PeerError: a rank raised, died or is late.
    """
    dimension = _check(query, key, value)
    mesh, placements = query.device_mesh, query.placements
    split = [p for i, p in enumerate(placements) if i != dimension and isinstance(p, Shard)]
    if dropout_p > 0 and split:
        raise ValueError(
            f"dropout_p > 0 needs batch and heads whole on every rank, got {placements}: its mask "
            "is drawn from their global numbers; call ring_dilated_attention on local tensors, "
            "with a seed of its own for each ring"
        )
    lengths = _chunk_lengths(query.shape[_SEQUENCE], mesh.size(dimension))
    found = ring_dilated_attention(
        query.to_local(),
        key.to_local(),
        value.to_local(),
        _own_heads(pattern, query),
        group=mesh.get_group(dimension),
        order=order,
        shard_lengths=lengths,
        buffer_shards=buffer_shards,
        is_causal=is_causal,
        scale=scale,
        key_mask=None if key_mask is None else _local_mask(key_mask, query),
        cu_seqlens=cu_seqlens,
        dropout_p=dropout_p,
        seed=seed,
        backend=backend,
        deterministic=deterministic,
        return_lse=return_lse,
    )
    if not return_lse:
        return _wrap(found, query, query.shape)
    out, lse = found
    return _wrap(out, query, query.shape), _wrap(lse, query, query.shape[:3])


def _check(query: DTensor, key: DTensor, value: DTensor) -> int:
    """The dimension of the mesh that holds the sequence."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, DTensor):
            raise TypeError(
                f"{name} must be a DTensor, got {type(tensor).__name__}; make one with "
                "distribute_tensor, or pass local rows to ring_dilated_attention"
            )
        if tensor.dim() != 4:
            raise ValueError(f"{name} must have shape (b, n, h, d), got {tuple(tensor.shape)}")
        if tensor.device_mesh != query.device_mesh or tensor.placements != query.placements:
            raise ValueError(
                f"{name} must have query's mesh and placements {query.placements} on "
                f"{query.device_mesh}, got {tensor.placements} on {tensor.device_mesh}; "
                "redistribute it"
            )
    validation.check_same_length(query, key)
    placements = query.placements
    wrong = [p for p in placements if not _served(p)]
    rings = [i for i, p in enumerate(placements) if _shards(p, _SEQUENCE)]
    if wrong or len(rings) != 1:
        raise ValueError(
            "query, key and value need Shard(1) on exactly one dimension of the mesh, and "
            f"Replicate(), Shard(0) or Shard(2) on the others, got {placements}; redistribute them"
        )
    for name, tensor in (("query", query), ("key", key)):
        parts = _parts(query, _HEADS)
        if tensor.shape[_HEADS] % parts:
            raise ValueError(
                f"Shard(2) over {parts} ranks needs a multiple of {parts} heads, {name} has "
                f"{tensor.shape[_HEADS]}; replicate the heads along that dimension"
            )
    return rings[0]


def _served(placement: Placement) -> bool:
    whole = isinstance(placement, Replicate)
    return whole or any(_shards(placement, dim) for dim in (_BATCH, _SEQUENCE, _HEADS))


def _shards(placement: Placement, dim: int) -> bool:
    # Subclasses of Shard order their parts otherwise.
    return type(placement) is Shard and placement.dim == dim


def _parts(tensor: DTensor, dim: int) -> int:
    """Into how many parts the mesh cuts a dimension of the tensor."""
    parts = 1
    for i, placement in enumerate(tensor.placements):
        parts *= tensor.device_mesh.size(i) if _shards(placement, dim) else 1
    return parts


def _chunk_lengths(n: int, ring_size: int) -> list[int]:
    """Rows per rank as DTensor cuts them: `torch.chunk`'s, the last ones shorter or empty."""
    chunk = -(-n // ring_size)
    return [min(max(n - rank * chunk, 0), chunk) for rank in range(ring_size)]


def _own_heads(pattern: DilationPattern, query: DTensor) -> DilationPattern:
    """The pattern of this rank's heads."""
    heads = query.shape[_HEADS]
    validation.check_pattern(pattern, heads)
    first, parts = 0, 1
    mesh = query.device_mesh
    for i, placement in enumerate(query.placements):
        if _shards(placement, _HEADS):
            first = first * mesh.size(i) + mesh.get_local_rank(i)
            parts *= mesh.size(i)
    if parts == 1:
        return pattern
    if not pattern.exact:
        raise ValueError(
            "phantom_keys, detach_mix and shift_rows need all heads on every rank, got "
            f"{query.placements}; replicate the heads, or use exact=True"
        )
    own = slice(first * heads // parts, (first + 1) * heads // parts)
    table = tuple(row[own] for row in pattern.offsets(heads))
    return replace(pattern, rule="table", table=table)


def _local_mask(key_mask: DTensor, query: DTensor) -> Tensor:
    wanted = tuple(Replicate() if _shards(p, _HEADS) else p for p in query.placements)
    if not isinstance(key_mask, DTensor):
        raise TypeError(f"key_mask must be a DTensor, got {type(key_mask).__name__}")
    if key_mask.device_mesh != query.device_mesh or key_mask.placements != wanted:
        raise ValueError(
            f"key_mask must have placements {wanted} on query's mesh, got {key_mask.placements}; "
            "redistribute it"
        )
    return key_mask.to_local()


def _wrap(local: Tensor, query: DTensor, shape: Sequence[int]) -> DTensor:
    stride = [1] * len(shape)
    for i in reversed(range(len(shape) - 1)):
        stride[i] = stride[i + 1] * shape[i + 1]
    wrapped: DTensor = DTensor.from_local(
        local,
        query.device_mesh,
        query.placements,
        run_check=False,
        shape=query.shape[: len(shape)],
        stride=tuple(stride),
    )
    return wrapped
