"""Bad calls: the right class of error, and a message with what, expected, got, and the mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]

from dilated_attention_pytorch import (
    BackendError,
    Branch,
    DilationPattern,
    dilated_attention,
    positions,
    ring_dilated_attention,
    unshard,
)
from support.refusals import refuses

N = 8
PATTERN = DilationPattern.longnet([4, 8], [1, 2])
TRAINED = DilationPattern.torchscale([4, 8], [1, 2], detach_mix=True)


@dataclass(frozen=True)
class Bad:
    """Changed arguments, the error, and words that its message must hold, in this order."""

    change: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]


def rows(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.ones(shape or (1, N, 2, 4), dtype=dtype, device=device)


SHARED = {
    "query is no tensor": Bad({"query": [1.0]}, TypeError, ("query", "torch.Tensor", "list")),
    "three dimensions": Bad(
        {"query": rows(N, 2, 4)}, ValueError, ("query", "4 dim", "(8, 2, 4)", ".transpose(1, 2)")
    ),
    "key of five": Bad({"key": rows(1, 1, N, 2, 4)}, ValueError, ("key", "4 dim", "(1, 1, 8")),
    "integers": Bad(
        {"value": rows(dtype=torch.int64)}, TypeError, ("value", "float16", "torch.int64")
    ),
    "complex": Bad(
        {"query": rows(dtype=torch.complex64)}, TypeError, ("query", "float16", "complex64")
    ),
    "float8": Bad(
        {"query": rows(dtype=torch.float8_e4m3fn)}, TypeError, ("query", "float16", "float8")
    ),
    "two dtypes": Bad(
        {"key": rows(dtype=torch.float64)},
        TypeError,
        ("share a dtype", "torch.float32", "key", "torch.float64", "cast"),
    ),
    "two devices": Bad(
        {"value": rows(device="meta")}, ValueError, ("one device", "cpu", "value", "meta")
    ),
    "key and value differ": Bad(
        {"value": rows(1, N, 1, 4)}, ValueError, ("one shape", "(1, 8, 2, 4)", "(1, 8, 1, 4)")
    ),
    "two batch sizes": Bad({"query": rows(2, N, 2, 4)}, ValueError, ("batch size", "2", "1")),
    "two head dims": Bad({"query": rows(1, N, 2, 6)}, ValueError, ("head dimension", "6", "4")),
    "no head dim": Bad(
        {name: rows(1, N, 2, 0) for name in ("query", "key", "value")}, ValueError, ("1..256",)
    ),
    "257 wide": Bad(
        {name: rows(1, N, 2, 257) for name in ("query", "key", "value")},
        ValueError,
        ("head_dim", "1..256", "257"),
    ),
    "no batch": Bad(
        {name: rows(0, N, 2, 4) for name in ("query", "key", "value")}, ValueError, ("batch",)
    ),
    "no heads": Bad({"query": rows(1, N, 0, 4)}, ValueError, ("heads", "at least 1")),
    "heads that do not divide": Bad(
        {"query": rows(1, N, 3, 4)}, ValueError, ("multiple", "3", "2")
    ),
    "two lengths": Bad({"query": rows(1, 9, 2, 4)}, ValueError, ("length", "9", "8")),
    "pattern of lists": Bad(
        {"pattern": ([4, 8], [1, 2])}, TypeError, ("DilationPattern", "tuple", "longnet(")
    ),
    "too few heads": Bad(
        {"pattern": DilationPattern.head_groups([4, 8, 8], [1, 2, 4])},
        ValueError,
        ("head_groups", "num_heads", "2", "3", "longnet"),
    ),
    "a table of three heads": Bad(
        {"pattern": DilationPattern.from_branches([Branch(4, 1)], [[0, 0, 0]])},
        ValueError,
        ("3 heads", "2 query heads"),
    ),
    "causal is a number": Bad({"is_causal": 1}, TypeError, ("is_causal", "bool", "1")),
    "return_lse is text": Bad({"return_lse": "yes"}, TypeError, ("return_lse", "bool", "yes")),
    "deterministic is None": Bad({"deterministic": None}, TypeError, ("deterministic", "bool")),
    "scale is text": Bad({"scale": "1"}, TypeError, ("scale", "number", "'1'")),
    "scale is a bool": Bad({"scale": True}, TypeError, ("scale", "number", "True")),
    "scale is infinite": Bad({"scale": float("inf")}, ValueError, ("scale", "finite", "inf")),
    "scale is NaN": Bad({"scale": float("nan")}, ValueError, ("scale", "finite", "nan")),
    "mask of numbers": Bad(
        {"key_mask": rows(1, N)}, TypeError, ("key_mask", "bool", "True = attend", "float32")
    ),
    "mask is a list": Bad({"key_mask": [True] * N}, TypeError, ("key_mask", "bool", "list")),
    "mask of another shape": Bad(
        {"key_mask": torch.ones(1, 9, dtype=torch.bool)},
        ValueError,
        ("key_mask", "(1, 8)", "(1, 9)"),
    ),
    "mask elsewhere": Bad(
        {"key_mask": torch.ones(1, N, dtype=torch.bool, device="meta")},
        ValueError,
        ("key_mask", "cpu", "meta"),
    ),
    "documents of floats": Bad(
        {"cu_seqlens": torch.tensor([0.0, 8.0])}, TypeError, ("cu_seqlens", "int32", "float32")
    ),
    "documents of halves": Bad(
        {"cu_seqlens": [0, 2.5, 8]}, TypeError, ("cu_seqlens", "int", "2.5")
    ),
    "documents as a number": Bad(
        {"cu_seqlens": 8}, TypeError, ("cu_seqlens", "sequence of ints", "8")
    ),
    "documents in two dimensions": Bad(
        {"cu_seqlens": torch.tensor([[0, 8]], dtype=torch.int32)},
        TypeError,
        ("cu_seqlens", "1-d", "2-d"),
    ),
    "documents that end early": Bad(
        {"cu_seqlens": [0, 3, 7]}, ValueError, ("cu_seqlens", "0 to", "8", "[0, 3, 7]")
    ),
    "documents that start late": Bad(
        {"cu_seqlens": [1, 8]}, ValueError, ("cu_seqlens", "0 to", "[1, 8]")
    ),
    "one bound": Bad({"cu_seqlens": [0]}, ValueError, ("cu_seqlens", "0 to", "[0]")),
    "documents that descend": Bad(
        {"cu_seqlens": [0, 5, 3, 8]}, ValueError, ("cu_seqlens", "descend", "[0, 5, 3, 8]")
    ),
    "documents in a batch": Bad(
        {"cu_seqlens": [0, 8]} | {x: rows(2, N, 2, 4) for x in ("query", "key", "value")},
        ValueError,
        ("cu_seqlens", "batch size 1", "2"),
    ),
    "probability below 0": Bad({"dropout_p": -0.1}, ValueError, ("dropout_p", "[0, 1]", "-0.1")),
    "probability above 1": Bad({"dropout_p": 1.1}, ValueError, ("dropout_p", "[0, 1]", "1.1")),
    "probability NaN": Bad({"dropout_p": float("nan")}, ValueError, ("dropout_p", "nan")),
    "probability as text": Bad({"dropout_p": "0.5"}, TypeError, ("dropout_p", "number", "'0.5'")),
    "seed of a fraction": Bad({"seed": 1.5, "dropout_p": 0.5}, TypeError, ("seed", "int", "1.5")),
    "seed too large": Bad({"seed": 2**64, "dropout_p": 0.5}, ValueError, ("seed", "64 bits")),
    "seed of two numbers": Bad(
        {"seed": torch.tensor([1, 2]), "dropout_p": 0.5}, TypeError, ("seed", "0-d int64", "1-d")
    ),
    "seed of int32": Bad(
        {"seed": torch.tensor(1, dtype=torch.int32)}, TypeError, ("seed", "int64", "int32")
    ),
    "no such backend": Bad(
        {"backend": "fastest"}, BackendError, ("unknown backend", "'fastest'", "auto", "eager")
    ),
    "backend is no text": Bad({"backend": 3}, TypeError, ("backend", "str", "3")),
    "a backend that cannot": Bad(
        {"backend": "triton"}, BackendError, ("triton", "cannot serve", "CUDA")
    ),
    "torchscale with a mask": Bad(
        {"pattern": TRAINED, "key_mask": torch.ones(1, N, dtype=torch.bool)},
        ValueError,
        ("key_mask", "detach_mix", "exact=True"),
    ),
    "torchscale with documents": Bad(
        {"pattern": TRAINED, "cu_seqlens": [0, 8]}, ValueError, ("cu_seqlens", "exact=True")
    ),
    "torchscale with dropout": Bad(
        {"pattern": TRAINED, "dropout_p": 0.5}, ValueError, ("dropout_p", "exact=True")
    ),
}
RING = {
    "no such layout": Bad({"layout": "split"}, ValueError, ("layout", "sharded", "'split'")),
    "layout is None": Bad({"layout": None}, ValueError, ("layout", "sharded", "None")),
    "no such order": Bad({"order": "random"}, ValueError, ("order", "zigzag", "'random'")),
    "order of floats": Bad({"order": [0.5] * N}, TypeError, ("index map", "int64", "float64")),
    "order is None": Bad({"order": None}, TypeError, ("index map", "int64", "object")),
    "order of other length": Bad(
        {"order": [0, 1, 2]}, ValueError, ("index map", "permutation", "(8,)", "(3,)")
    ),
    "order with a row twice": Bad(
        {"order": [0, 0, 2, 3, 4, 5, 6, 7]}, ValueError, ("index map", "permutation")
    ),
    "no ranks": Bad({"ring_size": 0}, ValueError, ("ring_size", "at least 1", "0")),
    "half a rank": Bad({"ring_size": 1.5}, TypeError, ("ring_size", "int", "1.5")),
    "ranks as a bool": Bad({"ring_size": True}, TypeError, ("ring_size", "int", "True")),
    "one buffer": Bad({"buffer_shards": 1}, ValueError, ("buffer_shards", "at least 2", "1")),
    "buffers as text": Bad({"buffer_shards": "2"}, TypeError, ("buffer_shards", "int", "'2'")),
    "too few lengths": Bad({"shard_lengths": [8]}, ValueError, ("shard_lengths", "2", "[8]")),
    "negative lengths": Bad(
        {"shard_lengths": [9, -1]}, ValueError, ("shard_lengths", "non-negative", "[9, -1]")
    ),
    "lengths of another sum": Bad(
        {"shard_lengths": [4, 5]}, ValueError, ("shard_lengths", "8", "[4, 5]", "9")
    ),
    "lengths of halves": Bad(
        {"shard_lengths": [4.5, 4.5]}, TypeError, ("shard_lengths", "int", "4.5")
    ),
    "lengths as a number": Bad(
        {"shard_lengths": 8}, TypeError, ("shard_lengths", "sequence of ints", "8")
    ),
    "group is text": Bad(
        {"group": "world", "ring_size": None}, TypeError, ("group", "ProcessGroup", "str")
    ),
}


def arguments(bad: Bad) -> tuple[list[Any], dict[str, Any]]:
    given: dict[str, Any] = {
        "query": rows(),
        "key": rows(),
        "value": rows(),
        "pattern": PATTERN,
        **bad.change,
    }
    return [given.pop(name) for name in ("query", "key", "value", "pattern")], given


@pytest.mark.parametrize("name", SHARED)
def test_dilated_attention(name: str) -> None:
    bad = SHARED[name]
    positional, named = arguments(bad)
    refuses(lambda: dilated_attention(*positional, **named), bad.error, bad.words)


@pytest.mark.parametrize("layout", ["sharded", "replicated"])
@pytest.mark.parametrize("name", SHARED)
def test_ring_dilated_attention(name: str, layout: str) -> None:
    bad = SHARED[name]
    positional, named = arguments(bad)
    named |= {"ring_size": 2, "layout": layout}
    refuses(lambda: ring_dilated_attention(*positional, **named), bad.error, bad.words)


@pytest.mark.parametrize("name", RING)
def test_ring_options(name: str) -> None:
    bad = RING[name]
    positional, named = arguments(bad)
    named = {"ring_size": 2, **named}
    refuses(lambda: ring_dilated_attention(*positional, **named), bad.error, bad.words)


@pytest.mark.parametrize("change", [{"simulated": True}, {"attn_mask": None}, {"dropout": 0.1}])
def test_unknown_keywords_are_not_swallowed(change: dict[str, Any]) -> None:
    for call in (dilated_attention, ring_dilated_attention):
        with pytest.raises(TypeError, match=next(iter(change))):
            call(rows(), rows(), rows(), PATTERN, **change)


def test_an_empty_sequence_is_legal() -> None:
    x = rows(2, 0, 2, 4).requires_grad_()
    for options in ({}, {"ring_size": 3}, {"ring_size": 3, "layout": "replicated"}):
        attend: Callable[..., Any] = ring_dilated_attention if options else dilated_attention
        out, lse = attend(x, x, x, PATTERN, return_lse=True, **options)
        assert out.shape == (2, 0, 2, 4)
        assert lse.shape == (2, 0, 2)
        (gradient,) = torch.autograd.grad(out.sum() + lse.sum(), x)
        assert gradient.shape == x.shape


@pytest.fixture
def one_process(tmp_path: Any) -> Any:
    """torch.distributed with a single rank."""
    store = FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.gloo
@pytest.mark.usefixtures("one_process")
def test_groups() -> None:
    world = dist.group.WORLD
    assert world is not None

    def call(**options: Any) -> object:
        return ring_dilated_attention(rows(), rows(), rows(), PATTERN, **options)

    call(group=world)
    call(group=world, ring_size=1)
    refuses(lambda: call(group=world, ring_size=2), ValueError, ("ring_size", "size 1", "2"))
    refuses(lambda: call(group=world, simulate=True), ValueError, ("group=", "simulate=True"))
    refuses(
        lambda: positions(8, group=world, rank=1), ValueError, ("rank", "the group's 0", "got 1")
    )
    refuses(lambda: unshard([rows()], group=world), TypeError, ("this rank's shard", "tensor"))
