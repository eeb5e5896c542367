"""The records of the historical package's names, and how to look them up."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._record import Fate, Kind, LegacyRecord

_PROMISED_REASON = "This version divides queries across devices, preventing proper memory savings."
_REPLACEMENT = "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring')"
_MEASURED = (
    "its tokens never attend to one another, because the softmax runs over the heads at a single "
    "position, and its ring never ran"
)

RECORDS: tuple[LegacyRecord, ...] = (
    LegacyRecord(
        name="RingDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        old_modules=("dilated_attention_pytorch.ring_dilated_attention",),
        target="dilated_attention_compat.legacy.ring_dilated_attention:RingDilatedAttention",
        since="0.2.0",
        removed_in="0.3.0",
        replacement=_REPLACEMENT,
        promised_reason=_PROMISED_REASON,
        measured=_MEASURED,
        result_change=(
            "Every number changes: each position was a mix of its own heads, and becomes a mix "
            "of the tokens its pattern lets it see."
        ),
        relative_error=(2.26, 1.58),
        before="""\
from dilated_attention_pytorch import RingDilatedAttention

attention = RingDilatedAttention(segment_lengths=[16, 32], dilation_rates=[1, 2])
""",
        after="""\
from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2])
""",
        codemod=(
            "Rename the import and the constructor to RingDilatedAttentionV2, positional "
            "segment_lengths and dilation_rates to keywords; drop block_size, use_checkpointing "
            "and use_tf32, which had no effect on the result. Subclasses and attention_mask are "
            "flagged, not rewritten."
        ),
        guide_anchor="ringdilatedattention",
    ),
    LegacyRecord(
        name="RingMultiheadDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        old_modules=("dilated_attention_pytorch.ring_multihead_dilated_attention",),
        target=(
            "dilated_attention_compat.legacy.ring_multihead_dilated_attention"
            ":RingMultiheadDilatedAttention"
        ),
        since="0.2.0",
        removed_in="0.3.0",
        replacement=_REPLACEMENT,
        promised_reason=_PROMISED_REASON,
        measured=_MEASURED,
        result_change=(
            "Every number changes, and weights trained with the old class were trained to mix "
            "heads: loaded into the replacement they give other outputs."
        ),
        relative_error=(1.30, 1.18),
        before="""\
from dilated_attention_pytorch import RingMultiheadDilatedAttention

attention = RingMultiheadDilatedAttention(
    embed_dim=48, num_heads=6, segment_lengths=[16, 32], dilation_rates=[1, 2]
)
""",
        after="""\
from dilated_attention_pytorch import create_multihead_dilated_attention

attention = create_multihead_dilated_attention(
    "ring", embed_dim=48, num_heads=6, segment_lengths=[16, 32], dilation_rates=[1, 2]
)
""",
        codemod=(
            "Replace the constructor by create_multihead_dilated_attention('ring', ...), "
            "positional arguments to keywords; drop block_size, use_checkpointing, use_tf32, "
            "use_flash_attention and compile_model. The result stays the pair (out, None). "
            "Subclasses, masks and need_weights=True are flagged, not rewritten."
        ),
        guide_anchor="ringmultiheaddilatedattention",
    ),
)

_BY_NAME = {record.name: record for record in RECORDS}


def find(name: str) -> LegacyRecord | None:
    """Return the record of an old name, or None where there is none."""
    return _BY_NAME.get(name)


def require(name: str) -> LegacyRecord:
    """Return the record of an old name that must have one.

    Raises:
        KeyError: There is none.
    """
    return _BY_NAME[name]


def old_modules() -> dict[str, tuple[LegacyRecord, ...]]:
    """Return the old module paths, each with the records of the names it held."""
    modules: dict[str, tuple[LegacyRecord, ...]] = {}
    for record in RECORDS:
        for module in record.old_modules:
            modules[module] = (*modules.get(module, ()), record)
    return modules


def load(record: LegacyRecord) -> Any:
    """Import the object that serves a record.

    Args:
        record: A record whose fate is `compat`.

    Returns:
        The class or function itself; importing it warns of nothing, using it does.
    """
    module, _, attribute = record.target.partition(":")
    return getattr(import_module(module), attribute)
