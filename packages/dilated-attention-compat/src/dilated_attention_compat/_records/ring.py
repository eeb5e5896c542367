"""Records of the ring classes: the deprecated ones, and those whose names stay."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord, Ran
from .._rewrite import Rewrite
from ._shared import (
    FACTORY,
    HEADS_DEFECT,
    HEADS_MEASURED,
    LEGACY,
    OLD,
    PROMISED_REASON,
    RING,
    RING_V2,
)

_RING_PARAMETERS = (
    *("segment_lengths", "dilation_rates", "dropout", "use_tf32", "block_size", "ring_size"),
    *("use_checkpointing", "device", "dtype"),
)
_RING_DROPPED = ("use_tf32", "block_size", "use_checkpointing", "device", "dtype")
_RING_REWRITE = Rewrite(target=RING_V2, parameters=_RING_PARAMETERS, dropped=_RING_DROPPED)
_RING_CHANGE = (
    "Every number changes: each position was a mix of its own heads, and becomes a mix of the "
    "tokens its pattern lets it see."
)
_RING_CODEMOD = (
    "Rename the import and the constructor to RingDilatedAttentionV2, positional arguments to "
    "keywords; drop block_size, device, dtype, use_checkpointing and use_tf32, which had no effect "
    "on the result. Subclasses and attention_mask are flagged, not rewritten."
)
_RING_AFTER = """\
from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2])
"""
_RAN_ALONE = f"{HEADS_MEASURED}, and its ring never ran"


def _head_attention(
    name: str, module: str, *, exported: bool, file: str = "", guide_anchor: str = ""
) -> LegacyRecord:
    """Record a class with the constructor of RingDilatedAttention that attends over heads."""
    identifier = name.rpartition(".")[2]
    path = f"{LEGACY}.{file or module}:{identifier}"
    where = "" if exported else f".{module}"
    return LegacyRecord(
        name=name,
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=exported,
        old_modules=(f"{OLD}.{module}",),
        target=path,
        historical=path,
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=_RAN_ALONE,
        defect=HEADS_DEFECT,
        result_change=_RING_CHANGE,
        relative_error=(2.26, 1.58),
        before=f"""\
from {OLD}{where} import {identifier}

attention = {identifier}(segment_lengths=[16, 32], dilation_rates=[1, 2])
""",
        after=_RING_AFTER,
        rewrite=_RING_REWRITE,
        codemod=_RING_CODEMOD,
        guide_anchor=guide_anchor or identifier.lower(),
    )


RECORDS = (
    _head_attention("RingDilatedAttention", "ring_dilated_attention", exported=True),
    LegacyRecord(
        name="RingMultiheadDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=True,
        old_modules=(f"{OLD}.ring_multihead_dilated_attention",),
        target=f"{LEGACY}.ring_multihead_dilated_attention:RingMultiheadDilatedAttention",
        historical=f"{LEGACY}.ring_multihead_dilated_attention:RingMultiheadDilatedAttention",
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=_RAN_ALONE,
        defect=HEADS_DEFECT,
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
        rewrite=Rewrite(
            target=FACTORY,
            attention_type="ring",
            parameters=(
                *("embed_dim", "num_heads", "segment_lengths", "dilation_rates", "dropout"),
                *("bias", "layer_norm", "layer_norm_eps", "gamma_init", "block_size"),
                *("ring_size", "use_checkpointing", "use_tf32", "use_flash_attention"),
                *("compile_model", "device", "dtype"),
            ),
            dropped=(
                *("block_size", "use_checkpointing", "use_tf32", "use_flash_attention"),
                "compile_model",
            ),
        ),
        codemod=(
            "Replace the constructor by create_multihead_dilated_attention('ring', ...), "
            "positional arguments to keywords; drop block_size, use_checkpointing, use_tf32, "
            "use_flash_attention and compile_model. The result stays the pair (out, None). "
            "Subclasses, masks and need_weights=True are flagged, not rewritten."
        ),
        guide_anchor="ringmultiheaddilatedattention",
    ),
    LegacyRecord(
        name="RingDistributedDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        old_modules=(f"{OLD}.ring_distributed_dilated_attention",),
        target=f"{LEGACY}.ring_distributed_dilated_attention:RingDistributedDilatedAttention",
        historical=f"{LEGACY}.ring_distributed_dilated_attention:RingDistributedDilatedAttention",
        ran=Ran.NOTHING,
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=(
            "it could never be constructed, because its constructor read the attribute "
            "ring_attention of an object that never had one, whatever the arguments were"
        ),
        before="""\
from dilated_attention_pytorch.ring_distributed_dilated_attention import (
    RingDistributedDilatedAttention,
)

attention = RingDistributedDilatedAttention(48, 6, [16, 32], [1, 2])
""",
        after="""\
from dilated_attention_pytorch import create_multihead_dilated_attention

attention = create_multihead_dilated_attention(
    "ring_distributed",
    embed_dim=48,
    num_heads=6,
    segment_lengths=[16, 32],
    dilation_rates=[1, 2],
)
""",
        rewrite=Rewrite(
            target=FACTORY,
            attention_type="ring_distributed",
            parameters=(
                *("embed_dim", "num_heads", "segment_lengths", "dilation_rates", "dropout"),
                *("bias", "layer_norm", "layer_norm_eps", "gamma_init", "block_size"),
                *("ring_size", "use_checkpointing", "model_parallel", "sequence_parallel"),
                *("data_parallel", "use_deepspeed", "zero_stage", "cpu_offload"),
                *("nvme_offload", "use_8bit_optimizer", "use_gradient_compression"),
                *("activation_checkpointing", "communication_backend", "bucket_size"),
                *("overlap_communication", "enable_fault_tolerance", "checkpoint_interval"),
                *("auto_resume", "enable_monitoring", "profile_memory", "log_level"),
                *("use_tf32", "use_flash_attention", "compile_model", "device", "dtype"),
            ),
            dropped=(
                *("block_size", "use_checkpointing", "sequence_parallel", "data_parallel"),
                *("use_deepspeed", "zero_stage", "cpu_offload", "nvme_offload"),
                *("use_8bit_optimizer", "use_gradient_compression", "activation_checkpointing"),
                *("communication_backend", "bucket_size", "overlap_communication"),
                *("enable_fault_tolerance", "checkpoint_interval", "auto_resume"),
                *("enable_monitoring", "profile_memory", "log_level", "use_tf32"),
                *("use_flash_attention", "compile_model"),
            ),
            flagged=("model_parallel",),
        ),
        codemod=(
            "Replace the constructor by create_multihead_dilated_attention('ring_distributed', "
            "...), positional arguments to keywords; drop the switches for DeepSpeed, monitoring, "
            "fault tolerance and the like. model_parallel and subclasses are flagged."
        ),
        guide_anchor="ringdistributeddilatedattention",
    ),
    _head_attention(
        "UnfoldRingDilatedAttention",
        "ring_dilated_attention_unfold_v2",
        exported=True,
        file="unfold_ring_dilated_attention",
    ),
    _head_attention(
        "OptimizedUnfoldRingDilatedAttention",
        "ring_dilated_attention_unfold_optimized",
        exported=False,
        file="optimized_unfold_ring_dilated_attention",
        guide_anchor="unfoldringdilatedattention",
    ),
    LegacyRecord(
        name="ring_dilated_attention_unfold.UnfoldRingDilatedAttention",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        old_modules=(f"{OLD}.ring_dilated_attention_unfold",),
        target=f"{LEGACY}.unfold_ring_dilated_attention_v1:UnfoldRingDilatedAttention",
        historical=f"{LEGACY}.unfold_ring_dilated_attention_v1:UnfoldRingDilatedAttention",
        since="0.2.0",
        removed_in="0.3.0",
        replacement=RING,
        promised_reason=PROMISED_REASON,
        measured=(
            f"{HEADS_MEASURED}; with a rate of 1 it raised, or, where that segment length equals "
            "the head dimension, attended over heads with positions and channels exchanged"
        ),
        defect=HEADS_DEFECT,
        result_change=_RING_CHANGE,
        relative_error=(1.94, 1.40),
        error_against="The same as for RingDilatedAttention, with the dilation rates 2, 2, 4.",
        before="""\
from dilated_attention_pytorch.ring_dilated_attention_unfold import UnfoldRingDilatedAttention

attention = UnfoldRingDilatedAttention([16, 32], [1, 2])
""",
        after=_RING_AFTER,
        rewrite=Rewrite(
            target=RING_V2,
            parameters=(
                *("segment_lengths", "dilation_rates", "dropout", "ring_size", "ring_group"),
            ),
            renamed=(("ring_group", "group"),),
        ),
        codemod=(
            "Rename the import and the constructor to RingDilatedAttentionV2, positional "
            "arguments to keywords, ring_group to group. Subclasses and attention_mask are "
            "flagged, not rewritten."
        ),
        guide_anchor="unfoldringdilatedattention",
    ),
    LegacyRecord(
        name="RingAttentionCorrect",
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        old_modules=(f"{OLD}.ring_attention_correct",),
        target=f"{LEGACY}.ring_attention_correct:RingAttentionCorrect",
        historical=f"{LEGACY}.ring_attention_correct:RingAttentionCorrect",
        since="0.2.1",
        removed_in="0.3.0",
        replacement="RingAttentionCorrectV2",
        why="it normalises each chunk of keys on its own and adds the results",
        measured=(
            "with ring_size R the weights of a token sum to R, and with is_causal every row that "
            "one chunk hides completely is NaN"
        ),
        defect=(
            "takes a softmax of its own in each of ring_size chunks of keys and adds the results: "
            "the weights of a token sum to ring_size, not to 1"
        ),
        result_change="Every number changes unless ring_size is 1.",
        relative_error=(2.74, float("nan")),
        error_against="Dense attention, which it was meant to be; ring_size 4, its default.",
        before="""\
from dilated_attention_pytorch.ring_attention_correct import RingAttentionCorrect

attention = RingAttentionCorrect(dropout=0.1)
""",
        after="""\
from dilated_attention_pytorch import RingAttentionCorrectV2

attention = RingAttentionCorrectV2(dropout=0.1)
""",
        rewrite=Rewrite(
            target=f"{OLD}:RingAttentionCorrectV2",
            parameters=("dropout", "device", "dtype"),
            dropped=("device", "dtype"),
        ),
        codemod=(
            "Rename the import and the constructor to RingAttentionCorrectV2; drop device and "
            "dtype. return_memory_stats=True is flagged."
        ),
        guide_anchor="ringattentioncorrect",
    ),
)
