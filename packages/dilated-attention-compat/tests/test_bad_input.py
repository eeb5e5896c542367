"""Bad options and inputs are refused, with messages that say how to mend them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.legacy_cases import historical

pytestmark = pytest.mark.filterwarnings(
    "ignore::dilated_attention_compat.RingAttentionDeprecationWarning",
    "ignore::RuntimeWarning",
)
CORES = [
    "RingDilatedAttention",
    "UnfoldRingDilatedAttention",
    "ImprovedDilatedAttention",
    "DistributedImprovedDilatedAttention",
    "ring_dilated_attention_unfold.UnfoldRingDilatedAttention",
    "BlockSparseRingDilatedAttention",
]
RING_LIKE = ["RingDilatedAttention", "BlockSparseRingDilatedAttention"]
FUSED = ["RingMultiheadDilatedAttention", "ImprovedMultiheadDilatedAttention"]
MULTIHEADS = [*FUSED, "BlockSparseRingMultiheadDilatedAttention"]
BAD_LISTS: list[tuple[tuple[Any, Any], type[Exception], str]] = [
    (([], []), ValueError, "segment_lengths cannot be empty"),
    (([8], [1, 2]), ValueError, "must have the same length: 1 != 2"),
    (([8, 0], [1, 2]), ValueError, r"segment_lengths\[1\] must be positive, got 0"),
    (([8], [-1]), ValueError, r"dilation_rates\[0\] must be positive, got -1"),
    (([1.5], [1]), TypeError, r"segment_lengths\[0\] must be an int, got 1.5"),
    (([8], [True]), TypeError, r"dilation_rates\[0\] must be an int, got True"),
]


def lists_in_order(name: str, lists: tuple[Any, Any]) -> tuple[Any, Any]:
    return lists[::-1] if name == "ImprovedMultiheadDilatedAttention" else lists


@pytest.mark.parametrize(("lists", "error", "message"), BAD_LISTS)
@pytest.mark.parametrize("name", [*CORES, *MULTIHEADS])
def test_bad_patterns_are_refused(
    name: str, lists: tuple[Any, Any], error: type[Exception], message: str
) -> None:
    sizes = (8, 2) if name in MULTIHEADS else ()
    with pytest.raises(error, match=message):
        historical(name)(*sizes, *lists_in_order(name, lists))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.5}, "dropout must be between 0.0 and 1.0, got 1.5"),
        ({"block_size": 0}, "block_size must be positive, got 0"),
        ({"ring_size": 0}, "ring_size must be positive, got 0"),
    ],
)
@pytest.mark.parametrize("name", RING_LIKE)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        historical(name)([8], [1], **options)


@pytest.mark.parametrize("name", CORES)
def test_bad_dropout_and_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="dropout must be between"):
        historical(name)([8], [1], dropout=-0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        historical(name)([8], [1], foo=1)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((0, 2), {}, "embed_dim must be positive, got 0"),
        ((8, 0), {}, "num_heads must be positive, got 0"),
        ((8, 3), {}, r"embed_dim \(8\) must be divisible by num_heads \(3\)"),
        ((8, 2), {"dropout": 2.0}, "dropout must be between"),
    ],
)
@pytest.mark.parametrize("name", MULTIHEADS)
def test_bad_widths_are_refused(
    name: str, args: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        historical(name)(*args, *lists_in_order(name, ([8], [1])), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be positive, got 0.0"),
        ({"gamma_init": float("nan")}, "gamma_init must be positive, got nan"),
    ],
)
@pytest.mark.parametrize("name", FUSED)
def test_bad_norms_and_gains_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        historical(name)(8, 2, [8], [8], **options)


X, WIDE = torch.zeros(1, 8, 2, 4), torch.zeros(1, 8, 8)
SAME: list[tuple[tuple[torch.Tensor, ...], type[Exception], str]] = [
    ((X[0], X, X), ValueError, "query must be a 4D tensor .* got 3D"),
    ((X, X[:, :4], X), ValueError, "key must have the shape of query"),
    ((X, X, X.double()), TypeError, "value must have the dtype of query, torch.float32"),
    ((X, X.to("meta"), X), ValueError, "key must be on the device of query, cpu, got meta"),
]


@pytest.mark.parametrize(("tensors", "error", "message"), SAME)
@pytest.mark.parametrize("name", [*CORES, "RingAttentionCorrect"])
def test_inputs_that_differ_are_refused(
    name: str, tensors: tuple[torch.Tensor, ...], error: type[Exception], message: str
) -> None:
    args = () if name == "RingAttentionCorrect" else ([2, 4], [1, 2])
    with pytest.raises(error, match=message):
        historical(name)(*args)(*tensors)


@pytest.mark.parametrize("name", CORES[:4])
def test_lengths_and_heads_that_do_not_fit_are_refused(name: str) -> None:
    core = historical(name)([2, 4], [1, 2])
    with pytest.raises(
        ValueError, match=r"Sequence length \(6\) must be divisible .* got 4; .* to 8"
    ):
        core(*torch.zeros(3, 1, 6, 2, 4))
    with pytest.raises(ValueError, match=r"num_heads \(1\) must be >= num_groups \(2\)"):
        core(*torch.zeros(3, 1, 8, 1, 4))


def test_sequence_parallel_needs_whole_segments_on_every_rank() -> None:
    core = historical("DistributedImprovedDilatedAttention")([4], [1], sequence_parallel=True)
    core.world_size = 2
    wide = historical("DistributedImprovedDilatedAttention")([8], [1], sequence_parallel=True)
    wide.world_size = 2
    with pytest.raises(ValueError, match=r"Sequence length \(4\) .* every segment length, got 8"):
        wide(*torch.zeros(3, 1, 8, 2, 4))
    core.world_size = 3
    with pytest.raises(ValueError, match=r"divisible by world_size \(3\) with sequence_parallel"):
        core(*torch.zeros(3, 1, 8, 2, 4))
    core.world_size = 2
    assert core(*torch.ones(3, 1, 8, 2, 4)).shape == (1, 8, 2, 4)


def test_block_sparse_refuses_ragged_lengths_and_unknown_patterns() -> None:
    make = historical("BlockSparseRingDilatedAttention")
    with pytest.raises(ValueError, match=r"8 must be divisible by block size 3; .* to 9"):
        make([8], [1], {"block_size": 3})(X, X, X)
    with pytest.raises(ValueError, match="Unknown pattern type: learned; local_window"):
        make([8], [1], {"block_size": 4, "pattern_type": "learned"})(X, X, X)
    with pytest.raises(ValueError, match="block_size must be positive, got 0"):
        make([8], [1], {"block_size": 0})
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        make([8], [1], {"size": 4})


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ((WIDE[0],), ValueError, "query must be a 3D tensor .* got 2D"),
        ((WIDE, WIDE[:, :4]), ValueError, "key must have the shape of query"),
        ((WIDE[..., :6],), ValueError, r"last axis of query must be embed_dim \(8\), got 6"),
        ((WIDE[:, :6],), ValueError, "Sequence length"),
    ],
)
@pytest.mark.parametrize("name", FUSED)
def test_bad_multihead_inputs_are_refused(
    name: str, tensors: tuple[torch.Tensor, ...], error: type[Exception], message: str
) -> None:
    lists = lists_in_order(name, ([2, 4], [1, 2]))
    module = historical(name)(8, 2, *lists, device="cpu")
    with pytest.raises(error, match=message):
        module(*tensors)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("create_block_sparse_attention", {"sparsity_ratio": 0.0}, "sparsity_ratio must be"),
        ("create_block_sparse_attention", {"pattern_type": "x"}, "pattern_type must be one of"),
        (
            "create_adaptive_sparse_attention",
            {"min_sparsity": 0.9, "max_sparsity": 0.1},
            "must be less than max_sparsity",
        ),
    ],
)
def test_the_factory_functions_refuse_what_they_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        historical(name)(embed_dim=8, num_heads=2, **options)
