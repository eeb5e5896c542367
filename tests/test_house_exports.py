"""The public names of the main package, pinned: the contract's names, and no other."""

from __future__ import annotations

import inspect

import pytest

import dilated_attention_pytorch as package

FUNCTIONS = {
    "attention_weights",
    "create_dilated_attention",
    "create_multihead_dilated_attention",
    "dilated_attention",
    "explain",
    "merge_partials",
    "positions",
    "register_attention",
    "register_multihead_attention",
    "ring_dilated_attention",
    "shard",
    "unshard",
}
ERRORS = {"BackendError", "PeerError", "RankDisagreementError"}
PATTERNS = {"Branch", "DilationPattern"}
RESULTS = {"AttentionWeights"}
MODULES = {
    "DilatedAttention",
    "DistributedMultiheadDilatedAttention",
    "ImprovedDilatedAttention",
    "ImprovedMultiheadDilatedAttention",
    "MultiheadDilatedAttention",
    "RingAttentionCorrectV2",
    "RingDilatedAttentionV2",
    "RingMultiheadDilatedAttentionV2",
    "TrueRingDilatedAttention",
}
MODELS = {
    "DilatedTransformerDecoderLayer",
    "DilatedTransformerEncoderLayer",
    "LongNet",
    "LongNetLM",
}
DEPRECATED = {
    "BlockSparseRingDilatedAttention",
    "BlockSparseRingDistributedDilatedAttention",
    "BlockSparseRingMultiheadDilatedAttention",
    "DistributedImprovedDilatedAttention",
    "DistributedImprovedMultiheadDilatedAttention",
    "DistributedSparseConfig",
    "DistributedSparsePattern",
    "PatternConfig",
    "PatternType",
    "RingAttentionDeprecationWarning",
    "RingDilatedAttention",
    "RingMultiheadDilatedAttention",
    "SparsePatternConfig",
    "UnfoldRingDilatedAttention",
    "create_adaptive_sparse_attention",
    "create_block_sparse_attention",
}
OPTIONS = {
    "is_causal": False,
    "scale": None,
    "key_mask": None,
    "cu_seqlens": None,
    "dropout_p": 0.0,
    "seed": None,
    "backend": "auto",
    "deterministic": False,
    "return_lse": False,
}
RING = {
    "group": None,
    "ring_size": None,
    "simulate": False,
    "layout": "sharded",
    "order": "contiguous",
    "shard_lengths": None,
    "buffer_shards": 2,
}


PUBLIC = FUNCTIONS | ERRORS | PATTERNS | RESULTS | MODULES | MODELS | DEPRECATED


def public_names() -> set[str]:
    """Return what a user sees in ``dir()``, less modules and what the annotations need."""
    helpers = {"annotations", "Any", "TYPE_CHECKING"}
    names = {name for name in dir(package) if not name.startswith("_")} - helpers
    return {name for name in names if not inspect.ismodule(getattr(package, name))}


def test_the_public_names_are_exactly_these() -> None:
    assert public_names() == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_documented(name: str) -> None:
    assert (inspect.getdoc(getattr(package, name)) or "").strip()


@pytest.mark.parametrize(
    ("name", "options"),
    [("dilated_attention", OPTIONS), ("ring_dilated_attention", RING | OPTIONS)],
)
def test_the_signatures_are_those_of_the_contract(name: str, options: dict[str, object]) -> None:
    parameters = inspect.signature(getattr(package, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert positional == ["query", "key", "value", "pattern"]
    assert keywords == options


@pytest.mark.parametrize("name", ["dilated_attention", "ring_dilated_attention"])
def test_the_first_line_says_which_layout_tensors_have(name: str) -> None:
    first = (inspect.getdoc(getattr(package, name)) or "").splitlines()[0]
    assert "(b, n, h, d)" in first
