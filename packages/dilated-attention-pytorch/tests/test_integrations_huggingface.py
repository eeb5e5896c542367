"""Transformers models with attn_implementation="dilated", against dense masks of the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern

transformers = pytest.importorskip(
    "transformers", reason="needs transformers: the extra huggingface"
)

from transformers import (  # noqa: E402
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    StaticCache,
)

from dilated_attention_pytorch.integrations import huggingface  # noqa: E402

SEGMENTS, RATES = [5, 12, 40], [1, 2, 3]
N = 33
ENTRY = {"segment_lengths": SEGMENTS, "dilation_rates": RATES}
SIZES: dict[str, Any] = {
    "vocab_size": 17,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def llama(implementation: str, **options: Any) -> LlamaForCausalLM:
    huggingface.register()
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES | {"num_key_value_heads": 2, "dilated_attention": ENTRY} | options)
    config._attn_implementation = implementation
    return LlamaForCausalLM(config).double().eval()


def bert(implementation: str, **options: Any) -> BertModel:
    huggingface.register()
    torch.manual_seed(0)
    config = BertConfig(**SIZES | {"dilated_attention": ENTRY} | options)
    config._attn_implementation = implementation
    return BertModel(config).double().eval()


def tokens(n: int = N) -> Tensor:
    return torch.randint(17, (2, n), generator=torch.Generator().manual_seed(0))


def padded() -> Tensor:
    mask = torch.ones(2, N, dtype=torch.int64)
    mask[1, 20:] = 0
    return mask


def log_counts(rule: str, causal: bool, mask: Tensor | None) -> Tensor:
    """log C, (b, H, n, n), written down pair by pair: what is added to dense scores."""
    build = {"longnet": DilationPattern.longnet, "torchscale": DilationPattern.torchscale}[rule]
    pattern = build(SEGMENTS, RATES)
    counts = torch.zeros(4, N, N, dtype=torch.float64)
    for (w, r), offsets in zip(zip(SEGMENTS, RATES, strict=True), pattern.offsets(4), strict=True):
        for h, o in enumerate(offsets):
            for p in range(N):
                for k in range(p + 1 if causal else N):
                    same = p // w == k // w
                    counts[h, p, k] += same and p % w % r == o and k % w % r == o
    counts = counts.expand(2, 4, N, N)
    return (counts if mask is None else counts * mask.bool()[:, None, None]).log()


def compare(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Judge in float64; dense attention under the mask of the definition is the reference."""
    reference = theirs.detach().numpy()
    check(name, ours.detach().numpy(), reference, reference, "float64")


@pytest.mark.parametrize("rule", ["longnet", "torchscale"])
@pytest.mark.parametrize("mask", [None, padded()], ids=["whole", "padded"])
def test_a_llama_is_the_one_under_the_mask_of_the_definition(
    rule: str, mask: Tensor | None
) -> None:
    ours, dense, ids = (
        llama("dilated", dilated_attention=ENTRY | {"rule": rule}),
        llama("sdpa"),
        tokens(),
    )
    real = torch.ones(2, N).bool() if mask is None else mask.bool()
    found = ours(ids, attention_mask=mask).logits
    wanted = dense(ids, attention_mask=log_counts(rule, True, mask)).logits
    compare("logits", found[real], wanted[real])
    for model, out in ((ours, found), (dense, wanted)):
        out[real].square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
    pairs = zip(ours.parameters(), dense.parameters(), strict=True)
    compare(
        "gradients",
        *map(torch.cat, zip(*((a.grad.ravel(), b.grad.ravel()) for a, b in pairs), strict=True)),
    )


@pytest.mark.parametrize("mask", [None, padded()], ids=["whole", "padded"])
def test_a_bert_is_the_one_under_the_mask_of_the_definition(mask: Tensor | None) -> None:
    ids = tokens()
    real = torch.ones(2, N).bool() if mask is None else mask.bool()
    found = bert("dilated")(ids, attention_mask=mask).last_hidden_state
    wanted = bert("sdpa")(ids, attention_mask=log_counts("longnet", False, mask)).last_hidden_state
    compare("hidden", found[real], wanted[real])


def test_one_segment_without_dilation_is_dense_attention() -> None:
    model, ids = llama("sdpa"), tokens()
    dense = model(ids).logits
    huggingface.use_dilated_attention(model, [64], [1])
    compare("logits", model(ids).logits, dense)
    huggingface.use_dilated_attention(model, SEGMENTS, RATES)
    assert not torch.allclose(model(ids).logits, dense)


def test_the_pattern_is_saved_and_loaded_with_the_model(tmp_path: Any) -> None:
    model, ids = llama("sdpa").float(), tokens()
    huggingface.use_dilated_attention(model, SEGMENTS, RATES, rule="torchscale")
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="dilated").eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_generation_with_the_cache_takes_the_tokens_of_the_whole_text() -> None:
    model, prompt = llama("dilated"), tokens(7)
    model.generation_config.eos_token_id = None
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )
    assert out.shape == (2, 27)
    assert torch.equal(out[:, 7:], model(out).logits[:, 6:-1].argmax(-1))


def test_dropout_reaches_the_operator() -> None:
    model, ids = llama("dilated", attention_dropout=0.5), tokens()
    kept = model(ids).logits
    compare("eval", kept, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, kept)


def test_padding_on_the_left_is_refused() -> None:
    with pytest.raises(ValueError, match="padding on the right"):
        llama("dilated")(tokens(), attention_mask=padded().flip(1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: llama("dilated", dilated_attention=None)(tokens()),
            "config.dilated_attention must",
        ),
        (
            lambda: llama("dilated", dilated_attention=ENTRY | {"windows": 3})(tokens()),
            "config.dilated_attention must",
        ),
        (
            lambda: llama("dilated", dilated_attention=ENTRY | {"rule": "x"})(tokens()),
            "rule must be one of",
        ),
        (lambda: llama("dilated")(tokens(), output_attentions=True), "output_attentions"),
        (
            lambda: llama("dilated")(
                tokens(), attention_mask=torch.zeros(2, 1, N, N, dtype=torch.float64)
            ),
            r"shape \(batch, n\)",
        ),
        (
            lambda: llama("dilated")(
                tokens(), position_ids=torch.arange(N)[None] % 11, use_cache=False
            ),
            "packed sequences are refused",
        ),
        (
            lambda: llama("dilated")(
                tokens(), past_key_values=StaticCache(llama("dilated").config, max_cache_len=64)
            ),
            "use a DynamicCache",
        ),
        (
            lambda: bert("dilated", is_decoder=True, add_cross_attention=True)(
                tokens(), encoder_hidden_states=torch.zeros(2, 5, 24, dtype=torch.float64)
            ),
            "defined on one sequence, got 33 queries and 5 keys",
        ),
    ],
)
def test_what_cannot_be_served_raises(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_sliding_window_is_refused() -> None:
    huggingface.register()
    config = MistralConfig(
        num_key_value_heads=2, sliding_window=8, dilated_attention=ENTRY, **SIZES
    )
    config._attn_implementation = "dilated"
    with pytest.raises(ValueError, match="sliding"):
        MistralForCausalLM(config)(tokens())
