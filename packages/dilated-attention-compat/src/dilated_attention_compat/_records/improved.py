"""Records of the improved classes, alone and distributed, and of the two that were right."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord, Ran
from .._rewrite import Rewrite
from ._shared import (
    FACTORY,
    HEADS_DEFECT,
    HEADS_MEASURED,
    LEGACY,
    OLD,
    RING_V2,
    SEPARATE,
    gone,
    stays,
)

_DROPPED_ONLY = (
    "Drop use_tf32, device and dtype, which have no effect; nothing else is rewritten. {} and "
    "subclasses are flagged."
)
_CHANGE = (
    "Every number changes: each position was a mix of its own heads, and is a mix of the tokens "
    "that LongNet's pattern lets it see."
)
_COMPAT_HAS_THEM = (
    "The historical numbers are those of the class of the same name in the compat package."
)

RECORDS = (
    stays(
        "DilatedAttention",
        Fate.KEPT,
        "dilated_attention",
        exported=True,
        rewrite=Rewrite(
            target=f"{OLD}:DilatedAttention",
            parameters=(
                *("segment_lengths", "dilation_rates", "softmax_scale", "attention_dropout", "op"),
                *("use_tf32", "device", "dtype"),
            ),
            dropped=("use_tf32", "device", "dtype"),
            flagged=("op",),
        ),
        codemod=_DROPPED_ONLY.format("op, attention_mask"),
    ),
    stays(
        "MultiheadDilatedAttention",
        Fate.KEPT,
        "multihead_dilated_attention",
        exported=True,
        rewrite=Rewrite(
            target=f"{OLD}:MultiheadDilatedAttention",
            parameters=(*SEPARATE, "op"),
            flagged=("op",),
        ),
        codemod=(
            "Nothing is rewritten: by position the rates still come first. op, attn_mask, "
            "need_weights=True and subclasses are flagged."
        ),
    ),
    stays(
        "ImprovedDilatedAttention",
        Fate.CORRECTED,
        "improved_dilated_attention",
        exported=True,
        historical=f"{LEGACY}.improved_dilated_attention:ImprovedDilatedAttention",
        why="it attends over tokens now, and every head takes part in every branch",
        measured=HEADS_MEASURED,
        defect=HEADS_DEFECT,
        result_change=f"{_CHANGE} {_COMPAT_HAS_THEM}",
        relative_error=(2.26, 1.58),
        rewrite=Rewrite(
            target=f"{OLD}:ImprovedDilatedAttention",
            parameters=(
                *("segment_lengths", "dilation_rates", "dropout", "use_tf32", "device", "dtype"),
            ),
            dropped=("use_tf32", "device", "dtype"),
        ),
        codemod=_DROPPED_ONLY.format("attention_mask"),
        guide_anchor="improveddilatedattention",
    ),
    stays(
        "ImprovedMultiheadDilatedAttention",
        Fate.CORRECTED,
        "improved_multihead_dilated_attention",
        exported=True,
        historical=(
            f"{LEGACY}.improved_multihead_dilated_attention:ImprovedMultiheadDilatedAttention"
        ),
        why="it attends over tokens now, and every head takes part in every branch",
        measured=HEADS_MEASURED,
        defect=HEADS_DEFECT,
        result_change=(
            f"{_CHANGE} Weights trained with the old class were trained to mix heads; loading them "
            f"warns. {_COMPAT_HAS_THEM}"
        ),
        relative_error=(1.30, 1.17),
        rewrite=Rewrite(
            target=f"{OLD}:ImprovedMultiheadDilatedAttention",
            parameters=(*SEPARATE, "use_tf32"),
            dropped=("use_tf32",),
        ),
        codemod=(
            "Drop use_tf32, which has no effect; nothing else is rewritten. attn_mask, "
            "need_weights=True and subclasses are flagged."
        ),
        guide_anchor="improvedmultiheaddilatedattention",
    ),
    LegacyRecord(
        name="DistributedImprovedDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.improved_distributed_dilated_attention",),
        target=(
            f"{LEGACY}.distributed_improved_dilated_attention:DistributedImprovedDilatedAttention"
        ),
        historical=(
            f"{LEGACY}.distributed_improved_dilated_attention:DistributedImprovedDilatedAttention"
        ),
        since="0.2.1",
        removed_in="0.3.0",
        replacement="RingDilatedAttentionV2",
        why="it attends over heads, and no rank ever saw the keys of another",
        measured=HEADS_MEASURED,
        defect=HEADS_DEFECT,
        result_change=_CHANGE,
        relative_error=(2.26, 1.58),
        before="""\
from dilated_attention_pytorch import DistributedImprovedDilatedAttention

attention = DistributedImprovedDilatedAttention([16, 32], [1, 2])
""",
        after="""\
from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2])
""",
        rewrite=Rewrite(
            target=RING_V2,
            parameters=(
                *("segment_lengths", "dilation_rates", "dropout", "use_tf32"),
                *("sequence_parallel", "model_parallel", "use_flash_attention", "dtype", "device"),
            ),
            dropped=("use_tf32", "model_parallel", "use_flash_attention", "dtype", "device"),
            flagged=("sequence_parallel",),
        ),
        codemod=(
            "Rename the import and the constructor to RingDilatedAttentionV2, positional "
            "arguments to keywords; drop what had no effect. sequence_parallel (pass group= "
            "instead), attention_mask and subclasses are flagged."
        ),
        guide_anchor="distributedimproveddilatedattention",
    ),
    LegacyRecord(
        name="DistributedImprovedMultiheadDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.improved_distributed_dilated_attention",),
        target=(
            f"{LEGACY}.distributed_improved_multihead_dilated_attention"
            ":DistributedImprovedMultiheadDilatedAttention"
        ),
        historical=(
            f"{LEGACY}.distributed_improved_multihead_dilated_attention"
            ":DistributedImprovedMultiheadDilatedAttention"
        ),
        ran=Ran.NOTHING,
        since="0.2.1",
        removed_in="0.3.0",
        replacement="create_multihead_dilated_attention('improved_distributed')",
        why="it never worked",
        measured=(
            "it could never be constructed, because it left an abstract method of its base class "
            "undefined"
        ),
        before="""\
from dilated_attention_pytorch import DistributedImprovedMultiheadDilatedAttention

attention = DistributedImprovedMultiheadDilatedAttention(48, 6, [16, 32], [1, 2])
""",
        after="""\
from dilated_attention_pytorch import create_multihead_dilated_attention

attention = create_multihead_dilated_attention(
    "improved_distributed",
    embed_dim=48,
    num_heads=6,
    segment_lengths=[16, 32],
    dilation_rates=[1, 2],
)
""",
        rewrite=Rewrite(
            target=FACTORY,
            attention_type="improved_distributed",
            parameters=(
                *("embed_dim", "num_heads", "segment_lengths", "dilation_rates", "dropout"),
                *("bias", "layer_norm", "layer_norm_eps", "gamma_init", "device", "dtype"),
                *("use_tf32", "sequence_parallel", "model_parallel", "use_deepspeed"),
                *("use_gradient_checkpointing", "communication_backend", "cpu_offload"),
                *("use_8bit_optimizer", "use_flash_attention", "compile_model"),
            ),
            dropped=(
                *("use_tf32", "sequence_parallel", "use_deepspeed", "use_gradient_checkpointing"),
                *("communication_backend", "cpu_offload", "use_8bit_optimizer"),
                *("use_flash_attention", "compile_model"),
            ),
            flagged=("model_parallel",),
        ),
        codemod=(
            "Replace the constructor by create_multihead_dilated_attention("
            "'improved_distributed', ...), positional arguments to keywords; drop the switches. "
            "model_parallel and subclasses are flagged."
        ),
        guide_anchor="distributedimprovedmultiheaddilatedattention",
    ),
    *(
        gone(
            f"{module}.create_{name}",
            "it called the constructor and did nothing else",
            replacement,
            modules=(module,),
        )
        for module, name, replacement in (
            ("dilated_attention", "dilated_attention", "DilatedAttention"),
            (
                "multihead_dilated_attention",
                "multihead_dilated_attention",
                "MultiheadDilatedAttention",
            ),
        )
    ),
    gone(
        "create_improved_dilated_attention",
        "it called the constructor and did nothing else",
        "ImprovedDilatedAttention",
        modules=("improved_dilated_attention",),
    ),
    gone(
        "create_improved_multihead_dilated_attention",
        "it called the constructor and did nothing else",
        "ImprovedMultiheadDilatedAttention",
        modules=("improved_multihead_dilated_attention",),
    ),
    gone(
        "DeepSpeedDilatedAttentionEngine",
        "it wrapped a class that could never be constructed",
        "deepspeed.initialize with any module of this package",
        modules=("improved_distributed_dilated_attention",),
        kind=Kind.CLASS,
    ),
    gone(
        "create_distributed_model",
        "it built layers of a class that could never be constructed",
        "models.DilatedDecoderLM with group=",
        modules=("improved_distributed_dilated_attention",),
    ),
    gone(
        "get_recommended_config",
        "it chose settings for classes that are gone",
        "explain",
        modules=("improved_distributed_dilated_attention",),
    ),
)
