"""Words that several records say, and short forms for records that need few of them."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord
from .._rewrite import Rewrite

OLD = "dilated_attention_pytorch"
LEGACY = "dilated_attention_compat.legacy"
PROMISED_REASON = "This version divides queries across devices, preventing proper memory savings."
RING = "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring')"
FACTORY = f"{OLD}:create_multihead_dilated_attention"
RING_V2 = f"{OLD}:RingDilatedAttentionV2"

HEADS_DEFECT = "does not attend over tokens: the softmax runs over the heads at a single position"
HEADS_MEASURED = (
    "its tokens never attend to one another, because the softmax runs over the heads at a single "
    "position"
)
BLOCKS_DEFECT = (
    "takes a softmax of its own in every block of keys and adds the results: the weights of a "
    "token sum to the number of its blocks, not to 1"
)
BLOCKS_MEASURED = (
    "every block of keys has a softmax of its own and the results are added, so that the weights "
    "of a token sum to the number of its blocks"
)

SEPARATE = (
    *("embed_dim", "num_heads", "dilation_rates", "segment_lengths", "dropout", "bias"),
    *("layer_norm", "layer_norm_eps", "gamma_init", "device", "dtype"),
)
"""What `MultiheadDilatedAttention` and the class with the fused projection begin with."""


def gone(
    name: str,
    why: str,
    replacement: str = "",
    *,
    modules: tuple[str, ...],
    kind: Kind = Kind.FUNCTION,
    exported: bool = False,
) -> LegacyRecord:
    """Record a name that is not served, with paths of its modules below the package."""
    return LegacyRecord(
        name=name,
        kind=kind,
        fate=Fate.GONE,
        exported=exported,
        old_modules=tuple(f"{OLD}.{module}" for module in modules),
        since="0.2.1",
        removed_in="0.2.1",
        replacement=replacement,
        why=why,
        codemod="Flagged with this advice; nothing is rewritten.",
    )


def argument(
    name: str,
    fate: Fate,
    why: str,
    replacement: str = "",
    *,
    codemod: str,
    kind: Kind = Kind.ARGUMENT,
    result_change: str = "",
) -> LegacyRecord:
    """Record an argument or a default of a name that stays."""
    return LegacyRecord(
        name=name,
        kind=kind,
        fate=fate,
        since="0.2.1",
        removed_in="0.2.1" if fate is Fate.GONE else "",
        replacement=replacement,
        why=why,
        result_change=result_change,
        codemod=codemod,
        guide_anchor="arguments",
    )


def stays(
    name: str,
    fate: Fate,
    module: str,
    *,
    exported: bool = False,
    historical: str = "",
    why: str = "",
    measured: str = "",
    defect: str = "",
    result_change: str = "",
    relative_error: tuple[float, float] | None = None,
    rewrite: Rewrite | None,
    codemod: str,
    kind: Kind = Kind.CLASS,
    extra_modules: tuple[str, ...] = (),
    guide_anchor: str = "every-old-name",
) -> LegacyRecord:
    """Record a name that the package still has, kept or corrected."""
    return LegacyRecord(
        name=name,
        kind=kind,
        fate=fate,
        exported=exported,
        old_modules=tuple(f"{OLD}.{path}" for path in (module, *extra_modules)),
        target=f"{OLD}:{name}",
        historical=historical,
        since="" if fate is Fate.KEPT else "0.2.1",
        why=why,
        measured=measured,
        defect=defect,
        result_change=result_change,
        relative_error=relative_error,
        rewrite=rewrite,
        codemod=codemod,
        guide_anchor=guide_anchor,
    )
