"""LongNet and its layers: history's names and keys, MAGNETO's start, positions, rings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dilated_attention_oracle import check
from dilated_attention_pytorch import MultiheadDilatedAttention, ring_dilated_attention
from dilated_attention_pytorch.models import (
    DilatedTransformerDecoderLayer,
    DilatedTransformerEncoderLayer,
    LongNet,
    LongNetLM,
    next_token_loss,
    next_token_pairs,
)

SEGMENTS, RATES = [5, 12, 40], [1, 2, 3]
E, FF, HEADS = 12, 20, 3
ATTENTION = [
    f"{name}_proj.{kind}" for name in ["q", "k", "v", "out"] for kind in ("weight", "bias")
]
NORMS = [f"{name}.{kind}" for name in ("q_ln", "k_ln") for kind in ("weight", "bias")]


def both(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def under(prefix: str, names: list[str]) -> list[str]:
    return [f"{prefix}.{name}" for name in names]


ENCODER_KEYS = {
    *both("norm1", "norm2", "norm3", "linear1", "linear2"),
    *under("self_attn", ATTENTION + NORMS),
}
DECODER_KEYS = {
    *both("norm1", "norm2", "norm3", "norm4", "linear1", "linear2"),
    *under("self_attn", ATTENTION),
    *under("multihead_attn", ATTENTION + NORMS),
}


def encoder_layer(**options: Any) -> DilatedTransformerEncoderLayer:
    torch.manual_seed(0)
    given = {"dim_feedforward": FF, "dropout": 0.0} | options
    return DilatedTransformerEncoderLayer(E, HEADS, SEGMENTS, RATES, **given).double()


def decoder_layer(**options: Any) -> DilatedTransformerDecoderLayer:
    torch.manual_seed(0)
    given = {"dim_feedforward": FF, "dropout": 0.0} | options
    return DilatedTransformerDecoderLayer(E, HEADS, SEGMENTS, RATES, **given).double()


def lm(**options: Any) -> LongNetLM:
    torch.manual_seed(0)
    return LongNetLM(11, E, HEADS, 2, 1, FF, SEGMENTS, RATES, **options).double()


def rows(n: int) -> Tensor:
    return torch.randn(2, n, E, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def compare(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Judge in float64; the other computation stands for the reference."""
    reference = theirs.detach().numpy()
    check(name, ours.detach().numpy(), reference, reference, "float64")


LAYER = [
    *("d_model", "nhead", "segment_lengths", "dilation_rates", "dim_feedforward", "dropout"),
    *("activation", "layer_norm_eps", "gamma_init", "device", "dtype"),
]
STACK = [
    *("d_model", "nhead", "num_encoder_layers", "num_decoder_layers", "dim_feedforward"),
    *("segment_lengths", "dilation_rates", "dropout", "activation", "layer_norm_eps"),
    *("device", "dtype"),
]
DEFAULTS: dict[str, Any] = {"layer_norm_eps": 1e-5, "device": None, "dtype": None}
LAYER_DEFAULTS = DEFAULTS | {"dim_feedforward": 2048, "dropout": 0.1, "activation": F.relu}
STACK_DEFAULTS = DEFAULTS | {
    "d_model": 768,
    "nhead": 12,
    "num_encoder_layers": 12,
    "num_decoder_layers": 12,
    "dim_feedforward": 3072,
    "segment_lengths": (2048, 4096, 8192, 16384, 32768),
    "dilation_rates": (1, 2, 4, 6, 12),
    "dropout": 0.0,
    "activation": F.relu,
}


@pytest.mark.parametrize(
    ("cls", "names", "defaults"),
    [
        (DilatedTransformerEncoderLayer, LAYER, LAYER_DEFAULTS | {"gamma_init": 1.0}),
        (DilatedTransformerDecoderLayer, LAYER, LAYER_DEFAULTS | {"gamma_init": 1.0}),
        (LongNet, STACK, STACK_DEFAULTS),
        (LongNetLM, ["num_tokens", *STACK], STACK_DEFAULTS),
    ],
)
def test_the_signatures_are_those_of_history(
    cls: type[nn.Module], names: list[str], defaults: dict[str, Any]
) -> None:
    parameters = inspect.signature(cls).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == names
    assert {p.name: p.default for p in positional if p.default is not p.empty} == defaults


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (DilatedTransformerEncoderLayer, ["self", "src", "is_causal"]),
        (
            DilatedTransformerDecoderLayer,
            ["self", "tgt", "memory", "tgt_is_causal", "memory_is_causal"],
        ),
        (LongNet, ["self", "x", "is_causal"]),
    ],
)
def test_the_forwards_are_those_of_history(cls: type[nn.Module], names: list[str]) -> None:
    parameters = inspect.signature(cls.forward).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == names
    defaults = {p.name: p.default for p in parameters if p.name.endswith("is_causal")}
    assert set(defaults.values()) == {cls is LongNet}


def test_the_keys_are_those_of_history() -> None:
    assert set(encoder_layer().state_dict()) == ENCODER_KEYS
    assert set(decoder_layer().state_dict()) == DECODER_KEYS
    stack = {
        *(f"encoder.layers.{i}.{key}" for i in range(2) for key in ENCODER_KEYS),
        *(f"decoder.layers.0.{key}" for key in DECODER_KEYS),
    }
    assert set(LongNet(E, HEADS, 2, 1, FF, SEGMENTS, RATES).state_dict()) == stack
    own = {"token_embedding.weight", *both("norm", "out")}
    rotary = own | {f"long_net.{key}" for key in stack}
    assert set(lm(position="rotary").state_dict()) == rotary
    state = lm().state_dict()
    assert set(state) == rotary | {"pos_embedding.scale"}
    assert state["pos_embedding.scale"].shape == (E // 2,)
    assert state["token_embedding.weight"].shape == (11, E)
    layer = decoder_layer().state_dict()
    assert layer["linear1.weight"].shape == (FF, E)
    assert layer["norm4.weight"].shape == (FF,)


def test_the_historical_rule_is_the_historical_attention() -> None:
    layer, x = encoder_layer(rule="historical"), rows(37)
    module = MultiheadDilatedAttention(E, HEADS, RATES, SEGMENTS).double()
    module.load_state_dict(layer.self_attn.state_dict())
    theirs = module(x, x, x, is_causal=True)
    compare("attention", layer.self_attn(x, x, is_causal=True, position=None), theirs)


@pytest.mark.parametrize("rule", ["longnet", "torchscale", "historical"])
def test_an_encoder_layer_is_its_formula(rule: str) -> None:
    layer, x = encoder_layer(rule=rule, activation="gelu"), rows(30)
    normed = layer.norm1(x)
    y = x + layer.self_attn(normed, normed, is_causal=False, position=None)
    expected = y + layer.linear2(layer.norm3(F.gelu(layer.linear1(layer.norm2(y)))))
    compare("layer", layer(x), expected)


def test_a_decoder_layer_is_its_formula() -> None:
    layer, x, memory = decoder_layer(), rows(30), 2 * rows(30).flip(1)
    normed = layer.norm1(x)
    y = x + layer.self_attn(normed, normed, is_causal=True, position=None)
    y = y + layer.multihead_attn(layer.norm2(y), memory, is_causal=False, position=None)
    expected = y + layer.linear2(layer.norm4(F.relu(layer.linear1(layer.norm3(y)))))
    compare("layer", layer(x, memory, True), expected)


def changes(model: Callable[[Tensor], Tensor], x: Tensor, at: int) -> Tensor:
    """Which output rows a change of one input row changes."""
    other = x.clone()
    other[:, at] += 1
    return (model(x) != model(other)).any(-1).any(0)


def test_causal_flags_reach_their_attentions() -> None:
    layer, x = decoder_layer(), rows(24)

    def of_memory(memory: Tensor, causal: bool) -> Tensor:
        return layer(x, memory, True, causal)

    def of_target(target: Tensor, causal: bool) -> Tensor:
        return layer(target, x, causal, True)

    for part in (of_memory, of_target):
        seen = changes(lambda y, part=part: part(y, True), x, 7)  # type: ignore[misc]
        assert not seen[:7].any()
        assert seen[7:].any()
        assert changes(lambda y, part=part: part(y, False), x, 7)[:7].any()  # type: ignore[misc]
    assert not changes(LongNet(E, HEADS, 1, 1, FF, SEGMENTS, RATES).double(), x, 7)[:7].any()
    assert changes(lambda y: encoder_layer()(y), x, 7)[:7].any()


def test_lengths_of_target_and_memory_must_be_equal() -> None:
    with pytest.raises(ValueError, match="must have one length"):
        decoder_layer()(rows(5), rows(6))


def test_initial_weights_have_the_gains_of_magneto() -> None:
    torch.manual_seed(0)
    e, ff, n, m = 64, 128, 3, 2
    model = LongNet(e, 4, n, m, ff, SEGMENTS, RATES)
    decoder = math.sqrt(math.log(3 * m))
    gains = {"encoder": math.sqrt(math.log(3 * m) * math.log(2 * n) / 3), "decoder": decoder}
    for half, gain in gains.items():
        for part, (factor, sizes) in {
            "q_proj": (1.0, 2 * e),
            "k_proj": (1.0, 2 * e),
            "v_proj": (gain, 2 * e),
            "out_proj": (gain, 2 * e),
            "linear1": (gain, e + ff),
            "linear2": (gain, e + ff),
        }.items():
            weights = [
                p.detach()
                for key, p in model.named_parameters()
                if key.startswith(half) and f"{part}.weight" in key
            ]
            drawn = torch.cat([weight.flatten() for weight in weights])
            # The sample variance of m normal draws has a relative deviation of sqrt(2 / m).
            assert float(drawn.square().mean()) == pytest.approx(
                factor**2 * 2 / sizes, rel=5 * math.sqrt(2 / drawn.numel())
            )
            assert not torch.equal(weights[0], weights[1])
    biases = [p for key, p in model.named_parameters() if key.endswith("bias")]
    assert all(not p.any() for p in biases)


@pytest.mark.parametrize("position", ["rotary", "xpos"])
@pytest.mark.parametrize(
    ("ring_size", "options"),
    [
        (2, {}),
        (3, {"order": "zigzag"}),
        (4, {"shard_lengths": [20, 0, 1, 11]}),
        (5, {"order": np.random.default_rng(0).permutation(32)}),
    ],
)
def test_loss_and_gradients_do_not_depend_on_the_ring(
    position: str, ring_size: int, options: dict[str, Any]
) -> None:
    model = lm(position=position)
    tokens = torch.randint(11, (2, 33), generator=torch.Generator().manual_seed(0))
    inputs, targets = next_token_pairs(tokens)

    def run(**ring: Any) -> tuple[Tensor, Tensor]:
        loss = next_token_loss(model(inputs, **ring), targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return loss, torch.cat([gradient.flatten() for gradient in gradients])

    ours = run(ring_size=ring_size, simulate=True, **options)
    for name, ring, one in zip(("loss", "gradient"), ours, run(), strict=True):
        compare(name, ring, one)


def test_layers_take_a_ring_as_their_attention_function() -> None:
    layer, x = encoder_layer(), rows(33)
    ring = partial(ring_dilated_attention, ring_size=3)
    compare("layer", layer(x, True, attend=ring), layer(x, True))


def test_dropout_acts_in_training_alone() -> None:
    layer, x = encoder_layer(dropout=0.5), rows(16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    compare("layer", layer(x), encoder_layer()(x))
    sure = encoder_layer(dropout=1.0)
    assert torch.equal(sure(x), x)


def test_it_learns_a_short_text_by_heart() -> None:
    torch.manual_seed(0)
    model = LongNetLM(256, 24, 3, 1, 1, 48, SEGMENTS, RATES)
    inputs, targets = next_token_pairs(torch.tensor([list(b"the quick brown fox jumps over")]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = next_token_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    assert torch.equal(model(inputs).argmax(-1), targets)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: encoder_layer(rule="dense"), ValueError, "rule must be"),
        (lambda: encoder_layer(activation="swish"), ValueError, "activation must be one of"),
        (lambda: encoder_layer(activation=3), TypeError, "a name or a function"),
        (
            lambda: DilatedTransformerEncoderLayer(13, 3, SEGMENTS, RATES),
            ValueError,
            r"d_model \(13\) must be divisible by nhead \(3\)",
        ),
        (
            lambda: LongNet(E, 2, 1, 1, FF, SEGMENTS, RATES, rule="historical"),
            ValueError,
            "num_heads >= number of branches",
        ),
        (lambda: LongNet(E, HEADS, 0, 1), ValueError, "num_encoder_layers must be at least 1"),
        (lambda: LongNet(E, HEADS, 1, 0), ValueError, "num_decoder_layers must be at least 1"),
        (lambda: LongNet(E, HEADS, 1, 1, FF, [4], [1, 2]), ValueError, "same length"),
        (lambda: LongNetLM(11, 9, 3, 1, 1), ValueError, "even head dimension"),
        (lambda: lm(position="learned"), ValueError, "position must be 'rotary' or 'xpos'"),
        (lambda: lm(rotary_base=1.0), ValueError, "rotary_base must be above 1"),
        (lambda: lm(xpos_scale_base=0.0), ValueError, "xpos_scale_base above 0"),
        (
            lambda: LongNet(E, HEADS, 1, 1, FF, SEGMENTS, RATES)(rows(4).float(), attend=[len]),
            ValueError,
            "one function or 3, got 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()
