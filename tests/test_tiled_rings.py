"""Rings on kernels that stream own and received rows past tiles, by kernels written with loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch.functional import call
from dilated_attention_pytorch.kernels.select import Choice, select
from support.own_sequences import ALONE, case_of, own_case
from support.ring_calls import Ring, equals_oracle
from support.tile_backend import TileBackend


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> TileBackend:
    backend = TileBackend(half=4, block=4)

    def with_tiles(name: str, request: Any) -> Choice:
        return replace(select(name, request), tiles=backend)

    monkeypatch.setattr(call, "select", with_tiles)
    return backend


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(ALONE))
def test_equals_the_oracle(name: str, dtype: str, tiles: TileBackend) -> None:
    case, ring = own_case(name, dtype)
    equals_oracle(case, replace(ring, backend="sdpa"))


# (w, r) of the branches, rows per rank, H, H_kv, causal, buffers, whether late tiles wait
CASES = {
    "late tiles wait": (((8, 1), (64, 8)), (32, 32), 2, 2, False, 8, True),
    "late tiles wait, causal": (((8, 1), (64, 4)), (32, 32), 2, 1, True, 8, True),
    "one group": (((64, 1),), (32, 32), 2, 2, False, 8, False),
    "several groups": (((8, 1), (64, 1)), (16, 16, 16, 16), 2, 1, True, 2, False),
    "heads of one class": (((8, 1), (64, 2)), (32, 32), 4, 4, True, 8, None),
}


@pytest.mark.parametrize("name", list(CASES))
def test_every_way_to_meet_received_rows(name: str, tiles: TileBackend) -> None:
    branches, lengths, heads, kv_heads, causal, buffers, waits = CASES[name]
    case: Case = case_of(
        Pattern(branches), sum(lengths), 2, heads, kv_heads, "float32", {"is_causal": causal}
    )
    equals_oracle(case, Ring(lengths, backend="sdpa", buffer_shards=buffers))
    assert tiles.launches["forward"]
    assert tiles.launches["dk"]
    if waits is not None:
        assert bool(tiles.launches["resume"]) is not waits
        assert bool(tiles.launches["resume dq"]) is not waits
