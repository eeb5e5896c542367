"""Records of the block-sparse classes and of what made them."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord, Ran
from .._rewrite import Rewrite
from ._shared import (
    BLOCKS_DEFECT,
    BLOCKS_MEASURED,
    LEGACY,
    OLD,
    PROMISED_REASON,
    RING,
    RING_V2,
)

_CHANGE = (
    "Every number changes: the old class saw the blocks around a token and weighted them wrongly, "
    "the replacement sees the tokens of LongNet's segments."
)
_DROPPED = (
    *("use_adaptive_sparsity", "quality_threshold", "enable_memory_pool", "enable_packed_comm"),
    *("enable_hardware_opt", "use_tf32", "block_size", "use_checkpointing"),
)
_FUNCTION_CODEMOD = (
    "Flagged: the replacement attends in LongNet's pattern, so whether it is one is the author's "
    "decision. segment_lengths and dilation_rates had no part in which blocks were seen, but for "
    "the first three rates."
)

RECORDS = (
    LegacyRecord(
        name="BlockSparseRingDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.block_sparse_ring_dilated_attention",),
        target=f"{LEGACY}.block_sparse_ring_dilated_attention:BlockSparseRingDilatedAttention",
        historical=f"{LEGACY}.block_sparse_ring_dilated_attention:BlockSparseRingDilatedAttention",
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=f"{BLOCKS_MEASURED}, and it has no ring",
        defect=BLOCKS_DEFECT,
        result_change=_CHANGE,
        relative_error=(3.81, 1.87),
        error_against=(
            "One softmax over all the keys of the same blocks; blocks of 8, pattern dilated_sparse."
        ),
        before="""\
from dilated_attention_pytorch import BlockSparseRingDilatedAttention

attention = BlockSparseRingDilatedAttention([16, 32], [1, 2])
""",
        after="""\
from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2])
""",
        rewrite=Rewrite(
            target=RING_V2,
            parameters=(
                *("segment_lengths", "dilation_rates", "sparse_config", "sparsity_config"),
                *("dropout", "ring_size", "device", "dtype", *_DROPPED),
            ),
            dropped=(*_DROPPED, "device", "dtype"),
            flagged=("sparse_config", "sparsity_config"),
        ),
        codemod=(
            "Rename the import and the constructor to RingDilatedAttentionV2, positional "
            "arguments to keywords; drop what had no effect (dropout had none, and has one now). A "
            "sparse_config, subclasses and return_attention_weights=True are flagged."
        ),
        guide_anchor="blocksparseringdilatedattention",
    ),
    LegacyRecord(
        name="BlockSparseRingMultiheadDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.block_sparse_ring_multihead_dilated_attention",),
        target=(
            f"{LEGACY}.block_sparse_ring_multihead_dilated_attention"
            ":BlockSparseRingMultiheadDilatedAttention"
        ),
        historical=(
            f"{LEGACY}.block_sparse_ring_multihead_dilated_attention"
            ":BlockSparseRingMultiheadDilatedAttention"
        ),
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=f"{BLOCKS_MEASURED}, and it has no ring",
        defect=BLOCKS_DEFECT,
        result_change=_CHANGE,
        relative_error=(3.29, 1.80),
        error_against=(
            "One softmax over all the keys of the same blocks; blocks of 8, pattern dilated_sparse."
        ),
        before="""\
from dilated_attention_pytorch import BlockSparseRingMultiheadDilatedAttention

attention = BlockSparseRingMultiheadDilatedAttention(48, 6, [16, 32], [1, 2])
""",
        after="""\
from dilated_attention_pytorch import MultiheadDilatedAttention

attention = MultiheadDilatedAttention(
    embed_dim=48,
    num_heads=6,
    segment_lengths=[16, 32],
    dilation_rates=[1, 2],
    layer_norm=False,
    rule="longnet",
)
""",
        rewrite=None,
        codemod=(
            "Flagged: the replacement with the same state_dict keys (MultiheadDilatedAttention "
            "with layer_norm=False and rule='longnet') attends in another pattern and draws its "
            "initial weights otherwise."
        ),
        guide_anchor="blocksparseringmultiheaddilatedattention",
    ),
    LegacyRecord(
        name="BlockSparseRingDistributedDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.block_sparse_ring_distributed_dilated_attention",),
        target=(
            f"{LEGACY}.block_sparse_ring_distributed_dilated_attention"
            ":BlockSparseRingDistributedDilatedAttention"
        ),
        historical=(
            f"{LEGACY}.block_sparse_ring_distributed_dilated_attention"
            ":BlockSparseRingDistributedDilatedAttention"
        ),
        ran=Ran.NOTHING,
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=(
            "it could never be constructed, because it passed its two lists where the constructor "
            "it inherits expects embed_dim and num_heads"
        ),
        before="""\
from dilated_attention_pytorch import BlockSparseRingDistributedDilatedAttention

attention = BlockSparseRingDistributedDilatedAttention([16, 32], [1, 2])
""",
        after="""\
from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttentionV2(
    segment_lengths=[16, 32], dilation_rates=[1, 2], layout="sharded"
)
""",
        codemod="Flagged: no program can depend on it, and what was meant is the author's to say.",
        guide_anchor="blocksparseringdistributeddilatedattention",
    ),
    LegacyRecord(
        name="create_block_sparse_attention",
        kind=Kind.FUNCTION,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.core", f"{OLD}.core.factory"),
        target=f"{LEGACY}.create_block_sparse_attention:create_block_sparse_attention",
        historical=f"{LEGACY}.create_block_sparse_attention:create_block_sparse_attention",
        since="0.2.1",
        removed_in="0.3.0",
        replacement="create_multihead_dilated_attention",
        why="the layer it makes weights the tokens wrongly, and never read sparsity_ratio",
        measured=BLOCKS_MEASURED,
        defect=f"made a layer that {BLOCKS_DEFECT}",
        result_change=_CHANGE,
        relative_error=(3.29, 1.80),
        error_against="As for BlockSparseRingMultiheadDilatedAttention.",
        before="""\
from dilated_attention_pytorch import create_block_sparse_attention

attention = create_block_sparse_attention(embed_dim=48, num_heads=6)
""",
        after="""\
from dilated_attention_pytorch import create_multihead_dilated_attention

attention = create_multihead_dilated_attention("standard", embed_dim=48, num_heads=6)
""",
        codemod=_FUNCTION_CODEMOD,
        guide_anchor="create_block_sparse_attention",
    ),
    LegacyRecord(
        name="create_adaptive_sparse_attention",
        kind=Kind.FUNCTION,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.core", f"{OLD}.core.factory"),
        target=f"{LEGACY}.create_adaptive_sparse_attention:create_adaptive_sparse_attention",
        historical=f"{LEGACY}.create_adaptive_sparse_attention:create_adaptive_sparse_attention",
        ran=Ran.CONSTRUCTOR,
        since="0.2.1",
        removed_in="0.3.0",
        replacement="create_multihead_dilated_attention",
        why="the layer it makes never ran",
        measured="forward raised ValueError: Unknown pattern type: learned, whatever the input was",
        before="""\
from dilated_attention_pytorch import create_adaptive_sparse_attention

attention = create_adaptive_sparse_attention(embed_dim=48, num_heads=6)
""",
        after="""\
from dilated_attention_pytorch import create_multihead_dilated_attention

attention = create_multihead_dilated_attention("standard", embed_dim=48, num_heads=6)
""",
        codemod=_FUNCTION_CODEMOD,
        guide_anchor="create_adaptive_sparse_attention",
    ),
)
