"""Records of changed arguments and defaults of the names that stay."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord
from ._shared import argument

_CORES = (
    *("DilatedAttention", "ImprovedDilatedAttention", "RingDilatedAttentionV2"),
    "TrueRingDilatedAttention",
)
_MULTIHEADS = ("MultiheadDilatedAttention", "ImprovedMultiheadDilatedAttention")
_FACTORY = ("create_dilated_attention", "create_multihead_dilated_attention")
_DROP = "Left out of the call."
_LEFT = "Nothing is rewritten."
_FLAG = "Flagged."
_NO_EFFECT = "without effect: a FutureWarning says so"
_NO_PARAMETERS = f"{_NO_EFFECT}; the module has no parameters and follows its inputs"
_TF32 = f"{_NO_EFFECT}; TF32 is a switch of the whole process"
_TF32_SWITCH = "torch.backends.cuda.matmul.allow_tf32"
_MASKS = "is_causal, key_padding_mask, cu_seqlens or pattern="
_CONFIGS = ("multihead_config", "attention_config")
_POOLS = ("block_size", "use_checkpointing", "use_memory_pool", "max_cached_buffers")


def _without_effect(name: str) -> LegacyRecord:
    is_tf32 = name.endswith("(use_tf32)")
    return argument(
        name,
        Fate.GONE,
        _TF32 if is_tf32 else _NO_PARAMETERS,
        _TF32_SWITCH if is_tf32 else "",
        codemod=_DROP,
    )


RECORDS = (
    *(
        argument(
            f"{name}(op)", Fate.GONE, "xFormers is not used: raises", "backend=", codemod=_FLAG
        )
        for name in ("DilatedAttention", "MultiheadDilatedAttention")
    ),
    *(
        _without_effect(f"{name}({option})")
        for name in ("DilatedAttention", "ImprovedDilatedAttention")
        for option in ("use_tf32", "device", "dtype")
    ),
    _without_effect("ImprovedMultiheadDilatedAttention(use_tf32)"),
    *(
        _without_effect(f"{name}({option})")
        for name in (
            *("RingDilatedAttentionV2", "TrueRingDilatedAttention", "RingAttentionCorrectV2"),
        )
        for option in ("device", "dtype")
    ),
    argument(
        "TrueRingDilatedAttention(chunk_size_kv)",
        Fate.GONE,
        f"{_NO_EFFECT}; keys and values held at once are bounded otherwise",
        "buffer_shards=",
        codemod=_DROP,
    ),
    argument(
        "DilatedAttention(softmax_scale)",
        Fate.CORRECTED,
        "it was ignored and is honoured",
        codemod=_LEFT,
        result_change="Every number changes where it was given.",
    ),
    *(
        argument(
            name,
            Fate.CORRECTED,
            "dropout fell on the weights and again on the output; it falls on the weights once",
            codemod=_LEFT,
            result_change="In training with dropout.",
        )
        for name in (
            "DilatedAttention(attention_dropout)",
            "MultiheadDilatedAttention(dropout)",
            "ImprovedDilatedAttention(dropout)",
            "ImprovedMultiheadDilatedAttention(dropout)",
        )
    ),
    argument(
        "RingDilatedAttentionV2(dropout)",
        Fate.CORRECTED,
        "it was ignored for ring_size above 1 and is honoured",
        codemod=_LEFT,
        result_change="In training with dropout.",
    ),
    argument(
        "RingAttentionCorrectV2(dropout)",
        Fate.CORRECTED,
        "it was ignored and is honoured",
        codemod=_LEFT,
        result_change="In training with dropout.",
    ),
    argument(
        "RingDilatedAttentionV2(segment_lengths, dilation_rates)",
        Fate.CORRECTED,
        "they were ignored and are honoured",
        codemod=_LEFT,
        result_change="Every number changes, unless one segment of rate 1 holds the sequence.",
    ),
    argument(
        "RingAttentionCorrectV2.forward(return_memory_stats)",
        Fate.GONE,
        "the figures were a formula: True raises",
        "explain()",
        codemod=_FLAG,
    ),
    *(
        argument(
            f"{name}.forward(attention_mask)",
            Fate.GONE,
            "it was ignored; anything but None raises",
            _MASKS,
            codemod=_FLAG,
        )
        for name in _CORES
    ),
    *(
        argument(
            f"{name}.forward(attn_mask)",
            Fate.GONE,
            "it was ignored; anything but None raises",
            _MASKS,
            codemod=_FLAG,
        )
        for name in _MULTIHEADS
    ),
    *(
        argument(
            f"{name}.forward(key_padding_mask)",
            Fate.CORRECTED,
            "it was ignored and is honoured, True = ignore the key",
            codemod=_LEFT,
            result_change="Every number changes where it was given.",
        )
        for name in _MULTIHEADS
    ),
    *(
        argument(
            f"{name}.forward(need_weights)",
            Fate.GONE,
            "the weights it returned were None; True raises",
            codemod=_FLAG,
        )
        for name in _MULTIHEADS
    ),
    *(
        argument(
            f"{name}.forward(value=None)",
            Fate.CORRECTED,
            "it stands for key, as usual; it stood for query even where key was given",
            codemod=_LEFT,
            kind=Kind.DEFAULT,
            result_change="Where key is given and value is not.",
        )
        for name in _MULTIHEADS
    ),
    *(
        argument(
            f"{name}(rule=None)",
            Fate.CORRECTED,
            "without rule= or pattern= every head takes part in every branch, and the branches are "
            "mixed by one softmax; each head took part in one branch, divided by their number",
            'rule="head_groups" for the old grouping of heads',
            codemod=_LEFT,
            kind=Kind.DEFAULT,
            result_change="Every number changes.",
        )
        for name in ("ImprovedDilatedAttention", "ImprovedMultiheadDilatedAttention")
    ),
    *(
        argument(
            f"{name}({option})",
            Fate.GONE,
            "configuration objects are not taken: raises",
            "keyword arguments",
            codemod=_FLAG,
        )
        for name in _FACTORY[1:]
        for option in _CONFIGS
    ),
    *(
        argument(
            f"{name}({option})",
            Fate.GONE,
            "without effect on the result: raises",
            codemod=_DROP,
        )
        for name in _FACTORY
        for option in _POOLS
    ),
    *(
        argument(
            f"{name}(**kwargs)",
            Fate.CORRECTED,
            "unknown names were dropped in silence and raise TypeError",
            codemod=_FLAG,
        )
        for name in _FACTORY
    ),
    *(
        argument(
            f"create_multihead_dilated_attention({option})",
            Fate.GONE,
            "block-sparse layers are not built: raises",
            codemod=_FLAG,
        )
        for option in (
            *("sparsity_ratio", "pattern_type", "enable_adaptive", "min_sparsity"),
            "max_sparsity",
        )
    ),
    argument(
        "register_multihead_attention(name)",
        Fate.CORRECTED,
        "it had to begin with multihead_; both spellings are the same name",
        codemod=_LEFT,
    ),
)
