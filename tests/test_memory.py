"""Memory of a call: tiles bound its temporaries whatever n is, and it saves what it says."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dilated_attention_pytorch import DilationPattern, dilated_attention, ring_dilated_attention
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.schedule import Run
from support.inside_ops import look_inside

WIDTH = 4


class LargestTemporary(TorchDispatchMode):
    """Elements of the largest tensor with a storage of its own, but for those of given sizes."""

    def __init__(self, *allowed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0
        self._allowed = allowed

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                elements = leaf.untyped_storage().nbytes() // leaf.element_size()
                if elements not in self._allowed:
                    self.largest = max(self.largest, elements)
        return result


def one_tile_of_each_shape(original: Any, run: Run, block: int) -> Iterator[Run]:
    """All tiles are cut, and the first of each (queries, keys, masked) is computed.

    Temporaries follow from a tile's shape, and 65,536 tiles of one shape would take minutes.
    """
    seen = set()
    for tile in original(run, block):
        shape = len(tile.query), len(tile.key), tile.masked
        assert max(shape[:2]) <= block
        if shape not in seen:
            seen.add(shape)
            yield tile


def traced(monkeypatch: pytest.MonkeyPatch, n: int, heads: int, **options: Any) -> int:
    """Elements of the largest temporary of one call, w = n; checks what is saved for backward."""
    tiles = functools.partialmethod(
        lambda run, block, original: one_tile_of_each_shape(original, run, block),
        original=Run.tiles,
    )
    monkeypatch.setattr(Run, "tiles", tiles)
    q, k, v = (torch.randn(1, n, heads, WIDTH, requires_grad=True) for _ in range(3))
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    rows = n * heads
    tracer = LargestTemporary(rows, rows * WIDTH)
    look_inside(monkeypatch, tracer)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out, lse = dilated_attention(
            q, k, v, DilationPattern.longnet([n], [1]), backend="eager", return_lse=True, **options
        )
    torch.autograd.backward((out, lse), (torch.ones_like(out), torch.ones_like(lse)))
    kept = [q, k, v, out, lse, *([options["key_mask"]] if "key_mask" in options else [])]
    known = {x.untyped_storage().data_ptr() for x in kept}
    storages = {x.untyped_storage() for x in saved}
    # A seed is one number.
    extra = [x.nbytes() for x in storages if x.data_ptr() not in known and x.nbytes() > 8]
    assert not extra, "query, key, value, out, lse and a mask are saved, and no more"
    assert known <= {x.data_ptr() for x in storages}
    return tracer.largest


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"dropout_p": 0.5, "seed": 1},
        {"key_mask": True},
        {"is_causal": True, "deterministic": False, "dropout_p": 0.5, "seed": 1},
    ],
    ids=str,
)
def test_the_largest_temporary_is_a_tile_at_65536(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    n, heads = 65_536, 2
    if "key_mask" in options:
        options = {"key_mask": torch.ones(1, n, dtype=torch.bool)}
        options["key_mask"][0, :100] = False
    largest = traced(monkeypatch, n, heads, **options)
    # Philox makes four words of each counter; nothing else exceeds a tile of scores.
    assert largest <= eager.BLOCK * eager.BLOCK * heads * (1 if "seed" not in options else 4)


def test_a_temporary_of_the_whole_score_matrix_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: tiles that do not end."""
    n = 2048
    monkeypatch.setattr(eager, "BLOCK", n)
    largest = traced(monkeypatch, n, 1)
    assert largest >= n * n > 256 * 256


def test_the_largest_temporary_does_not_depend_on_n(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile computed, deterministic order as well."""
    monkeypatch.setattr(eager, "BLOCK", 64)
    pattern = DilationPattern.longnet([2048], [1])
    every: list[dict[str, Any]] = [{}, {"deterministic": True}, {"is_causal": True}]
    for options in every:
        largest = {}
        for n in (500, 1000):
            x = torch.randn(1, n, 1, WIDTH)
            tracer = LargestTemporary(n, n * WIDTH)
            with pytest.MonkeyPatch.context() as patch:
                look_inside(patch, tracer)
                dilated_attention(x, x, x, pattern, backend="eager", **options)
            largest[n] = tracer.largest
        assert 0 < largest[500] == largest[1000] <= 64 * 64


def test_a_zigzag_shard_with_dropout_stays_within_its_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tile there holds keys of both ends of the sequence."""
    monkeypatch.setattr(eager, "BLOCK", 16)
    n = 2000
    x = torch.randn(1, n, 1, WIDTH)
    with LargestTemporary(n, n * WIDTH) as tracer:
        ring_dilated_attention(
            x,
            x,
            x,
            DilationPattern.longnet([n], [10]),
            ring_size=4,
            order="zigzag",
            shard_lengths=[501, 499, 503, 497],
            dropout_p=0.5,
            seed=3,
        )
    # The largest is a shard's carry or rows, not a range of counters.
    assert tracer.largest <= 503 * WIDTH
