"""What a module does with the objects that old constructors made, as far as names tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import libcst as cst

from .arguments import is_empty
from .syntax import dotted
from .uses import Context, Module, Use
from .vocabulary import OldName

CORE = ("query", "key", "value", "is_causal", "attention_mask")
MULTIHEAD = (
    *("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "is_causal"),
    "average_attn_weights",
)
FORWARDS: Mapping[str, tuple[str, ...]] = {
    "RingAttentionCorrect": (
        *("query", "key", "value", "ring_size", "is_causal", "return_memory_stats"),
    ),
    "RingAttentionCorrectV2": (
        *("query", "key", "value", "ring_size", "is_causal", "return_memory_stats"),
    ),
    "BlockSparseRingDilatedAttention": ("q", "k", "v", "is_causal", "return_attention_weights"),
    "RingDistributedDilatedAttention": (*CORE[:4], "need_weights", "attn_mask"),
}
"""Parameters of `forward` where they are not those of the class's family."""

LOST_ARGUMENTS = frozenset(
    (
        *("attention_mask", "attn_mask", "need_weights", "return_attention_weights"),
        "return_memory_stats",
    )
)
LOST_ATTRIBUTES = frozenset(
    (
        *("clear_cache", "get_memory_info", "get_memory_estimate", "get_memory_stats"),
        *("get_memory_usage", "demonstrate_memory_savings", "ring_group", "block_size", "config"),
        *("rank", "world_size", "dropout_layer", "ring_attention", "attention_core"),
        *("multihead_config", "attention_config", "cleanup", "use_checkpointing", "device"),
        *("dtype", "use_tf32", "use_flash_attention", "compile_model", "bias", "layer_norm_eps"),
        "sparse_config",
    )
)
"""Attributes of the old classes that the new ones lack."""

LOST_OF_LAYERS = LOST_ATTRIBUTES | {"ring_size"}
"""The same for what the multihead factory makes in place of an old class."""


def misuses(module: Module) -> Iterator[tuple[OldName, cst.CSTNode, str]]:
    """Yield what is done with an old object that the new one does not serve.

    Args:
        module: The module; its constructor calls are its uses.

    Yields:
        The old name, the place, and the reason.
    """
    made: defaultdict[str, set[OldName]] = defaultdict(set)
    for use in module.uses:
        if use.context is Context.CALL:
            for target in _targets(module, use):
                made[target].add(use.name)
            outer = module.parents[module.parents[use.node]]
            if isinstance(outer, cst.Call) and outer.func is module.parents[use.node]:
                yield from _forward_misuse(outer, use.name)
    if not made:
        return
    for node in module.parents:
        if isinstance(node, cst.Call):
            for name in made.get(dotted(node.func), ()):
                yield from _forward_misuse(node, name)
        elif isinstance(node, cst.Attribute) and node.attr.value in LOST_OF_LAYERS:
            for name in made.get(dotted(node.value), ()):
                if node.attr.value in _lost(name):
                    yield name, node, f"its {node.attr.value} is gone"


def _lost(name: OldName) -> frozenset[str]:
    rewrite = name.record.rewrite
    is_layer = rewrite is not None and bool(rewrite.attention_type)
    return LOST_OF_LAYERS if is_layer else LOST_ATTRIBUTES


def _targets(module: Module, use: Use) -> Iterator[str]:
    made = module.parents[use.node]
    # `Ring(...).to(device).eval()` is the object still.
    while isinstance(method := module.parents[made], cst.Attribute):
        outer = module.parents[method]
        if not (isinstance(outer, cst.Call) and outer.func is method):
            break
        made = outer
    statement = module.parents[made]
    if isinstance(statement, cst.Assign):
        yield from filter(None, (dotted(target.target) for target in statement.targets))
    elif isinstance(statement, cst.AnnAssign | cst.NamedExpr):
        yield from filter(None, [dotted(statement.target)])


def _forward_misuse(call: cst.Call, name: OldName) -> Iterator[tuple[OldName, cst.CSTNode, str]]:
    parameters = forward_parameters(name)
    for index, argument in enumerate(call.args):
        given = argument.keyword.value if argument.keyword else "".join(parameters[index:][:1])
        if given in LOST_ARGUMENTS and not is_empty(argument) and not argument.star:
            yield name, call, f"forward takes no {given} any more"


def forward_parameters(name: OldName) -> tuple[str, ...]:
    """Return the parameters of the old class's `forward`, without `self`."""
    rewrite = name.record.rewrite
    multihead = rewrite is not None and "embed_dim" in rewrite.parameters
    return FORWARDS.get(name.identifier, MULTIHEAD if multihead else CORE)
