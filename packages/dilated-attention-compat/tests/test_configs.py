"""The configuration classes check and fill in what they did, and copy in silence."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch

import dilated_attention_compat as compat
from support.legacy_cases import CASES, constructed, historical, quiet

CONFIGS = [name for name in constructed() if name.endswith("Config")]
LISTS: tuple[Any, ...] = ([8], [1])
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("DilatedAttentionConfig", ([], []), {}, "segment_lengths cannot be empty"),
    ("DilatedAttentionConfig", ([8], [1, 2]), {}, "must have the same length: 1 != 2"),
    ("DilatedAttentionConfig", ([8], [0]), {}, r"dilation_rates\[0\] must be positive, got 0"),
    ("DilatedAttentionConfig", LISTS, {"dropout": 2.0}, "dropout must be between 0.0 and 1.0"),
    ("RingAttentionConfig", LISTS, {"block_size": 0}, "block_size must be positive"),
    ("RingAttentionConfig", LISTS, {"ring_size": 0}, "ring_size must be positive"),
    ("RingAttentionConfig", LISTS, {"max_cached_buffers": -1}, "must be non-negative, got -1"),
    ("SparseAttentionConfig", LISTS, {"pattern_type": "x"}, "pattern_type must be one of"),
    ("SparseAttentionConfig", LISTS, {"sparsity_ratio": 1.0}, r"between 0 and 1 \(exclusive\)"),
    ("SparseAttentionConfig", LISTS, {"min_sparsity": 0.0}, "min_sparsity must be between"),
    ("SparseAttentionConfig", LISTS, {"max_sparsity": 1.0}, "max_sparsity must be between"),
    (
        "SparseAttentionConfig",
        LISTS,
        {"min_sparsity": 0.5, "max_sparsity": 0.5},
        r"min_sparsity \(0.5\) must be less than max_sparsity \(0.5\)",
    ),
    ("SparseAttentionConfig", LISTS, {"block_size": 0}, "block_size must be positive"),
    ("MultiheadConfig", (0, 2), {}, "embed_dim must be positive"),
    ("MultiheadConfig", (8, 3), {}, r"embed_dim \(8\) must be divisible by num_heads \(3\)"),
    ("MultiheadConfig", (8, 2), {"layer_norm_eps": 0.0}, "layer_norm_eps must be positive"),
    ("MultiheadConfig", (8, 2), {"gamma_init": -1.0}, "gamma_init must be positive"),
    ("DistributedConfig", (), {"backend": "tcp"}, "backend must be one of .* got 'tcp'"),
    ("DistributedConfig", (), {"zero_stage": 4}, "zero_stage must be one of .* got 4"),
    ("DistributedConfig", (), {"world_size": 0}, "world_size must be positive"),
    ("DistributedConfig", (), {"rank": -1}, "rank must lie between 0 and world_size"),
    ("DistributedConfig", (2, 2), {}, r"rank must lie between 0 and world_size \(2\), got 2"),
    ("DistributedConfig", (), {"bucket_size_mb": 0}, "bucket_size_mb must be positive"),
    (
        "DistributedConfig",
        (),
        {"gradient_compression_ratio": 0.0},
        "gradient_compression_ratio must lie above 0",
    ),
    ("MemoryPoolConfig", (0,), {}, "hot_cache_size must be positive"),
    ("MemoryPoolConfig", (), {"max_pool_size_mb": 0}, "max_pool_size_mb must be positive"),
]


@pytest.mark.parametrize(("name", "args", "options", "message"), REFUSED)
@pytest.mark.filterwarnings("ignore::dilated_attention_compat.RingAttentionDeprecationWarning")
def test_bad_values_are_refused(
    name: str, args: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        historical(name)(*args, **options)


@pytest.mark.parametrize(
    "name", ["SparsePatternConfig", "PatternConfig", "DistributedSparseConfig"]
)
@pytest.mark.filterwarnings("ignore::dilated_attention_compat.RingAttentionDeprecationWarning")
def test_these_check_nothing_as_in_history(name: str) -> None:
    assert historical(name)(pattern_type="x", block_size=-1).block_size == -1


@pytest.mark.parametrize("name", CONFIGS)
def test_copying_and_pickling_are_silent_and_equal(name: str) -> None:
    config = quiet(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (copy.deepcopy(config), copy.copy(config), pickle.loads(pickle.dumps(config))):
            assert other == config
            assert type(other) is historical(name)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("DilatedAttentionConfig", {"dropout": 2.0}),
        ("RingAttentionConfig", {"dropout": 2.0}),
        ("SparseAttentionConfig", {"dropout": 2.0}),
        ("MultiheadConfig", {"gamma_init": 0.0}),
        ("DistributedConfig", {"zero_stage": 9}),
        ("MemoryPoolConfig", {"max_pool_size_mb": 0}),
    ],
)
def test_the_warning_comes_before_the_refusal(name: str, bad: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=next(iter(bad))):
            historical(name)(*CASES[name].args, **bad)
    assert [warning.category for warning in seen] == [compat.RingAttentionDeprecationWarning]


def test_devices_and_dtypes_are_filled_in() -> None:
    default = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("DilatedAttentionConfig", "MultiheadConfig", "MemoryPoolConfig"):
        assert quiet(name).device == default
    assert quiet("RingAttentionConfig").dtype == quiet("MultiheadConfig").dtype == torch.float32
    assert quiet("MultiheadConfig").head_dim == 4
    assert quiet("PatternConfig").dilation_rates == [1, 2, 4, 8]
    assert quiet("PatternConfig").dilation_rates is not quiet("PatternConfig").dilation_rates


def test_enumerations_are_silent_and_hold_their_values() -> None:
    kinds = historical("PatternType")
    assert [kind.value for kind in kinds] == [
        *("local_window", "dilated_sparse", "global_local", "strided", "random", "learned"),
        *("hierarchical", "content_adaptive"),
    ]
    assert [kind.value for kind in historical("DistributedSparsePattern")] == [
        *("hierarchical", "node_local", "bandwidth_aware", "adaptive_load_balanced"),
    ]
    assert all(kind.name == kind.value.upper() for kind in kinds)
