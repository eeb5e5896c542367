"""Constructors, forwards, state_dict keys and return types are the historical ones."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import dilated_attention_compat as compat
from support.legacy_cases import CASES, constructed, historical, quiet, with_forward

CORE_FORWARD = "query, key, value, is_causal=False, attention_mask=None"
MULTIHEAD_FORWARD = (
    "query, key=None, value=None, key_padding_mask=None, need_weights=False, attn_mask=None, "
    "is_causal=False, average_attn_weights=True"
)
RING = (
    "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, block_size=1024, "
    "ring_size=None, use_checkpointing=True, device=None, dtype=None"
)
CONSTRUCTORS = {
    "RingDilatedAttention": RING,
    "UnfoldRingDilatedAttention": RING,
    "OptimizedUnfoldRingDilatedAttention": RING,
    "ring_dilated_attention_unfold.UnfoldRingDilatedAttention": (
        "segment_lengths, dilation_rates, dropout=0.0, ring_size=1, ring_group=None"
    ),
    "RingMultiheadDilatedAttention": (
        "embed_dim, num_heads, segment_lengths, dilation_rates, dropout=0.0, bias=True, "
        "layer_norm=True, layer_norm_eps=1e-05, gamma_init=1.0, block_size=1024, ring_size=None, "
        "use_checkpointing=True, use_tf32=True, use_flash_attention=True, compile_model=False, "
        "device=None, dtype=None"
    ),
    "RingDistributedDilatedAttention": (
        "embed_dim, num_heads, segment_lengths, dilation_rates, dropout=0.0, bias=True, "
        "layer_norm=True, layer_norm_eps=1e-05, gamma_init=1.0, block_size=1024, ring_size=None, "
        "use_checkpointing=True, model_parallel=False, sequence_parallel=True, "
        "data_parallel=True, use_deepspeed=True, zero_stage=3, cpu_offload=False, "
        "nvme_offload=False, use_8bit_optimizer=False, use_gradient_compression=False, "
        "activation_checkpointing=True, communication_backend='nccl', bucket_size=25, "
        "overlap_communication=True, enable_fault_tolerance=True, checkpoint_interval=1000, "
        "auto_resume=True, enable_monitoring=True, profile_memory=False, log_level='INFO', "
        "use_tf32=True, use_flash_attention=True, compile_model=False, device=None, dtype=None"
    ),
    "ImprovedDilatedAttention": (
        "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, *, device=None, dtype=None"
    ),
    "ImprovedMultiheadDilatedAttention": (
        "embed_dim, num_heads, dilation_rates, segment_lengths, dropout=0.0, bias=True, "
        "layer_norm=True, layer_norm_eps=1e-05, gamma_init=1.0, device=None, dtype=None, "
        "use_tf32=True"
    ),
    "DistributedImprovedDilatedAttention": (
        "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, sequence_parallel=False, "
        "model_parallel=False, use_flash_attention=True, dtype=None, device=None"
    ),
    "DistributedImprovedMultiheadDilatedAttention": (
        "embed_dim, num_heads, segment_lengths, dilation_rates, dropout=0.0, bias=True, "
        "layer_norm=True, layer_norm_eps=1e-05, gamma_init=1.0, device=None, dtype=None, "
        "use_tf32=True, sequence_parallel=False, model_parallel=False, use_deepspeed=True, "
        "use_gradient_checkpointing=False, communication_backend='nccl', cpu_offload=False, "
        "use_8bit_optimizer=False, use_flash_attention=True, compile_model=False"
    ),
    "BlockSparseRingDilatedAttention": (
        # History took what follows the star as **kwargs.
        "segment_lengths, dilation_rates, sparse_config=None, *, sparsity_config=None, "
        "use_adaptive_sparsity=None, quality_threshold=None, enable_memory_pool=None, "
        "enable_packed_comm=None, enable_hardware_opt=None, dropout=0.0, use_tf32=True, "
        "block_size=1024, ring_size=None, use_checkpointing=True, device=None, dtype=None"
    ),
    "BlockSparseRingMultiheadDilatedAttention": (
        "embed_dim, num_heads, segment_lengths, dilation_rates, dropout=0.0, bias=True, "
        "sparse_config=None, batch_first=True, **"
    ),
    "BlockSparseRingDistributedDilatedAttention": (
        "segment_lengths, dilation_rates, distributed_config=None, "
        "enable_deepspeed_integration=True, enable_apex_optimization=True, "
        "monitoring_interval=100, **"
    ),
    "RingAttentionCorrect": "dropout=0.0, device=None, dtype=None",
    "create_block_sparse_attention": (
        "sparsity_ratio=0.9, pattern_type='dilated_sparse', embed_dim=768, num_heads=12, **"
    ),
    "create_adaptive_sparse_attention": (
        "embed_dim=768, num_heads=12, min_sparsity=0.1, max_sparsity=0.9, **"
    ),
    "SparsePatternConfig": (
        "pattern_type='dilated_sparse', sparsity_ratio=0.1, block_size=128, "
        "local_window_size=512, global_tokens=64"
    ),
    "PatternConfig": (
        "pattern_type=<PatternType.DILATED_SPARSE: 'dilated_sparse'>, sparsity_ratio=0.25, "
        "block_size=128, local_window_size=512, global_tokens=64, dilation_rates=<factory>, "
        "stride=4, random_seed=None, quality_threshold=0.95, enable_caching=True, "
        "enable_compression=False"
    ),
    "DistributedSparseConfig": (
        "pattern_type=<DistributedSparsePattern.HIERARCHICAL: 'hierarchical'>, "
        "sparsity_ratio=0.25, block_size=128, local_sparsity=0.4, global_sparsity=0.1, "
        "inter_node_sparsity=0.05, compression_ratio=0.1, load_balance_threshold=0.15, "
        "adaptive_sparsity_rate=0.05, enable_async_communication=True, "
        "enable_gradient_compression=True, enable_load_balancing=True"
    ),
    "DilatedAttentionConfig": (
        "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, device=None, dtype=None"
    ),
    "MultiheadConfig": (
        "embed_dim, num_heads, bias=True, layer_norm=True, layer_norm_eps=1e-05, gamma_init=1.0, "
        "device=None, dtype=None"
    ),
    "RingAttentionConfig": (
        "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, device=None, dtype=None, "
        "block_size=1024, ring_size=None, use_checkpointing=True, use_memory_pool=True, "
        "max_cached_buffers=50"
    ),
    "SparseAttentionConfig": (
        "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, device=None, dtype=None, "
        "pattern_type='dilated_sparse', sparsity_ratio=0.25, block_size=128, "
        "enable_adaptive=False, min_sparsity=0.1, max_sparsity=0.9"
    ),
    "DistributedConfig": (
        "world_size=None, rank=None, backend='nccl', sequence_parallel=False, "
        "model_parallel=False, pipeline_parallel=False, gradient_checkpointing=False, "
        "communication_optimization=True, bucket_size_mb=25, enable_async_communication=True, "
        "gradient_compression_ratio=None, zero_stage=0"
    ),
    "MemoryPoolConfig": (
        "hot_cache_size=50, hot_cache_threshold=10, allow_buffer_slicing=True, "
        "cleanup_threshold_mb=100, max_pool_size_mb=1024, enable_statistics=True, device=None"
    ),
}
FORWARDS = {
    "RingDilatedAttention": CORE_FORWARD,
    "UnfoldRingDilatedAttention": CORE_FORWARD,
    "OptimizedUnfoldRingDilatedAttention": CORE_FORWARD,
    "ring_dilated_attention_unfold.UnfoldRingDilatedAttention": CORE_FORWARD,
    "ImprovedDilatedAttention": CORE_FORWARD,
    "DistributedImprovedDilatedAttention": CORE_FORWARD,
    "RingMultiheadDilatedAttention": MULTIHEAD_FORWARD,
    "ImprovedMultiheadDilatedAttention": MULTIHEAD_FORWARD,
    "BlockSparseRingDilatedAttention": (
        "q, k, v, is_causal=False, return_attention_weights=False"
    ),
    "BlockSparseRingMultiheadDilatedAttention": MULTIHEAD_FORWARD.replace("key=None", "key")
    .replace("value=None", "value"),
    "RingAttentionCorrect": (
        "query, key, value, ring_size=4, is_causal=False, return_memory_stats=False"
    ),
    "create_block_sparse_attention": "query, key=None, value=None, **",
}  # fmt: skip
FUSED = ["qkv_proj", "out_proj", "q_ln", "k_ln"]
SEPARATE = ["q_proj", "k_proj", "v_proj", "out_proj"]
LAYERS = {
    "RingMultiheadDilatedAttention": FUSED,
    "ImprovedMultiheadDilatedAttention": FUSED,
    "BlockSparseRingMultiheadDilatedAttention": SEPARATE,
    "create_block_sparse_attention": [f"_impl.{layer}" for layer in SEPARATE],
    "create_adaptive_sparse_attention": [f"_impl.{layer}" for layer in SEPARATE],
}
ENUMS = {"PatternType", "DistributedSparsePattern"}


@pytest.fixture(autouse=True)
def _wrong_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def names_and_defaults(function: Any) -> str:
    shown = []
    star = False
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            star = True
            shown.append("*")
        if p.kind is p.VAR_KEYWORD:
            shown.append("**")
        elif p.name != "self":
            shown.append(p.name if p.default is p.empty else f"{p.name}={p.default!r}")
    return ", ".join(shown)


def test_every_historical_object_is_here() -> None:
    names = {record.name for record in compat.RECORDS if record.historical}
    assert set(CASES) == names
    assert set(CONSTRUCTORS) | ENUMS == names
    assert set(FORWARDS) == set(with_forward())


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors(name: str) -> None:
    made = historical(name)
    assert (
        names_and_defaults(made.__init__ if isinstance(made, type) else made)
        == (CONSTRUCTORS[name])
    )
    rewrite = compat.require(name).rewrite
    if rewrite is not None:
        parameters = list(inspect.signature(made).parameters)
        assert sorted(rewrite.parameters) == sorted(parameters), name
        positional = [
            p.name
            for p in inspect.signature(made).parameters.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        assert list(rewrite.parameters[: len(positional)]) == positional


@pytest.mark.parametrize("name", FORWARDS)
def test_forwards(name: str) -> None:
    assert names_and_defaults(type(quiet(name)).forward) == FORWARDS[name]


@pytest.mark.parametrize("name", constructed())
def test_state_dicts(name: str) -> None:
    module = quiet(name)
    if not isinstance(module, torch.nn.Module):
        assert name not in LAYERS
        return
    state = module.state_dict()
    layers = LAYERS.get(name, [])
    assert list(state) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    for key, tensor in state.items():
        rows = 24 if "qkv" in key else 8
        matrix = key.endswith("proj.weight")
        assert tensor.shape == ((rows, 8) if matrix else (rows,)), key


@pytest.mark.parametrize("name", with_forward())
def test_return_types(name: str) -> None:
    shape = CASES[name].shape
    assert shape is not None
    module = quiet(name)
    out = module(*torch.randn(3, *shape))
    if LAYERS.get(name) is FUSED:
        assert isinstance(out, tuple)
        out, weights = out
        assert weights is None
    assert isinstance(out, torch.Tensor)
    assert out.shape == shape


@pytest.mark.parametrize("name", with_forward())
def test_backward_reaches_every_input_and_parameter_that_matters(name: str) -> None:
    shape = CASES[name].shape
    assert shape is not None
    module = quiet(name)
    inputs = [x.requires_grad_() for x in torch.randn(3, *shape)]
    out = module(*inputs)
    (out[0] if isinstance(out, tuple) else out).square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
    without = {key for key, p in module.named_parameters() if p.grad is None}
    assert without == ({"k_ln.weight", "k_ln.bias"} if LAYERS.get(name) is FUSED else set())


def test_dead_options_are_kept_as_attributes() -> None:
    core = historical("DistributedImprovedDilatedAttention")
    with pytest.warns(compat.RingAttentionDeprecationWarning):
        made = core([8], [1], 0.1, False, True, True, False, torch.float64, "cpu")
    shown = ("dropout", "use_tf32", "sequence_parallel", "model_parallel", "use_flash_attention")
    assert [getattr(made, name) for name in shown] == [0.1, False, True, True, False]
    assert (made.dtype, made.device, made.world_size, made.rank) == (
        *(torch.float64, torch.device("cpu"), 1, 0),
    )  # fmt: skip
    x = torch.ones(1, 8, 2, 4)
    torch.testing.assert_close(made.eval()(x, x, x), x, rtol=0, atol=0)


def test_config_fields_can_be_replaced() -> None:
    config = quiet("DilatedAttentionConfig")
    with pytest.warns(compat.RingAttentionDeprecationWarning, match="DilatedAttentionConfig"):
        wider = dataclasses.replace(config, segment_lengths=[8, 32], dilation_rates=[1, 2])
    assert (config.num_groups, wider.num_groups, wider.max_segment_length) == (1, 2, 32)


def test_options_of_the_ring_classes_are_kept_as_attributes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        core = historical("RingDilatedAttention")([8], [1], 0.1, False, 7, 3, False, "cpu")
        multi = historical("RingMultiheadDilatedAttention")(
            *(8, 2, [8], [1]),
            bias=False,
            layer_norm=False,
            compile_model=True,
            use_flash_attention=False,
            device="cpu",
            dtype=torch.float64,
        )
    shown = ("dropout", "use_tf32", "block_size", "ring_size", "use_checkpointing", "world_size")
    assert [getattr(core, name) for name in shown] == [0.1, False, 7, 3, False, 1]
    assert repr(core) == (
        "RingDilatedAttention(segment_lengths=[8], dilation_rates=[1], dropout=0.1)"
    )
    assert list(multi.state_dict()) == ["qkv_proj.weight", "out_proj.weight"]
    assert {p.dtype for p in multi.parameters()} == {torch.float64}
    assert (multi.compile_model, multi.use_flash_attention) == (True, False)
    assert "layer_norm=False, ring_size=1" in repr(multi)
    assert multi.get_memory_info() == {"memory_complexity": "O(n)", "ring_size": 1}
    assert core.clear_cache(force=True) is None
    assert multi.clear_cache() is None
