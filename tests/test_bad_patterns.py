"""Bad patterns, partials and shards: the right class of error, and a message that says enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dilated_attention_pytorch import (
    Branch,
    DilationPattern,
    merge_partials,
    positions,
    shard,
    unshard,
)
from support.refusals import refuses

PATTERNS: dict[str, tuple[Callable[[], object], type[Exception], tuple[str, ...]]] = {
    "no branch": (
        lambda: DilationPattern.longnet([], []),
        ValueError,
        ("segment_lengths", "empty"),
    ),
    "rates missing": (
        lambda: DilationPattern.longnet([4, 8], [1]),
        ValueError,
        ("same length", "2 != 1"),
    ),
    "lengths as a number": (
        lambda: DilationPattern.longnet(4, [1]),  # type: ignore[arg-type]
        TypeError,
        ("segment_lengths", "sequence of ints", "4"),
    ),
    "lengths as text": (
        lambda: DilationPattern.longnet("48", [1, 2]),  # type: ignore[arg-type]
        TypeError,
        ("segment_lengths", "sequence of ints", "'48'"),
    ),
    "a fraction": (
        lambda: DilationPattern.longnet([4.0], [1]),  # type: ignore[list-item]
        TypeError,
        ("segment_length", "int", "4.0"),
    ),
    "a bool": (lambda: Branch(True, 1), TypeError, ("segment_length", "int", "True")),
    "zero": (lambda: Branch(0, 1), ValueError, ("segment_length", "positive", "0")),
    "negative": (lambda: Branch(4, -2), ValueError, ("dilation_rate", "positive", "-2")),
    "no such rule": (
        lambda: DilationPattern((Branch(4, 1),), "rotary"),
        ValueError,
        ("rule", "'rotary'", "longnet"),
    ),
    "a rule's table": (
        lambda: DilationPattern((Branch(4, 1),), "longnet", ((0,),)),
        ValueError,
        ("table", "rule 'table'"),
    ),
    "branches of pairs": (
        lambda: DilationPattern(((4, 1),)),  # type: ignore[arg-type]
        TypeError,
        ("Branch", "(4, 1)"),
    ),
    "a table too short": (
        lambda: DilationPattern.from_branches([Branch(4, 1), Branch(8, 2)], [[0]]),
        ValueError,
        ("1 rows", "2 branches"),
    ),
    "a ragged table": (
        lambda: DilationPattern.from_branches([Branch(4, 1), Branch(8, 2)], [[0], [0, 1]]),
        ValueError,
        ("rows of one length",),
    ),
    "an offset beyond r": (
        lambda: DilationPattern.from_branches([Branch(4, 2)], [[0, 2]]),
        ValueError,
        ("offsets[0][1]", "[0, 2)", "2"),
    ),
    "an offset of a half": (
        lambda: DilationPattern.from_branches([Branch(4, 2)], [[0.5]]),  # type: ignore[list-item]
        TypeError,
        ("offset", "int", "0.5"),
    ),
    "a switch of another rule": (
        lambda: DilationPattern((Branch(4, 1),), "longnet", phantom_keys=True),
        ValueError,
        ("phantom_keys", "torchscale", "'longnet'"),
    ),
    "shift without phantoms": (
        lambda: DilationPattern.torchscale([4], [1], shift_rows=True),
        ValueError,
        ("shift_rows", "phantom_keys=True"),
    ),
    "no such preset": (
        lambda: DilationPattern.preset("longnet"),
        ValueError,
        ("preset", "'longnet'", "gigapath", "longnet-paper"),
    ),
    "no heads": (
        lambda: DilationPattern.longnet([4], [1]).offsets(0),
        ValueError,
        ("num_heads", "positive", "0"),
    ),
}
OUT, LSE = torch.ones(1, 8, 2, 4), torch.ones(1, 8, 2)
OTHERS: dict[str, tuple[Callable[[], object], type[Exception], tuple[str, ...]]] = {
    "merging nothing": (lambda: merge_partials([], []), ValueError, ("at least one", "0")),
    "an lse too few": (
        lambda: merge_partials([OUT, OUT], [LSE]),
        ValueError,
        ("one entry for each part", "2", "1"),
    ),
    "outs of two dtypes": (
        lambda: merge_partials([OUT, OUT.double()], [LSE, LSE]),
        TypeError,
        ("share a float dtype", "float64"),
    ),
    "lse of ints": (
        lambda: merge_partials([OUT], [LSE.long()]),
        TypeError,
        ("float dtype", "int64"),
    ),
    "outs of arrays": (
        lambda: merge_partials([np.ones((1, 8, 2, 4))], [LSE]),  # type: ignore[list-item]
        TypeError,
        ("tensors",),
    ),
    "an lse of another shape": (
        lambda: merge_partials([OUT], [OUT]),
        ValueError,
        ("without the last dimension", "(1, 8, 2, 4)"),
    ),
    "positions of nobody": (
        lambda: positions(8, ring_size=2),
        ValueError,
        ("group=", "ring_size=", "rank="),
    ),
    "positions of a rank too many": (
        lambda: positions(8, ring_size=2, rank=2),
        ValueError,
        ("rank", "[0, 2)", "2"),
    ),
    "shards of another sum": (
        lambda: shard(OUT, ring_size=2, rank=0, shard_lengths=[1, 2]),
        ValueError,
        ("shard_lengths", "8", "[1, 2]"),
    ),
    "unshard one tensor": (lambda: unshard(OUT), TypeError, ("list of all ranks' shards",)),
    "unshard other lengths": (
        lambda: unshard([OUT, OUT], shard_lengths=[7, 9]),
        ValueError,
        ("[8, 8]", "[7, 9]"),
    ),
    "unshard over text": (
        lambda: unshard(OUT, group="world"),  # type: ignore[arg-type]
        TypeError,
        ("group", "ProcessGroup", "str"),
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name: str) -> None:
    refuses(*PATTERNS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_merging_and_sharding(name: str) -> None:
    refuses(*OTHERS[name])
