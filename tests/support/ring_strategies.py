"""Strategies for rings, and how many examples a property gets."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from dilated_attention_oracle.precision import DTYPES
from dilated_attention_oracle.strategies import FEATURES, Case, cases, shard_lengths

from .ring_calls import Ring

# Longer sequences meet no new edge: tiles, segments and shards are all smaller.
MAX_LENGTH = 24
EXACT = tuple(name for name in FEATURES if name != "torchscale_switches")


def examples(share: float = 1.0) -> settings:
    """The loaded profile's number of examples times `share`."""
    assert settings.default is not None
    return settings(max_examples=max(1, round(settings.default.max_examples * share)))


def holds(
    check: Callable[..., object], drawn: st.SearchStrategy[Any], share: float, *name: object
) -> None:
    """Run `check(*example)` on drawn examples; for parametrized tests.

    A derandomized run would draw the same examples for every parameter of one test, so each `name`
    gets a seed of its own.
    """

    def attempt(example: tuple[Any, ...]) -> None:
        check(*example)

    tried = examples(share)(given(example=drawn)(attempt))
    if settings.default is not None and settings.default.derandomize:
        tried = seed(zlib.crc32(repr(name).encode()))(tried)
    tried()


@st.composite
def rings(
    draw: st.DrawFn,
    n: int,
    *,
    layouts: tuple[str, ...] = ("sharded",),
    orders: tuple[str, ...] = ("contiguous", "zigzag", "map"),
    min_ranks: int = 1,
    max_ranks: int = 8,
    deterministic: bool | None = None,
) -> Ring:
    """Rings of `min_ranks` to `max_ranks` ranks; uneven and empty shards, small tiles."""
    lengths = draw(shard_lengths(n, min_ranks=min_ranks, max_ranks=max_ranks))
    order: str | tuple[int, ...] = draw(st.sampled_from(orders))
    if order == "map":
        order = tuple(draw(st.permutations(range(n))))
    return Ring(
        lengths,
        draw(st.sampled_from(layouts)),
        order,
        draw(st.sampled_from([2, 3, 5])),
        draw(st.booleans()) if deterministic is None else deterministic,
        draw(st.sampled_from([256, 4, 3])),
    )


@st.composite
def ring_cases(
    draw: st.DrawFn,
    /,
    *,
    features: Iterable[str] = FEATURES,
    dtypes: Iterable[str] = DTYPES,
    max_length: int = MAX_LENGTH,
    **ring: Any,
) -> tuple[Case, Ring]:
    """A case and a ring for it."""
    case = draw(cases(features=features, dtypes=dtypes, max_length=max_length, max_heads=5))
    return case, draw(rings(case.length, **ring))


@st.composite
def device_cases(draw: st.DrawFn, /, **options: Any) -> tuple[Case, Ring]:
    """A case for one device, with small tiles in some."""
    case = draw(cases(**options))
    ring = Ring(deterministic=draw(st.booleans()), block=draw(st.sampled_from([256, 5, 4, 2])))
    return case, ring
