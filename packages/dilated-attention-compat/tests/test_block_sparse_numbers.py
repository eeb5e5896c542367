"""The block-sparse classes give the historical numbers, weights and initial values."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dilated_attention_compat as compat
from dilated_attention_oracle import tolerance
from support.legacy_defects import (
    chunk_sums,
    in_torch,
    joint,
    layer,
    met_blocks,
    naive_chunk_sums,
    relative_error,
    with_gradients,
)

SEGMENTS, RATES, BLOCK = [16, 32, 64], [1, 2, 4], 8
SETTINGS = {"block_size": BLOCK, "local_window_size": 16, "global_tokens": 8}
DATA = Path(__file__).parent / "data"
VECTORS = dict(np.load(DATA / "block_sparse_vectors.npz"))
INPUTS = dict(np.load(DATA / "ring_vectors.npz"))
KINDS = ["dilated_sparse", "local_window", "global_local"]


@pytest.fixture(autouse=True)
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def core(kind: str = "dilated_sparse", **options: Any) -> Any:
    config = {**SETTINGS, "pattern_type": kind}
    return compat.load(compat.require("BlockSparseRingDilatedAttention"))(
        SEGMENTS, RATES, config, **options
    )


def multihead(**options: Any) -> Any:
    return compat.load(compat.require("BlockSparseRingMultiheadDilatedAttention"))(
        48, 6, SEGMENTS, RATES, sparse_config=SETTINGS, **options
    )


def met(kind: str = "dilated_sparse") -> Any:
    return met_blocks(kind, 64 // BLOCK, BLOCK, rates=RATES, window=16, first=8)


def arrays(heads: str) -> list[Any]:
    return [INPUTS[f"inputs/{heads}/{name}"] for name in ("q", "k", "v", "dout")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["h6_full", "h7_full", "h6_causal", "h7_causal"])
def test_core_equals_the_historical_arrays(mode: str, kind: str) -> None:
    heads, which = mode.split("_")
    *inputs, dout = arrays(heads)
    causal = which == "causal"
    exact = [array.astype(np.float64) for array in inputs]
    reference = chunk_sums(*exact, causal, met(kind), BLOCK, dout.astype(np.float64))
    naive = functools.partial(naive_chunk_sums, met=met(kind), block_size=BLOCK)
    plain = with_gradients(naive, inputs, dout, causal)
    ours = with_gradients(core(kind), inputs, dout, causal)
    for i, name in enumerate(("out", "dq", "dk", "dv")):
        tolerance.check(f"compat {name}", ours[i], reference[i], plain[i], "float32")
        if kind == "dilated_sparse":
            stored = VECTORS[f"BlockSparseRingDilatedAttention/{mode}/{name}"]
            tolerance.check(f"history {name}", stored, reference[i], plain[i], "float32")


def test_only_the_first_three_rates_are_read() -> None:
    make = compat.load(compat.require("BlockSparseRingDilatedAttention"))
    inputs = torch.randn(3, 1, 64, 2, 4)
    three, four = (make([8] * len(r), r, SETTINGS)(*inputs) for r in ([1, 2, 4], [1, 2, 4, 6]))
    torch.testing.assert_close(three, four, rtol=0, atol=0)
    other = make([8] * 3, [1, 2, 6], SETTINGS)(*inputs)
    assert not torch.equal(three, other)


def state() -> dict[str, torch.Tensor]:
    prefix = "BlockSparseRingMultiheadDilatedAttention/state/"
    return {
        key.removeprefix(prefix): torch.tensor(array)
        for key, array in VECTORS.items()
        if key.startswith(prefix)
    }


def x() -> torch.Tensor:
    return torch.tensor(VECTORS["BlockSparseRingMultiheadDilatedAttention/x"])


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_multihead_equals_the_historical_arrays(causal: bool) -> None:
    wrong = in_torch(lambda *a: chunk_sums(*a, met(), BLOCK)[0])
    naive = functools.partial(naive_chunk_sums, met=met(), block_size=BLOCK)
    reference = layer(wrong, x(), state(), 6, causal, torch.float64)
    plain = layer(naive, x(), state(), 6, causal, torch.float32)
    module = multihead().eval()
    module.load_state_dict(state())
    with torch.no_grad():
        out = module(x(), x(), x(), is_causal=causal)
    which = "causal" if causal else "full"
    stored = VECTORS[f"BlockSparseRingMultiheadDilatedAttention/{which}/out"]
    tolerance.check("history", stored, reference, plain, "float32")
    tolerance.check("compat", out, reference, plain, "float32")


def test_a_seed_gives_the_historical_initial_weights() -> None:
    torch.manual_seed(3)
    fresh = multihead()
    assert list(fresh.state_dict()) == list(state())
    for key, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, state()[key], rtol=0, atol=0, msg=key)


def test_the_stated_error_is_the_measured_one() -> None:
    q, k, v = (array.astype(np.float64) for array in arrays("h6")[:3])
    seen = met().repeat(BLOCK, 0).repeat(BLOCK, 1)
    right = functools.partial(joint, seen=seen)
    core_error, multi_error = [], []
    for causal in (False, True):
        wrong = chunk_sums(q, k, v, causal, met(), BLOCK)[0]
        core_error.append(relative_error(wrong, right(q, k, v, causal)))
        layers = (
            layer(in_torch(attend), x(), state(), 6, causal, torch.float64)
            for attend in (lambda *a: chunk_sums(*a, met(), BLOCK)[0], right)
        )
        multi_error.append(relative_error(*layers))
    stated = {
        name: compat.require(name).relative_error
        for name in (
            "BlockSparseRingDilatedAttention",
            "BlockSparseRingMultiheadDilatedAttention",
            "create_block_sparse_attention",
        )
    }
    assert stated == {
        "BlockSparseRingDilatedAttention": tuple(core_error),
        "BlockSparseRingMultiheadDilatedAttention": tuple(multi_error),
        "create_block_sparse_attention": tuple(multi_error),
    }


def test_the_weights_of_a_token_sum_to_the_number_of_its_blocks() -> None:
    q, k, _ = torch.randn(3, 1, 64, 6, 4)
    ones = torch.ones_like(q)
    blocks = met().sum(1).repeat(BLOCK)[None, :, None, None] * np.ones(ones.shape)
    plain = naive_chunk_sums(q, k, ones, False, met(), BLOCK)
    tolerance.check("mass", core()(q, k, ones), blocks, plain, "float32")


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_returned_weights_make_the_output(causal: bool) -> None:
    q, k, v = torch.randn(3, 2, 64, 6, 4)
    out, weights = core()(q, k, v, causal, True)
    assert set(weights) == {"block_indices", "block_values", "block_size", "shape", "num_blocks"}
    assert (weights["block_size"], weights["shape"]) == (BLOCK, (2, 6, 64, 64))
    assert weights["num_blocks"] == (8, 8)
    made = torch.zeros_like(out, dtype=torch.float64)
    for (i, j), share in zip(weights["block_indices"], weights["block_values"], strict=True):
        rows, keys = (slice(at * BLOCK, (at + 1) * BLOCK) for at in (i, j))
        made[:, rows] += torch.einsum("bhpt,bthd->bphd", share.double(), v[:, keys].double())
        assert not (causal and j > i)
    plain = naive_chunk_sums(q, k, v, causal, met(), BLOCK)
    tolerance.check("made", out, made, plain, "float32")
    # Historical order: the block itself, then each rate backward and forward.
    met_by_3 = [3, 2, 4, 1, 5, 7]
    columns = [j for i, j in weights["block_indices"] if i == 3]
    assert columns == [j for j in met_by_3 if j <= 3 or not causal]


def test_padded_keys_keep_their_share_of_the_softmax() -> None:
    module = multihead().eval()
    mask = torch.zeros(1, 64, dtype=torch.bool)
    mask[:, 60:] = True
    with torch.no_grad():
        out = module(x(), x(), x(), key_padding_mask=mask)
        q, k, v = (
            projection(x()).unflatten(2, (6, 8))
            for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        k[:, 60:], v[:, 60:] = 0, 0
        expected = module.out_proj(core()(q, k, v).flatten(2))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_sequence_first_and_tuples() -> None:
    module, turned = multihead(), multihead(batch_first=False)
    turned.load_state_dict(module.state_dict())
    inputs = torch.randn(3, 2, 64, 48)
    out = turned(*(y.transpose(0, 1) for y in inputs))
    torch.testing.assert_close(out.transpose(0, 1), module(*inputs), rtol=0, atol=0)
    assert isinstance(module(*inputs, need_weights=True), tuple)
    module._always_return_tuple = True
    assert module(*inputs)[1] is None


def test_dropout_falls_on_the_output_of_the_layer_only() -> None:
    module = multihead(dropout=0.5)
    plain = multihead()
    plain.load_state_dict(module.state_dict())
    out, whole = module(x(), x(), x()), plain(x(), x(), x())
    kept = out != 0
    assert 0 < int(kept.sum()) < out.numel()
    torch.testing.assert_close(out[kept], 2 * whole[kept], rtol=0, atol=0)
    torch.testing.assert_close(module.eval()(x(), x(), x()), whole, rtol=0, atol=0)
    inputs = torch.ones(3, 1, 64, 1, 4)
    torch.testing.assert_close(core(dropout=0.5)(*inputs), core()(*inputs), rtol=0, atol=0)


def test_options_without_effect_and_both_names_of_the_configuration() -> None:
    dead = {
        "use_adaptive_sparsity": True,
        "quality_threshold": 0.9,
        "enable_memory_pool": True,
        "enable_packed_comm": True,
        "enable_hardware_opt": True,
        "ring_size": 4,
        "use_tf32": False,
    }
    module = core(**dead, block_size=3, sparsity_config={**SETTINGS, "sparsity_ratio": 0.9})
    assert {name: getattr(module, name) for name in dead} == dead
    assert module.block_size == BLOCK
    inputs = torch.randn(3, 1, 64, 6, 4)
    torch.testing.assert_close(module(*inputs), core()(*inputs), rtol=0, atol=0)
    config = compat.load(compat.require("SparsePatternConfig"))(**SETTINGS)
    assert core(sparsity_config=config).sparse_config is config
    assert isinstance(module, compat.load(compat.require("RingDilatedAttention")))


def test_one_block_is_right_and_says_nothing() -> None:
    module = compat.load(compat.require("BlockSparseRingDilatedAttention"))(
        SEGMENTS, RATES, {"block_size": 64}
    )
    inputs = torch.randn(3, 1, 64, 6, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = module(*inputs)
    dense = np.ones((64, 64), dtype=bool)
    exact = joint(*(y.double().numpy() for y in inputs), False, dense)
    plain = naive_chunk_sums(*inputs, False, dense[:1, :1], 64)
    tolerance.check("out", out, exact, plain, "float32")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("create_block_sparse_attention", {"pattern_type": "local_window", "bias": False}),
        ("create_adaptive_sparse_attention", {}),
    ],
)
def test_the_factory_functions_make_the_layer_as_they_did(
    name: str, options: dict[str, Any]
) -> None:
    make = compat.load(compat.require(name))
    with pytest.warns(UserWarning, match=f"{name}: foo, layer_norm never had an effect"):
        made = make(embed_dim=48, num_heads=6, block_size=8, layer_norm=True, foo=1, **options)
    assert {key.split(".")[0] for key in made.state_dict()} == {"_impl"}
    assert made.options_without_effect.keys() >= {"foo", "layer_norm"}
    with pytest.raises(ValueError, match="key and value were always needed"):
        made(x())
    if name == "create_adaptive_sparse_attention":
        with pytest.raises(ValueError, match="Unknown pattern type: learned"):
            made(x(), x(), x())
        return
    # 512 tokens of window, whatever local_window_size said: wider than the sequence.
    wide = compat.load(compat.require("BlockSparseRingMultiheadDilatedAttention"))(
        *(48, 6, SEGMENTS, RATES),
        bias=False,
        sparse_config={"pattern_type": "local_window", "block_size": 8},
    )
    wide.load_state_dict({k.removeprefix("_impl."): t for k, t in made.state_dict().items()})
    torch.testing.assert_close(made(x(), x(), x()), wide(x(), x(), x()), rtol=0, atol=0)
