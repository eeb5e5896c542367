"""`create_dilated_attention` and `create_multihead_dilated_attention`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from ..nn._pattern import resolve_pattern
from ..nn._warn import warn_caller
from ..pattern import DilationPattern
from ._registry import RING_OPTIONS, Entry, core_entry, multihead_entry

DEFAULT_SEGMENT_LENGTHS: Final = (2048, 4096, 8192)
DEFAULT_DILATION_RATES: Final = (1, 2, 4)
DEFAULT_RULE: Final = "longnet"
_OWN_ARGUMENTS: Final = frozenset(
    ("embed_dim", "num_heads", "segment_lengths", "dilation_rates", "pattern", "rule")
)


def create_dilated_attention(
    attention_type: str = "auto",
    segment_lengths: Sequence[int] | None = None,
    dilation_rates: Sequence[int] | None = None,
    *,
    pattern: DilationPattern | None = None,
    rule: str = "longnet",
    **options: Any,
) -> nn.Module:
    """A module that attends over query, key, value of shape `(b, n, h, d)`.

    Every type computes the same function of the same pattern; they differ in how:

    | type | class | calls | each rank passes and gets |
    |---|---|---|---|
    | `standard` | `DilatedAttention` | `dilated_attention` | everything: one device |
    | `improved` | `ImprovedDilatedAttention` | `dilated_attention` | everything: one device |
    | `ring` | `RingDilatedAttentionV2` | the ring, `replicated` | everything |
    | `distributed` | `RingDilatedAttentionV2` | the ring, `sharded` | its own rows |
    | `improved_distributed` | the same | | |
    | `ring_distributed` | the same | | |
    | `auto` | `ring` where an option of the ring is given, else `improved` | | |

    The sharded names share this core and differ in their multihead modules. The ring's options are
    `group`, `ring_size`, `simulate`, `layout`, `order`, `shard_lengths` and `buffer_shards`;
    without a group or a `ring_size` the ring has one rank. Where PyTorch was built without
    torch.distributed, a ring's type gives the one-device module with the same parameters and a
    RuntimeWarning.

    Args:
        attention_type: a name of the table, or one given to `register_attention`.
        segment_lengths: w of each branch, (2048, 4096, 8192) where None.
        dilation_rates: r of each branch, (1, 2, 4) where None.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form.
        options: the constructor's other arguments: `dropout`, `softmax_scale`, `backend`, ...

    Raises:
        ValueError: unknown type (the message lists the types) or bad values.
        TypeError: an option that the type does not have (the message lists its options).
    """
    return _create(
        core_entry, attention_type, segment_lengths, dilation_rates, pattern, rule, {}, options
    )


def create_multihead_dilated_attention(
    attention_type: str = "auto",
    embed_dim: int = 768,
    num_heads: int = 12,
    segment_lengths: Sequence[int] | None = None,
    dilation_rates: Sequence[int] | None = None,
    *,
    pattern: DilationPattern | None = None,
    rule: str = "longnet",
    **options: Any,
) -> nn.Module:
    """A module with projections that attends over `(b, n, embed_dim)`.

    The attention between the projections is the same function for every type; they differ in how:

    | type | class | projections | attention |
    |---|---|---|---|
    | `standard` | `MultiheadDilatedAttention` | separate | one device |
    | `improved` | `ImprovedMultiheadDilatedAttention` | fused | one device |
    | `ring` | `RingMultiheadDilatedAttentionV2` | fused | ring, `replicated` |
    | `distributed` | `DistributedMultiheadDilatedAttention` | separate | ring, `sharded` |
    | `improved_distributed` | `RingMultiheadDilatedAttentionV2` | fused | ring, `sharded` |
    | `ring_distributed` | the same under another historical name | | |
    | `auto` | `ring` where an option of the ring is given, else `improved` | | |

    Separate projections return out, the fused one returns `(out, None)`. With the same projections
    and `layer_norm=False` all types give the same output; with `layer_norm=True` separate
    projections also normalise q and k, as history had it.

    Args:
        attention_type: a name of the table, or one given to `register_multihead_attention`;
            `"multihead_x"` is the same as `"x"`.
        embed_dim: E, a multiple of `num_heads`.
        num_heads: query heads H.
        segment_lengths: w of each branch, (2048, 4096, 8192) where None.
        dilation_rates: r of each branch, (1, 2, 4) where None.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form.
        options: the constructor's other arguments: `dropout`, `layer_norm`, `group`, ...; see
            `create_dilated_attention` for the ring's.

    Raises:
        ValueError: unknown type (the message lists the types) or bad values.
        TypeError: an option that the type does not have (the message lists its options).
    """
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads}
    return _create(
        multihead_entry,
        attention_type,
        segment_lengths,
        dilation_rates,
        pattern,
        rule,
        sizes,
        options,
    )


def _create(
    lookup: Callable[[str], Entry],
    name: str,
    segment_lengths: Sequence[int] | None,
    dilation_rates: Sequence[int] | None,
    pattern: DilationPattern | None,
    rule: str,
    sizes: Mapping[str, int],
    options: dict[str, Any],
) -> nn.Module:
    if name == "auto":
        name = "ring" if RING_OPTIONS & options.keys() else "improved"
    entry = lookup(name)
    if entry.without_ring is not None and not torch.distributed.is_available():
        substitute = lookup(entry.without_ring)
        left_out = sorted(RING_OPTIONS & options.keys())
        warn_caller(
            f"attention type {name!r} needs torch.distributed, which this build of PyTorch lacks; "
            f"using {entry.without_ring!r} ({substitute.cls.__name__}) instead, the same "
            f"attention on one device. Options without effect there: {left_out or 'none'}",
            RuntimeWarning,
        )
        entry = substitute
        options = {key: value for key, value in options.items() if key not in RING_OPTIONS}
    parameters = inspect.signature(entry.cls).parameters
    arguments: dict[str, Any] = {**sizes, **entry.defaults}
    arguments |= _pattern_arguments(
        name, parameters, segment_lengths, dilation_rates, pattern, rule
    )
    arguments |= _checked_options(name, parameters, entry.renames, options)
    return entry.cls(**arguments)


def _pattern_arguments(
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    segment_lengths: Sequence[int] | None,
    dilation_rates: Sequence[int] | None,
    pattern: DilationPattern | None,
    rule: str,
) -> dict[str, Any]:
    if pattern is None:
        segment_lengths = DEFAULT_SEGMENT_LENGTHS if segment_lengths is None else segment_lengths
        dilation_rates = DEFAULT_DILATION_RATES if dilation_rates is None else dilation_rates
    default_rule = rule == DEFAULT_RULE
    resolved = resolve_pattern(
        segment_lengths, dilation_rates, pattern, None if default_rule else rule, DEFAULT_RULE
    )
    if "pattern" in parameters:
        return {"pattern": resolved}
    if pattern is not None or not default_rule:
        raise TypeError(
            f"attention type {name!r}: the registered class takes no pattern=, so it can be had "
            f"with segment_lengths and dilation_rates and rule={DEFAULT_RULE!r} only"
        )
    return {"segment_lengths": segment_lengths, "dilation_rates": dilation_rates}


def _checked_options(
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    renames: Mapping[str, str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(options)
    known = sorted((parameters.keys() | renames.keys()) - _OWN_ARGUMENTS)
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise TypeError(f"attention type {name!r} has no option {unknown}; its options: {known}")
    checked: dict[str, Any] = {}
    for key, value in options.items():
        target = renames.get(key, key)
        if target in checked:
            raise TypeError(f"attention type {name!r}: {target} was given twice")
        checked[target] = value
    return checked
