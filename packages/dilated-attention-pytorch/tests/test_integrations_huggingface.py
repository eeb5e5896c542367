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
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
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


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_pieces_through_the_cache_are_the_whole_forward(n: int) -> None:
    model, ids = llama("dilated"), tokens(n)
    whole = model(ids, use_cache=False).logits
    for sizes in ([1] * n, [n - n // 2, n // 2]):
        cache = DynamicCache(config=model.config)
        pieces = [piece for piece in ids.split(sizes, dim=1) if piece.shape[1]]
        logits = [model(piece, past_key_values=cache).logits for piece in pieces]
        compare("pieces", torch.cat(logits, dim=1), whole)


def test_beams_take_the_tokens_that_they_take_without_a_cache() -> None:
    model, prompt = llama("dilated"), tokens(7)
    given = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 9, "num_beams": 3}
    cached, whole = (model.generate(prompt, **given, use_cache=use) for use in (True, False))
    assert torch.equal(cached, whole)


@pytest.mark.parametrize("build", [llama, bert])
def test_a_padded_batch_is_its_sequences_alone(build: Any) -> None:
    model, ids = build("dilated"), tokens()
    found = model(ids, attention_mask=padded())[0]
    compare("padded", found[1:, :20], model(ids[1:, :20])[0])


@torch.no_grad()
def test_compiled_it_needs_to_be_told_that_nothing_is_packed() -> None:
    model, ids = llama("dilated").float(), tokens()
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(ValueError, match=r"attention_mask=torch\.ones_like\(input_ids\)"):
        compiled(ids, use_cache=False)
    found = compiled(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    assert torch.allclose(found, model(ids).logits, atol=1e-5)


def test_positions_are_read_again_when_they_change() -> None:
    model, ids = llama("dilated"), tokens()
    places = torch.arange(5, N + 5)[None]
    model(ids, position_ids=places)
    places[0, 9:] -= 14
    with pytest.raises(ValueError, match="position_ids do not count on by 1"):
        model(ids, position_ids=places)
    # Behind the padding they say nothing.
    behind = torch.arange(N).masked_fill(padded()[1] == 0, 1).expand(2, -1)
    model(ids[1:].expand(2, -1), attention_mask=padded()[1:].expand(2, -1), position_ids=behind)
    with pytest.raises(ValueError, match="position_ids do not count on by 1"):
        model(ids, position_ids=behind)


@pytest.mark.parametrize(
    "mask", [padded().flip(1), padded() - 1 + torch.arange(N).ne(25).long()], ids=["left", "middle"]
)
def test_padding_before_a_token_is_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match="padding on the right"):
        llama("dilated")(tokens(), attention_mask=mask.clamp(min=0))


def test_prompts_of_different_lengths_are_not_generated_together() -> None:
    with pytest.raises(ValueError, match="generate for prompts of one length at a time"):
        llama("dilated").generate(tokens(), attention_mask=padded(), max_new_tokens=2)


@pytest.mark.parametrize(
    "name", ["softcap", "s_aux", "sliding_window", "head_mask", "position_bias", "cu_seq_lens_q"]
)
def test_what_would_change_the_attention_is_not_ignored(name: str) -> None:
    layer = llama("dilated").model.layers[0].self_attn
    x = torch.zeros(1, 4, 5, 6)
    with pytest.raises(ValueError, match=f"cannot serve {name}"):
        huggingface.attention(layer, x, x, x, None, **{name: torch.ones(4)})


def test_a_model_without_attention_is_refused() -> None:
    model = MambaForCausalLM(MambaConfig(vocab_size=17, hidden_size=24, num_hidden_layers=1))
    with pytest.raises(ValueError, match="MambaForCausalLM takes no attention functions"):
        huggingface.use_dilated_attention(model, SEGMENTS, RATES)
    assert not hasattr(model.config, "dilated_attention")


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
            lambda: llama("dilated", output_attentions=True)(tokens()),
            "set output_attentions=False in the config",
        ),
        (
            lambda: llama("dilated")(tokens(), position_ids=torch.arange(N)[None] % 11),
            "position_ids do not count on by 1",
        ),
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
                tokens(), encoder_hidden_states=torch.zeros(2, N, 24, dtype=torch.float64)
            ),
            "this config asks for attention over an encoder's",
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
