"""Dilated attention in Hugging Face Transformers: `attn_implementation="dilated"`.

Needs the extra `huggingface`. The pattern is an entry of the model's config, so that it is saved
and loaded with the model:

    register()
    config.dilated_attention = {"segment_lengths": [2048, 8192], "dilation_rates": [1, 4]}
    model = AutoModelForCausalLM.from_config(config, attn_implementation="dilated")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import (
    AttentionMaskInterface,
    bidirectional_mask_function,
    causal_mask_function,
)

from ..functional import dilated_attention
from ..functional.decoding import decode_attention
from ..pattern import DilationPattern
from ._positions import check_one_sequence

NAME: Final = "dilated"
ENTRY: Final = "dilated_attention"

_RULES: Final = {
    "longnet": DilationPattern.longnet,
    "torchscale": DilationPattern.torchscale,
    "head_groups": DilationPattern.head_groups,
}
# What models hand to every attention function and what changes nothing about attention.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("cache_position", "use_cache", "return_dict", "labels"),
        *("num_items_in_batch", "output_hidden_states", "output_router_logits", "layer_idx"),
        *("position_embeddings", "past_key_values", "token_type_ids"),
    }
)


def register() -> None:
    """Make `attn_implementation="dilated"` known to Transformers; calling it again is harmless."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, padding_mask)


def use_dilated_attention(
    model: PreTrainedModel,
    segment_lengths: Sequence[int],
    dilation_rates: Sequence[int],
    *,
    rule: str = "longnet",
) -> None:
    """Replace the attention of a built model by the dilated one, in place; its weights stay.

    Args:
        model: Any model whose attention goes through Transformers' `AttentionInterface`.
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        rule: `longnet`, `torchscale` or `head_groups`.

    Raises:
        ValueError: A pattern that does not fit, or a model that does not take attention functions
            or has no attention.
        TypeError: Lengths or rates that are not ints.
    """
    register()
    entry = {
        "segment_lengths": list(segment_lengths),
        "dilation_rates": list(dilation_rates),
        "rule": rule,
    }
    _pattern(entry)
    if any(hasattr(module, "is_causal") for module in model.modules()):
        model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ValueError(
            f"{type(model).__name__} takes no attention functions: it has no attention, or one "
            "that does not go through Transformers' AttentionInterface"
        )
    setattr(model.config, ENTRY, entry)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    position_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention function: `dilated_attention` of (b, h, n, d) tensors.

    With fewer queries than keys, as after a step of generation, it is `decode_attention`: only
    the cached rows that the new tokens see are read.

    Args:
        module: The attention layer; says whether it is causal, and holds the config.
        query: (b, H, m, d).
        key: (b, H_kv, n, d).
        value: (b, H_kv, n, d).
        attention_mask: What `padding_mask` returned: (b, n) bool, True = attend.
        scaling: Softmax scale.
        dropout: Probability of dropping an attention weight.
        is_causal: Overrides the module's.
        position_ids: Where the model hands them on: (b, m), to find packed sequences by.
        **kwargs: What the model passes on; what would change the attention raises.

    Returns:
        (out, None), out (b, m, H, d).

    Raises:
        ValueError: What the config asks for cannot be done: no pattern, a sliding window, soft
            capping, sinks, a position bias, attention weights, packed sequences, dense masks,
            attention over another sequence.
    """
    config: Any = module.config
    for name, given in kwargs.items():
        if name not in _WITHOUT_EFFECT and given is not None and given is not False:
            raise ValueError(
                f"dilated attention cannot serve {name}, which this model asks for; use "
                'attn_implementation="eager", or a config without it'
            )
    if getattr(config, "output_attentions", False):
        raise ValueError(
            "dilated attention makes no matrix of attention weights: set output_attentions=False "
            "in the config, and ask attention_weights(...) for chosen rows"
        )
    if getattr(config, "is_encoder_decoder", False) or getattr(
        config, "add_cross_attention", False
    ):
        raise ValueError(
            "dilated attention is defined on one sequence, and this config asks for attention over "
            'an encoder\'s; use attn_implementation="eager" for it'
        )
    pattern = _pattern(getattr(config, ENTRY, None))
    if attention_mask is not None and attention_mask.dim() != 2:
        raise ValueError(
            "dilated attention takes padding masks of shape (batch, n), got "
            f"{tuple(attention_mask.shape)}; who sees whom is the pattern's to say"
        )
    if position_ids is not None:
        check_one_sequence(position_ids, attention_mask)
    causal = bool(module.is_causal if is_causal is None else is_causal)
    rows, keys = query.shape[2], key.shape[2]
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if rows == keys:
        out = dilated_attention(
            query,
            key,
            value,
            pattern,
            is_causal=causal,
            scale=scaling,
            key_mask=attention_mask,
            dropout_p=dropout,
        )
    elif causal and rows < keys and not dropout:
        out = decode_attention(query, key, value, pattern, scale=scaling, key_mask=attention_mask)
    else:
        raise ValueError(
            f"dilated attention is defined on one sequence, got {rows} queries and {keys} keys "
            f"(causal: {causal}, dropout: {dropout}); cached rows need causal attention in eval()"
        )
    return out, None


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """Transformers' mask function: the padding mask as it is, (b, n) bool, or None.

    Causality is an option of the operator and needs no mask.

    Args:
        batch_size: b, without effect.
        q_length: m.
        kv_length: n.
        q_offset: Rows that a cache holds.
        kv_offset: Rows that a cache has dropped.
        mask_function: Who may see whom.
        attention_mask: (b, n) bool, True = attend.
        **kwargs: Hints for other mask functions, without effect.

    Raises:
        ValueError: A mask function that is neither causal nor bidirectional (sliding windows,
            chunks, packed sequences), padding elsewhere than at the end, or a cache of fixed size.
    """
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        raise ValueError(
            "dilated attention serves causal and bidirectional models with padding masks; sliding "
            "windows, chunks, overlays and packed sequences are refused. Put each sequence into a "
            "row of its own. Under torch.compile and without a cache Transformers cannot tell "
            "whether sequences are packed: pass attention_mask=torch.ones_like(input_ids)"
        )
    causal = mask_function is causal_mask_function
    if kv_offset or (causal and int(q_offset) + q_length != kv_length):
        raise ValueError(
            f"dilated attention needs a cache of exactly the rows so far, got {kv_length} keys for "
            f"rows {int(q_offset)}..{int(q_offset) + q_length}; use a DynamicCache"
        )
    if attention_mask is None or bool(attention_mask.all()):
        return None
    if attention_mask.shape[1] != kv_length:
        raise ValueError(
            f"attention_mask must cover the {kv_length} keys, got {tuple(attention_mask.shape)}"
        )
    attended = attention_mask.to(torch.bool)
    if bool((attended[:, 1:] & ~attended[:, :-1]).any()):
        raise ValueError(
            "dilated attention needs padding on the right: segments are counted from the first "
            "position, so padding before a token would shift them. Set "
            'padding_side="right"; generate for prompts of one length at a time'
        )
    return attended


def _pattern(entry: Any) -> DilationPattern:
    """The pattern that a config's entry describes."""
    example = '{"segment_lengths": [2048, 8192], "dilation_rates": [1, 4], "rule": "longnet"}'
    known = {"segment_lengths", "dilation_rates", "rule"}
    if not isinstance(entry, dict) or not known - {"rule"} <= set(entry) <= known:
        raise ValueError(f"config.{ENTRY} must be like {example}, got {entry!r}")
    rule = entry.get("rule", "longnet")
    if rule not in _RULES:
        raise ValueError(f"rule must be one of {sorted(_RULES)}, got {rule!r}")
    return _RULES[rule](entry["segment_lengths"], entry["dilation_rates"])
