"""Decoding with a key/value cache: equal to the whole forward, and reading only what is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern, dilated_attention
from dilated_attention_pytorch.functional.decoding import decode_attention
from dilated_attention_pytorch.models import (
    DecoderConfig,
    DilatedDecoderLM,
    KeyValueCache,
    LongNetLM,
    generate,
)

LADDER = DilationPattern.longnet([5, 12, 40], [1, 2, 3])
SPARSE = DilationPattern.longnet([8], [4])


def inputs(n: int, heads: int, kv_heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        return torch.randn(2, n, count, 8, generator=generator, dtype=torch.float64).to(dtype)

    return draw(heads), draw(kv_heads), draw(kv_heads)


def compare(name: str, ours: Tensor, whole: Tensor, dtype: str = "float64") -> None:
    """The whole forward stands for the reference."""
    theirs = whole.detach().double().numpy()
    check(name, ours.detach().double().numpy(), theirs, theirs, dtype)


@pytest.mark.parametrize(
    ("pattern", "heads", "kv_heads"),
    [
        (LADDER, 6, 3),
        (SPARSE, 3, 1),
        (DilationPattern.torchscale([5, 12], [2, 4]), 4, 2),
        (DilationPattern.head_groups([5, 12], [2, 3]), 4, 4),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_new_rows_are_those_of_the_whole_sequence(
    pattern: DilationPattern, heads: int, kv_heads: int, masked: bool
) -> None:
    n = 47
    query, key, value = inputs(n, heads, kv_heads, torch.float64)
    mask = torch.rand(2, n, generator=torch.Generator().manual_seed(1)) > 0.3
    whole = dilated_attention(
        query, key, value, pattern, is_causal=True, key_mask=mask if masked else None
    )
    for m, end in ((1, 1), (1, 13), (n, n), (3, 40)):
        found = decode_attention(
            query[:, end - m : end],
            key[:, :end],
            value[:, :end],
            pattern,
            key_mask=mask[:, :end] if masked else None,
        )
        compare(f"{m} rows to {end}", found, whole[:, end - m : end])


def test_rows_that_a_token_does_not_see_are_not_read() -> None:
    query, key, value = inputs(39, 4, 4, torch.float64)
    clean = decode_attention(query[:, -1:], key, value, LADDER)
    # The gradient of a value is the weight of its row.
    probe = value.clone().requires_grad_()
    decode_attention(query[:, -1:], key, probe, LADDER).sum().backward()
    assert probe.grad is not None
    unseen = probe.grad.eq(0).all(-1, keepdim=True)
    assert unseen.sum() > unseen.numel() // 2
    for other in (torch.nan, torch.inf):
        poisoned = key.masked_fill(unseen, other), value.masked_fill(unseen, other)
        assert torch.equal(decode_attention(query[:, -1:], *poisoned, LADDER), clean)


def test_a_row_without_keys_is_zero_and_has_no_gradient() -> None:
    query, key, value = inputs(8, 3, 3, torch.float64)
    query.requires_grad_()
    out = decode_attention(query, key, value, DilationPattern.longnet([8], [8]))
    assert torch.equal(out[:, 3], torch.zeros_like(out[:, 3]))
    out.sum().backward()
    assert query.grad is not None
    assert bool(query.grad.isfinite().all())


def test_sixteen_bits_are_computed_in_float32() -> None:
    query, key, value = inputs(40, 3, 3, torch.bfloat16)
    wide = [t.double() for t in (query, key, value)]
    whole = dilated_attention(*wide, LADDER, is_causal=True)
    found = decode_attention(query, key, value, LADDER)
    assert found.dtype == torch.bfloat16
    compare("bfloat16", found, whole, "bfloat16")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pattern": DilationPattern.preset("gigapath")}, ValueError, "exact=True"),
        ({"rows": 4}, ValueError, "got 8 queries and 4 keys"),
        ({"key_mask": torch.ones(2, 3, dtype=torch.bool)}, ValueError, "key_mask must have"),
        ({"pattern": "longnet"}, TypeError, "pattern must be"),
        ({"scale": float("inf")}, ValueError, "scale must be finite"),
    ],
)
def test_wrong_decoding_is_refused(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    query, key, value = inputs(8, 3, 3, torch.float64)
    given = {"pattern": LADDER, "rows": 8} | change
    rows = given.pop("rows")
    with pytest.raises(error, match=words):
        decode_attention(query, key[:, :rows], value[:, :rows], given.pop("pattern"), **given)


def decoder() -> DilatedDecoderLM:
    torch.manual_seed(0)
    config = DecoderConfig(
        LADDER, vocab_size=11, embed_dim=12, num_heads=3, num_layers=2, feed_forward_dim=20
    )
    return DilatedDecoderLM(config).double()


def longnet(position: str) -> LongNetLM:
    torch.manual_seed(0)
    sizes = {"num_encoder_layers": 2, "num_decoder_layers": 1, "dim_feedforward": 20}
    model = LongNetLM(
        11,
        12,
        3,
        **sizes,
        segment_lengths=[5, 12, 40],
        dilation_rates=[1, 2, 3],
        position=position,
    )
    return model.double()


MODELS = {
    "decoder": decoder,
    "longnet-xpos": lambda: longnet("xpos"),
    "longnet-rotary": lambda: longnet("rotary"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pieces", [[1] * 44, [7, 1, 5, 31]])
def test_logits_token_by_token_are_those_of_the_whole_text(name: str, pieces: list[int]) -> None:
    model = MODELS[name]()
    tokens = torch.randint(11, (2, 44), generator=torch.Generator().manual_seed(0))
    cache = model.empty_cache()
    with torch.no_grad():
        found = torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, 1)], 1)
        whole = model(tokens)
    assert cache.length == 44
    compare("logits", found, whole)


@pytest.mark.parametrize("name", MODELS)
def test_generation_with_the_cache_takes_the_tokens_of_the_whole_text(name: str) -> None:
    model = MODELS[name]()
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    tokens = generate(model, prompt, 30)
    assert tokens.shape == (2, 33)
    assert torch.equal(tokens[:, 3:], model(tokens)[:, 2:-1].argmax(-1))


def test_what_a_cache_cannot_serve_is_refused() -> None:
    model = decoder()
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="for 3 attentions and the model has 2"):
        model(tokens, cache=KeyValueCache(3))
    for name, value in (("ring_size", 2), ("order", "zigzag"), ("shard_lengths", [3])):
        with pytest.raises(ValueError, match=f"pass no {name}"):
            model(tokens, cache=model.empty_cache(), **{name: value})
    with pytest.raises(ValueError, match="pass no positions"):
        model(tokens, torch.arange(3), cache=model.empty_cache())
    cache = model.empty_cache()
    model(tokens, cache=cache)
    with pytest.raises(ValueError, match="do not continue"):
        model(tokens[:1], cache=cache)
    other = longnet("rotary")
    with pytest.raises(ValueError, match="pass is_causal=True"):
        other(tokens, False, cache=other.empty_cache())


@pytest.mark.parametrize("kind", ["decoder", "longnet"])
def test_under_autocast_the_cache_holds_and_gives_what_the_whole_forward_does(kind: str) -> None:
    torch.manual_seed(0)
    model = (
        DilatedDecoderLM(DecoderConfig(LADDER, vocab_size=17, embed_dim=24, feed_forward_dim=32))
        if kind == "decoder"
        else LongNetLM(17, 24, 4, 1, 1, 32, [5, 12, 40], [1, 2, 3])
    )
    tokens = torch.randint(17, (2, 23))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = model(tokens)
        cache = model.empty_cache()
        logits = torch.cat([model(piece, cache=cache) for piece in tokens.split(1, dim=1)], dim=1)
    assert {x._key.dtype for x in cache.attentions} == {torch.bfloat16}
    reference = model.double()(tokens).detach().numpy()
    naive = whole.double().numpy()
    check("logits", logits.double().numpy(), reference, naive, "bfloat16")
