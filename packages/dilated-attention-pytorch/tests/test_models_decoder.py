"""The decoder: sizes, causality, ring-size invariance, what it can learn, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.models import (
    DecoderConfig,
    DilatedDecoderLM,
    next_token_loss,
    next_token_pairs,
)

PATTERN = DilationPattern.longnet([5, 12, 40], [1, 2, 3])


def small(**sizes: Any) -> DecoderConfig:
    given = {"vocab_size": 11, "embed_dim": 12, "num_heads": 3, "feed_forward_dim": 20}
    return DecoderConfig(PATTERN, **(given | sizes))


def model_and_tokens(n: int, **sizes: Any) -> tuple[DilatedDecoderLM, Tensor]:
    torch.manual_seed(0)
    config = small(**sizes)
    model = DilatedDecoderLM(config).double()
    return model, torch.randint(config.vocab_size, (2, n))


@pytest.mark.parametrize("n", [0, 1, 37])
def test_logits_have_a_row_for_each_token(n: int) -> None:
    model, tokens = model_and_tokens(n)
    assert model(tokens).shape == (2, n, 11)


def test_the_parameters_are_those_of_the_formula() -> None:
    e, f, layers = 12, 20, 3
    model = DilatedDecoderLM(small(num_layers=layers))
    attention = 4 * e * e + 2 * e
    feed_forward = 2 * e * f + 2 * f
    block = attention + feed_forward + 2 * 2 * e
    assert sum(p.numel() for p in model.parameters()) == 11 * e + layers * block + 2 * e


def test_a_later_token_never_changes_an_earlier_logit() -> None:
    model, tokens = model_and_tokens(30)
    before = model(tokens)
    for p in (1, 11, 12, 29):
        changed = tokens.clone()
        changed[:, p] = (changed[:, p] + 1) % 11
        after = model(changed)
        assert torch.equal(after[:, :p], before[:, :p])
        assert not torch.equal(after[:, p], before[:, p])


def test_the_last_logit_depends_on_far_tokens() -> None:
    model, tokens = model_and_tokens(40)
    before = model(tokens)[:, -1]
    changed = tokens.clone()
    changed[:, :5] = (changed[:, :5] + 1) % 11
    assert not torch.equal(model(changed)[:, -1], before)


def compare(name: str, ours: Tensor, one_device: Tensor) -> None:
    """Judge in float64; one device stands for the reference, its error for the naive run's."""
    theirs = one_device.detach().numpy()
    check(name, ours.detach().numpy(), theirs, theirs, "float64")


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
    ring_size: int, options: dict[str, Any]
) -> None:
    model, tokens = model_and_tokens(33)
    inputs, targets = next_token_pairs(tokens)

    def run(**ring: Any) -> tuple[Tensor, Tensor, Tensor]:
        logits = model(inputs, **ring)
        loss = next_token_loss(logits, targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return logits, loss, torch.cat([gradient.flatten() for gradient in gradients])

    ours = run(ring_size=ring_size, simulate=True, **options)
    for name, ring, one in zip(("logits", "loss", "gradient"), ours, run(), strict=True):
        compare(name, ring, one)


def test_only_the_distance_of_positions_matters() -> None:
    # One segment and no dilation, so that shifting the rows changes nothing but the rotation.
    torch.manual_seed(0)
    config = DecoderConfig(DilationPattern.longnet([64], [1]), vocab_size=11, embed_dim=8)
    model = DilatedDecoderLM(config).double()
    tokens = torch.randint(11, (1, 16))
    compare("shifted", model(tokens, torch.arange(16) + 1000), model(tokens))
    spread = model(tokens, 2 * torch.arange(16))
    assert not torch.allclose(spread, model(tokens))


def test_initial_weights_have_the_gains_of_magneto() -> None:
    torch.manual_seed(0)
    e, f, layers = 128, 256, 4
    model = DilatedDecoderLM(small(embed_dim=e, num_heads=4, num_layers=layers, feed_forward_dim=f))
    gain = math.sqrt(math.log(2 * layers))
    expected = {
        "q_proj": (1.0, e, e),
        "k_proj": (1.0, e, e),
        "v_proj": (gain, e, e),
        "out_proj": (gain, e, e),
        "fc1": (gain, e, f),
        "fc2": (gain, f, e),
    }
    for name, (factor, into, out) in expected.items():
        weights = [p for key, p in model.named_parameters() if f".{name}." in key]
        assert len(weights) == layers
        drawn = torch.cat([weight.detach().flatten() for weight in weights]) / factor
        sigma = math.sqrt(2 / (into + out))
        # The sample variance of m normal draws has a relative deviation of sqrt(2 / m).
        assert float(drawn.square().mean()) == pytest.approx(
            sigma**2, rel=5 * math.sqrt(2 / drawn.numel())
        )


def test_it_learns_a_short_text_by_heart() -> None:
    torch.manual_seed(0)
    model = DilatedDecoderLM(DecoderConfig(PATTERN, embed_dim=32, feed_forward_dim=64))
    text = b"the quick brown fox jumps over the lazy dog"
    inputs, targets = next_token_pairs(torch.tensor([list(text)]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = next_token_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    assert torch.equal(model(inputs).argmax(-1), targets)


@pytest.mark.parametrize(
    ("sizes", "error", "words"),
    [
        ({"embed_dim": 13}, ValueError, "embed_dim=13"),
        ({"embed_dim": 9, "num_heads": 3}, ValueError, "even head dimension"),
        ({"embed_dim": 516, "num_heads": 2}, ValueError, "at most 256"),
        ({"num_layers": 0}, ValueError, "num_layers must be at least 1"),
        ({"vocab_size": 2.0}, TypeError, "vocab_size must be an int"),
        ({"num_heads": True}, TypeError, "num_heads must be an int"),
        ({"rotary_base": 1.0}, ValueError, "rotary_base must be above 1"),
        ({"rotary_base": math.nan}, ValueError, "rotary_base must be above 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    sizes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        small(**sizes)


def test_a_pattern_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="pattern must be a DilationPattern"):
        DecoderConfig([(8, 1)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs num_heads >= number of branches"):
        DecoderConfig(DilationPattern.head_groups([4, 8], [1, 2]), embed_dim=8, num_heads=1)


@pytest.mark.parametrize(
    ("tokens", "positions", "error", "words"),
    [
        (torch.zeros(1, 3), None, TypeError, "tokens must be int64"),
        (torch.zeros(3, dtype=torch.int64), None, ValueError, r"shape \(batch, n\)"),
        (torch.zeros(1, 3, dtype=torch.int64), torch.arange(4), ValueError, "each of the 3 rows"),
        (torch.zeros(1, 3, dtype=torch.int64), torch.ones(3), TypeError, "positions must be int64"),
    ],
)
def test_wrong_tokens_and_positions_are_refused(
    tokens: Tensor, positions: Tensor | None, error: type[Exception], words: str
) -> None:
    model = DilatedDecoderLM(small())
    with pytest.raises(error, match=words):
        model(tokens, positions)


def test_a_ring_needs_positions() -> None:
    model = DilatedDecoderLM(small())
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="positions must be given with group"):
        model(tokens, group=object())
