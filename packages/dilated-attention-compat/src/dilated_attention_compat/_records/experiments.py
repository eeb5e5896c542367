"""Records of what could only be imported by module path: attempts at a correct ring, and models."""

from __future__ import annotations

from .._record import Fate, Kind
from .._rewrite import Rewrite
from ._shared import HEADS_MEASURED, OLD, gone, stays

_DECODER = "models.DilatedDecoderLM, or nn.Modules of your own around MultiheadDilatedAttention"

RECORDS = (
    stays(
        "RingDilatedAttentionV2",
        Fate.CORRECTED,
        "ring_dilated_attention_v2",
        why="it dilates and rings now",
        measured=(
            "it was dense attention whatever segment_lengths and dilation_rates were, and over "
            "several ranks it raised, because torch.distributed has no sendrecv"
        ),
        result_change=(
            "Outputs were those of dense attention: scaled_dot_product_attention, or "
            "RingAttentionCorrectV2, still gives them."
        ),
        rewrite=Rewrite(
            target=f"{OLD}:RingDilatedAttentionV2",
            parameters=(
                *("segment_lengths", "dilation_rates", "dropout", "ring_size", "device", "dtype"),
            ),
            dropped=("device", "dtype"),
        ),
        codemod="Import it from the package; drop device and dtype, which have no effect.",
        guide_anchor="ringdilatedattentionv2",
    ),
    stays(
        "RingAttentionCorrectV2",
        Fate.KEPT,
        "ring_attention_correct_v2",
        rewrite=Rewrite(
            target=f"{OLD}:RingAttentionCorrectV2",
            parameters=("dropout", "device", "dtype"),
            dropped=("device", "dtype"),
        ),
        codemod=(
            "Import it from the package; drop device and dtype, which have no effect. "
            "return_memory_stats=True is flagged."
        ),
    ),
    stays(
        "TrueRingDilatedAttention",
        Fate.CORRECTED,
        "true_ring_dilated_attention",
        why="it attends over tokens now, for every ring_size",
        measured=f"{HEADS_MEASURED}; causal it raised",
        result_change="Every number changes; the historical ones are not kept anywhere.",
        rewrite=Rewrite(
            target=f"{OLD}:TrueRingDilatedAttention",
            parameters=(
                *("segment_lengths", "dilation_rates", "dropout", "ring_size", "chunk_size_kv"),
                *("device", "dtype"),
            ),
            dropped=("chunk_size_kv", "device", "dtype"),
        ),
        codemod=(
            "Import it from the package; drop chunk_size_kv, device and dtype, which have no "
            "effect."
        ),
    ),
    stays(
        "DistributedMultiheadDilatedAttention",
        Fate.CORRECTED,
        "distributed_dilated_attention",
        why="it exists now",
        measured="its constructor held placeholders and raised",
        rewrite=None,
        codemod="Flagged: what was a LightningModule with other arguments is a module now.",
    ),
    gone(
        "RingDilatedAttentionFixed",
        "it attended over the heads of one position, and raised with is_causal",
        "RingDilatedAttentionV2",
        modules=("ring_dilated_attention_fixed",),
        kind=Kind.CLASS,
    ),
    gone(
        "SimulatedRingDilatedAttention",
        "it attended over all heads of one position, and raised with is_causal or a ring_size "
        "above 1",
        "RingDilatedAttentionV2 with ring_size=",
        modules=("simulated_ring_dilated_attention",),
        kind=Kind.CLASS,
    ),
    gone(
        "ring_distributed_refactored.RingDistributedDilatedAttention",
        "it left abstract methods undefined and could never be constructed",
        "create_multihead_dilated_attention('ring_distributed')",
        modules=("ring_distributed_refactored",),
        kind=Kind.CLASS,
    ),
    gone(
        "RingDistributedConfig",
        "the one class that read it could never be constructed",
        "the keyword arguments of create_multihead_dilated_attention('ring_distributed')",
        modules=("ring_distributed_refactored",),
        kind=Kind.CLASS,
    ),
    gone(
        "create_ring_distributed_attention",
        "the class it called could never be constructed",
        "create_multihead_dilated_attention('ring_distributed')",
        modules=("ring_distributed_refactored",),
    ),
    gone(
        "compare_with_standard_attention",
        "its own assertion failed",
        "the tests of this package",
        modules=("ring_attention_correct",),
    ),
    gone(
        "DeprecationMixin",
        "nothing used it",
        "warnings.warn",
        modules=("deprecated_ring_attention",),
        kind=Kind.CLASS,
    ),
    gone(
        "deprecated_forward_wrapper",
        "nothing used it",
        modules=("deprecated_ring_attention",),
    ),
    gone(
        "create_migration_guide",
        "it returned a text",
        "the guide named below",
        modules=("deprecated_ring_attention",),
    ),
    *(
        stays(
            name,
            Fate.CORRECTED,
            modules[0],
            extra_modules=modules[1:],
            exported=exported,
            why="its branches follow LongNet's offset rule; history split the heads among them",
            result_change="Numbers change; rule='historical' attends as history did.",
            rewrite=None,
            codemod="Import it from the package; nothing else is rewritten.",
        )
        for name, modules, exported in (
            ("LongNet", ("long_net",), True),
            ("LongNetLM", ("long_net",), False),
            ("DilatedTransformerEncoderLayer", ("transformer", "transformer_refactored"), True),
            ("DilatedTransformerDecoderLayer", ("transformer", "transformer_refactored"), True),
        )
    ),
    *(
        gone(
            name,
            "it built layers whose forward always raised",
            _DECODER,
            modules=("transformer_refactored",),
            kind=kind,
        )
        for name, kind in (
            ("TransformerLayerConfig", Kind.CLASS),
            ("create_encoder_layer", Kind.FUNCTION),
            ("create_decoder_layer", Kind.FUNCTION),
        )
    ),
)
