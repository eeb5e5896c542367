"""Records of the configuration classes."""

from __future__ import annotations

from .._record import Fate, Kind, LegacyRecord
from ._shared import LEGACY, OLD

_SPARSE = "the class that reads it weights tokens wrongly"
_NOBODY = "nothing reads it any more"


def _config(
    name: str,
    why: str,
    replacement: str,
    measured: str,
    *,
    modules: tuple[str, ...],
    exported: bool = False,
    arguments: str = "",
    after: str,
) -> LegacyRecord:
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    path = f"{LEGACY}.configs.{words.removeprefix('_')}:{name}"
    where = OLD if exported else f"{OLD}.{modules[0]}"
    return LegacyRecord(
        name=name,
        kind=Kind.CLASS,
        fate=Fate.COMPAT,
        exported=exported,
        old_modules=tuple(f"{OLD}.{module}" for module in modules),
        target=path,
        historical=path,
        since="0.2.1",
        removed_in="0.3.0",
        replacement=replacement,
        why=why,
        measured=measured,
        before=f"from {where} import {name}\n\nconfig = {name}({arguments})\n",
        after=after,
        codemod=(
            "Flagged: its values go into the keyword arguments of the call that took the object, "
            "and only the author knows which call that is."
        ),
        guide_anchor="configuration-classes",
    )


_PATTERN_AFTER = """\
from dilated_attention_pytorch import DilationPattern

pattern = DilationPattern.longnet([16, 32], [1, 2])
"""
_KEYWORDS_AFTER = """\
from dilated_attention_pytorch import create_dilated_attention

attention = create_dilated_attention("{}", segment_lengths=[16, 32], dilation_rates=[1, 2])
"""
_UNREAD_RATIO = (
    "sparsity_ratio was never read by the attention: 0.1 and 0.9 gave the same density, and "
    "global_tokens below block_size gave no global block"
)
_IN_CONFIG = ("core", "core.config")
_GENERATOR = "utils.sparse_pattern_utils"
_DISTRIBUTED_SPARSE = "block_sparse_ring_distributed_dilated_attention"

RECORDS = (
    _config(
        "SparsePatternConfig",
        _SPARSE,
        "a DilationPattern",
        _UNREAD_RATIO,
        modules=("block_sparse_ring_dilated_attention",),
        exported=True,
        after=_PATTERN_AFTER,
    ),
    _config(
        "PatternConfig",
        "the generator it configured is gone",
        "a DilationPattern",
        "the patterns it led to were not read by any attention",
        modules=(_GENERATOR,),
        exported=True,
        after=_PATTERN_AFTER,
    ),
    _config(
        "PatternType",
        "the generator it chose a pattern for is gone",
        "a DilationPattern",
        "the patterns it led to were not read by any attention",
        modules=(_GENERATOR, "utils"),
        exported=True,
        arguments='"dilated_sparse"',
        after=_PATTERN_AFTER,
    ),
    _config(
        "DistributedSparseConfig",
        "the one class that read it could never be constructed",
        "a DilationPattern",
        "no object that read it ever existed",
        modules=(_DISTRIBUTED_SPARSE,),
        exported=True,
        after=_PATTERN_AFTER,
    ),
    _config(
        "DistributedSparsePattern",
        "the one class that read it could never be constructed",
        "a DilationPattern",
        "no object that read it ever existed",
        modules=(_DISTRIBUTED_SPARSE,),
        exported=True,
        arguments='"hierarchical"',
        after=_PATTERN_AFTER,
    ),
    _config(
        "DilatedAttentionConfig",
        _NOBODY,
        "keyword arguments",
        "constructors that took it from the factory raised TypeError",
        modules=_IN_CONFIG,
        arguments="[16, 32], [1, 2]",
        after=_KEYWORDS_AFTER.format("standard"),
    ),
    _config(
        "MultiheadConfig",
        _NOBODY,
        "keyword arguments",
        "passed to the factory it was changed in place, its head_dim left behind",
        modules=_IN_CONFIG,
        arguments="48, 6",
        after="""\
from dilated_attention_pytorch import create_multihead_dilated_attention

attention = create_multihead_dilated_attention("improved", embed_dim=48, num_heads=6)
""",
    ),
    _config(
        "RingAttentionConfig",
        _NOBODY,
        "keyword arguments",
        "block_size, use_checkpointing, use_memory_pool and max_cached_buffers had no effect",
        modules=_IN_CONFIG,
        arguments="[16, 32], [1, 2]",
        after=_KEYWORDS_AFTER.format("ring"),
    ),
    _config(
        "SparseAttentionConfig",
        _NOBODY,
        "a DilationPattern",
        "of its own fields only pattern_type and block_size had an effect",
        modules=_IN_CONFIG,
        arguments="[16, 32], [1, 2]",
        after=_PATTERN_AFTER,
    ),
    _config(
        "DistributedConfig",
        _NOBODY,
        "group= of the ring's modules",
        "it was stored; of its fields sequence_parallel and model_parallel were read",
        modules=_IN_CONFIG,
        after=_KEYWORDS_AFTER.format("distributed"),
    ),
    _config(
        "MemoryPoolConfig",
        _NOBODY,
        "PyTorch's own allocator",
        "the pool that it configured handed the same storage to two requests at a time",
        modules=_IN_CONFIG,
        after="import torch\n\nx = torch.empty(4)\n",
    ),
)
