"""Records of the factory: its functions and every attention type they were asked for."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord, Ran
from .._rewrite import Rewrite
from ._shared import OLD, stays

_CORE = "create_dilated_attention"
_MULTI = "create_multihead_dilated_attention"
_CONFIG_CODEMOD = (
    "Drop use_memory_pool, max_cached_buffers, block_size, use_checkpointing and use_tf32, which "
    "had no effect on the result. Configuration objects and unknown names are flagged."
)
_RINGLESS = ("use_memory_pool", "max_cached_buffers", "block_size", "use_checkpointing")


def _type(
    function: str,
    name: str,
    fate: Fate,
    why: str,
    replacement: str = "",
    *,
    ran: Ran = Ran.NOTHING,
    result_change: str = "",
) -> LegacyRecord:
    is_gone = fate is Fate.GONE
    return LegacyRecord(
        name=f"{function}({name!r})",
        kind=Kind.ATTENTION_TYPE,
        fate=fate,
        ran=ran,
        since="0.2.1",
        removed_in="0.2.1" if is_gone else "",
        replacement=replacement,
        why=why,
        result_change=result_change,
        codemod=(
            "Flagged with this advice; nothing is rewritten."
            if is_gone
            else "Nothing to rewrite: the call is the same."
        ),
        guide_anchor="factory",
    )


_RAISED = "it raised {}, and gives the correct class now"
_TYPE_ERROR = _RAISED.format("TypeError")
_UNKNOWN = _RAISED.format("ValueError")
_ABSTRACT = _RAISED.format("TypeError (abstract class)")
_BLOCKS = (
    "this factory builds nothing whose numbers are wrong, and a block-sparse layer took a softmax "
    "of its own in every block of keys and added the results"
)
_NEVER = "no factory ever knew it"
_RING_CORE = f"{_CORE}('ring'), or BlockSparseRingDilatedAttention with its old numbers until 0.3.0"
_RING_MULTI = f"{_MULTI}('ring'), or create_block_sparse_attention with its old numbers until 0.3.0"

RECORDS = (
    stays(
        _CORE,
        Fate.CORRECTED,
        "core",
        kind=Kind.FUNCTION,
        exported=True,
        extra_modules=("core.factory",),
        why="every type works, and every type computes the same attention",
        measured="every type but 'ring' and 'block_sparse_ring' raised TypeError",
        result_change=(
            "'ring' was dense attention, and is dilated by LongNet's rule like every other type."
        ),
        rewrite=Rewrite(
            target=f"{OLD}:{_CORE}",
            parameters=("attention_type", "segment_lengths", "dilation_rates"),
            dropped=(*_RINGLESS, "use_tf32"),
            flagged=("sparsity_ratio", "pattern_type"),
        ),
        codemod=_CONFIG_CODEMOD,
        guide_anchor="factory",
    ),
    stays(
        _MULTI,
        Fate.CORRECTED,
        "core",
        kind=Kind.FUNCTION,
        exported=True,
        extra_modules=("core.factory",),
        why="every type works, and every type computes the same attention",
        measured="'ring', which the old warning told people to use, raised ValueError",
        result_change="'auto' and 'improved' attended over heads, and attend over tokens now.",
        rewrite=Rewrite(
            target=f"{OLD}:{_MULTI}",
            parameters=(
                *("attention_type", "embed_dim", "num_heads", "segment_lengths", "dilation_rates"),
            ),
            dropped=(*_RINGLESS, "use_tf32"),
            flagged=(
                *("multihead_config", "attention_config", "sparsity_ratio", "pattern_type"),
                *("enable_adaptive", "min_sparsity", "max_sparsity"),
            ),
        ),
        codemod=_CONFIG_CODEMOD,
        guide_anchor="factory",
    ),
    stays(
        "register_attention",
        Fate.KEPT,
        "core",
        kind=Kind.FUNCTION,
        extra_modules=("core.factory",),
        rewrite=None,
        codemod="Nothing to rewrite; subclasses of BaseDilatedAttention are flagged.",
        guide_anchor="factory",
    ),
    stays(
        "register_multihead_attention",
        Fate.KEPT,
        "core",
        kind=Kind.FUNCTION,
        extra_modules=("core.factory",),
        rewrite=None,
        codemod="Nothing to rewrite; subclasses of BaseMultiheadDilatedAttention are flagged.",
        guide_anchor="factory",
    ),
    _type(_CORE, "auto", Fate.CORRECTED, _TYPE_ERROR),
    _type(_CORE, "standard", Fate.CORRECTED, _TYPE_ERROR),
    _type(_CORE, "improved", Fate.CORRECTED, _TYPE_ERROR),
    _type(
        _CORE,
        "ring",
        Fate.CORRECTED,
        "it was dense attention",
        ran=Ran.FORWARD,
        result_change="Every number changes, unless one segment of rate 1 holds the sequence.",
    ),
    _type(_CORE, "distributed", Fate.CORRECTED, _TYPE_ERROR),
    _type(_CORE, "improved_distributed", Fate.CORRECTED, _TYPE_ERROR),
    _type(_CORE, "ring_distributed", Fate.CORRECTED, _UNKNOWN),
    _type(_CORE, "block_sparse_ring", Fate.GONE, _BLOCKS, _RING_CORE, ran=Ran.FORWARD),
    _type(_CORE, "block_sparse_ring_distributed", Fate.GONE, _NEVER, f"{_CORE}('distributed')"),
    _type(_CORE, "block_sparse", Fate.GONE, _NEVER, _RING_CORE),
    _type(
        _MULTI,
        "auto",
        Fate.CORRECTED,
        "it attended over heads",
        ran=Ran.FORWARD,
        result_change="Every number changes.",
    ),
    _type(_MULTI, "standard", Fate.CORRECTED, _TYPE_ERROR),
    _type(
        _MULTI,
        "improved",
        Fate.CORRECTED,
        "it attended over heads",
        ran=Ran.FORWARD,
        result_change="Every number changes.",
    ),
    _type(_MULTI, "ring", Fate.CORRECTED, _UNKNOWN),
    _type(_MULTI, "distributed", Fate.CORRECTED, _ABSTRACT),
    _type(_MULTI, "improved_distributed", Fate.CORRECTED, _ABSTRACT),
    _type(_MULTI, "ring_distributed", Fate.CORRECTED, _ABSTRACT),
    _type(_MULTI, "block_sparse_ring", Fate.GONE, _BLOCKS, _RING_MULTI, ran=Ran.FORWARD),
    _type(_MULTI, "block_sparse_ring_distributed", Fate.GONE, _NEVER, f"{_MULTI}('distributed')"),
    _type(_MULTI, "block_sparse", Fate.GONE, _NEVER, _RING_MULTI),
)
