"""Bad arguments raise the right error with a message that helps; dead ones warn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.comm.base import record_messages
from dilated_attention_pytorch.pattern import DilationPattern

SHORT: dict[str, Any] = {"segment_lengths": [8, 16], "dilation_rates": [1, 2]}
PATTERN = DilationPattern.longnet([8], [1])
CORES = [
    modules.DilatedAttention,
    modules.ImprovedDilatedAttention,
    modules.RingDilatedAttentionV2,
    modules.TrueRingDilatedAttention,
    modules.RingAttentionCorrectV2,
]
MULTIHEADS = [
    modules.MultiheadDilatedAttention,
    modules.ImprovedMultiheadDilatedAttention,
    modules.RingMultiheadDilatedAttentionV2,
    modules.DistributedMultiheadDilatedAttention,
]
RINGS = [
    modules.RingDilatedAttentionV2,
    modules.TrueRingDilatedAttention,
    modules.RingMultiheadDilatedAttentionV2,
    modules.DistributedMultiheadDilatedAttention,
]
MODULES = [*CORES, *MULTIHEADS]


def sizes(build: Callable[..., nn.Module]) -> tuple[int, ...]:
    return (16, 4) if build in MULTIHEADS else ()


BAD_PATTERNS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"segment_lengths": [8]}, ValueError, "expected segment_lengths and dilation_rates, or"),
    ({"rule": "longnet"}, ValueError, "expected segment_lengths and dilation_rates, or"),
    ({**SHORT, "rule": "nearest"}, ValueError, r"unknown rule 'nearest'; expected one of \['head"),
    ({**SHORT, "pattern": PATTERN}, ValueError, "pattern= already holds branches"),
    ({"rule": "longnet", "pattern": PATTERN}, ValueError, "pattern= already holds branches"),
    ({"pattern": [(8, 1)]}, TypeError, "pattern must be a DilationPattern, got list"),
    ({"segment_lengths": [8], "dilation_rates": [1, 2]}, ValueError, "must have the same length"),
    ({"segment_lengths": [], "dilation_rates": []}, ValueError, "cannot be empty"),
    ({"segment_lengths": [0], "dilation_rates": [1]}, ValueError, "must be positive, got 0"),
    ({"segment_lengths": [8.0], "dilation_rates": [1]}, TypeError, "must be an int, got 8.0"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_PATTERNS)
@pytest.mark.parametrize("build", MODULES)
def test_patterns(
    build: Callable[..., nn.Module], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(*sizes(build), **options)


@pytest.mark.parametrize("build", MODULES)
@pytest.mark.parametrize("dropout", [-0.1, 1.5, float("nan")])
def test_dropout(build: Callable[..., nn.Module], dropout: float) -> None:
    name = "attention_dropout" if build is modules.DilatedAttention else "dropout"
    with pytest.raises(ValueError, match=r"dropout must be between 0.0 and 1.0, got"):
        build(*sizes(build), **SHORT, **{name: dropout})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 0}, "embed_dim must be positive, got 0"),
        ({"num_heads": -1}, "num_heads must be positive, got -1"),
        ({"embed_dim": 18}, r"embed_dim \(18\) must be divisible by num_heads \(4\)"),
        ({"num_kv_heads": 3}, r"num_kv_heads must be a positive divisor of num_heads \(4\), got 3"),
        ({"num_kv_heads": 0}, "num_kv_heads must be a positive divisor"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be positive, got 0.0"),
        ({"gamma_init": -1.0}, "gamma_init must be positive, got -1.0"),
    ],
)
@pytest.mark.parametrize("build", MULTIHEADS)
def test_sizes(build: Callable[..., nn.Module], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**{"embed_dim": 16, "num_heads": 4, **SHORT, **options})


def test_fewer_heads_than_head_groups() -> None:
    with pytest.raises(ValueError, match="needs num_heads >= number of branches"):
        modules.MultiheadDilatedAttention(16, 1, **SHORT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "split"}, "layout must be 'sharded' or 'replicated', got 'split'"),
        ({"ring_size": 0}, "ring_size must be at least 1, got 0"),
        ({"buffer_shards": 1}, "buffer_shards must be at least 2, got 1"),
    ],
)
@pytest.mark.parametrize("build", RINGS)
def test_rings(build: Callable[..., nn.Module], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(*sizes(build), **SHORT, **options)


def multihead_input(*shape: int, **kind: Any) -> torch.Tensor:
    return torch.zeros(*(shape or (2, 16, 16)), **kind)


BAD_MULTIHEAD_CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"need_weights": True}, ValueError, "need_weights=True is not served"),
    ({"attn_mask": multihead_input(16, 16)}, ValueError, "attn_mask is not served.*is_causal=True"),
    ({"query": multihead_input(16, 16)}, ValueError, r"query must have shape \(b, n, 16\), got"),
    ({"key": multihead_input(2, 16, 8)}, ValueError, r"key must have shape \(b, n, 16\), got"),
    ({"query": multihead_input(dtype=torch.float64)}, TypeError, "query has dtype torch.float64"),
    ({"value": multihead_input(device="meta")}, ValueError, "value is on meta, the parameters on"),
    ({"query": [[0.0]]}, TypeError, "query must be a torch.Tensor, got list"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_MULTIHEAD_CALLS)
@pytest.mark.parametrize("build", MULTIHEADS)
def test_multihead_calls(
    build: Callable[..., nn.Module], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(16, 4, **SHORT)(**{"query": multihead_input(), **options})


@pytest.mark.parametrize("build", MULTIHEADS)
def test_dtype_on_a_device_that_autocast_does_not_know(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(TypeError, match=r"query has dtype torch.float64, the parameters"):
        build(16, 4, **SHORT, device="meta")(multihead_input(dtype=torch.float64, device="meta"))


@pytest.mark.parametrize("build", MULTIHEADS)
def test_cross_attention_of_another_length_is_refused(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="must have one length, got 16 and 12"):
        build(16, 4, **SHORT)(multihead_input(), multihead_input(2, 12, 16))


@pytest.mark.parametrize("build", [core for core in CORES if core is not CORES[-1]])
def test_attention_mask(build: Callable[..., nn.Module]) -> None:
    q = torch.zeros(1, 16, 4, 4)
    with pytest.raises(
        ValueError, match=r"attention_mask is not served.*key_padding_mask.*pattern"
    ):
        build(**SHORT)(q, q, q, attention_mask=torch.ones(16, 16, dtype=torch.bool))


def test_memory_stats_are_not_served() -> None:
    q = torch.zeros(1, 16, 4, 4)
    with pytest.raises(ValueError, match="return_memory_stats=True is not served"):
        modules.RingAttentionCorrectV2()(q, q, q, return_memory_stats=True)


@pytest.mark.parametrize(
    "build", [modules.DilatedAttention, lambda **kw: modules.MultiheadDilatedAttention(16, 4, **kw)]
)
def test_op_is_refused(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="op chose an xFormers operator"):
        build(**SHORT, op=object())


@pytest.mark.parametrize(
    ("build", "dead"),
    [
        (modules.DilatedAttention, {"use_tf32": True, "device": "cpu", "dtype": torch.float32}),
        (modules.ImprovedDilatedAttention, {"use_tf32": True}),
        (modules.RingDilatedAttentionV2, {"device": "cpu", "dtype": torch.float16}),
        (modules.TrueRingDilatedAttention, {"chunk_size_kv": 8, "dtype": torch.float16}),
        (modules.RingAttentionCorrectV2, {"device": "cpu"}),
        (modules.ImprovedMultiheadDilatedAttention, {"use_tf32": False}),
    ],
)
def test_arguments_without_effect_warn_at_the_callers_line(
    build: Callable[..., nn.Module], dead: dict[str, Any]
) -> None:
    with pytest.warns(FutureWarning, match=f"{', '.join(dead)} no longer has an effect") as caught:
        build(*sizes(build), **SHORT, **dead)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(*sizes(build), **SHORT)


@pytest.mark.parametrize(
    "build", [modules.MultiheadDilatedAttention, modules.ImprovedMultiheadDilatedAttention]
)
def test_swapped_positional_order_warns(build: Callable[..., nn.Module]) -> None:
    with pytest.warns(UserWarning, match=r"takes \(dilation_rates, segment_lengths\) in this") as w:
        build(16, 4, [8, 16], [1, 2])
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(16, 4, [1, 2], [8, 16])
        build(16, 4, [1], [1])


@pytest.mark.parametrize(
    "build", [modules.RingMultiheadDilatedAttentionV2, modules.DistributedMultiheadDilatedAttention]
)
def test_new_modules_take_the_pattern_by_keyword_only(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        build(16, 4, [8], [1])


def call(build: Callable[..., nn.Module], **options: Any) -> None:
    module = build(*sizes(build), **SHORT, **options)
    inputs = [multihead_input()] if build in MULTIHEADS else torch.zeros(3, 1, 16, 4, 4).unbind()
    module(*inputs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "nonesuch"}, ValueError, "nonesuch"),
        ({"deterministic": "yes"}, TypeError, "deterministic must be a bool, got 'yes'"),
        ({"softmax_scale": float("inf")}, ValueError, "scale must be finite"),
    ],
)
@pytest.mark.parametrize("build", MODULES)
def test_every_option_reaches_the_function(
    build: Callable[..., nn.Module], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(build, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"group": object()}, TypeError, "group must be a ProcessGroup"),
        ({"group": object(), "simulate": True}, ValueError, "pass one of them"),
        ({"order": "backwards"}, ValueError, "order must be"),
        ({"shard_lengths": [3]}, ValueError, r"must add up|needs \d+ "),
    ],
)
@pytest.mark.parametrize("build", [*RINGS, modules.RingAttentionCorrectV2])
def test_every_option_of_the_ring_reaches_the_function(
    build: Callable[..., nn.Module], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(build, **options)


@pytest.mark.parametrize("build", RINGS)
def test_buffer_shards_reaches_the_function(build: Callable[..., nn.Module]) -> None:
    counts = []
    for buffer_shards in (2, 40):
        with record_messages() as sent:
            call(
                build,
                ring_size=2,
                shard_lengths=[1, 15],
                layout="sharded",
                buffer_shards=buffer_shards,
            )
        counts.append(len(sent))
    # Rank 0 has room for little, so what rank 1 sends it comes in pieces.
    assert counts[0] > counts[1] > 0
