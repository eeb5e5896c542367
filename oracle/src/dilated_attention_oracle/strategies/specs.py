"""Strategies for lengths, head counts, branches and patterns."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.strategies.features import PATTERN_FEATURES, check_features

MAX_BRANCHES = 3
MAX_DILATION = 6


def lengths(max_length: int = 48) -> st.SearchStrategy[int]:
    """Sequence lengths from 1; 1 itself and odd lengths come up often.

    Args:
        max_length: The longest, at least 1.

    Returns:
        The strategy.

    Raises:
        ValueError: If max_length is below 1.
    """
    _at_least_one("max_length", max_length)
    odd = st.integers(0, (max_length - 1) // 2).map(lambda half: 2 * half + 1)
    return odd | st.integers(1, max_length)


def head_counts(
    max_heads: int = 6, *, min_heads: int = 1, grouped_query: bool = True
) -> st.SearchStrategy[tuple[int, int]]:
    """Pairs ``(H, H_kv)`` with H_kv dividing H.

    Args:
        max_heads: Largest H.
        min_heads: Smallest H.
        grouped_query: Whether H_kv may be less than H.

    Returns:
        The strategy.

    Raises:
        ValueError: If ``1 <= min_heads <= max_heads`` does not hold.
    """
    _at_least_one("min_heads", min_heads)
    if max_heads < min_heads:
        raise ValueError(f"max_heads: expected at least {min_heads}, got {max_heads}")
    pairs = [
        (heads, kv)
        for heads in range(min_heads, max_heads + 1)
        for kv in range(heads, 0, -1)
        if heads % kv == 0 and (grouped_query or kv == heads)
    ]
    return st.sampled_from(pairs)


def branches(n: int) -> st.SearchStrategy[tuple[int, int]]:
    """Branches ``(w, r)`` for a sequence of n tokens, biased to the edges.

    Edges: ``r > w`` (some offsets select nothing), ``w > n``, ``w = n``, ``r`` not dividing ``w``,
    ``w`` not dividing ``n`` (a short last segment).

    Args:
        n: Length, at least 1.

    Returns:
        The strategy.

    Raises:
        ValueError: If n is below 1.
    """
    _at_least_one("n", n)
    rates = st.integers(1, MAX_DILATION)
    plain = st.tuples(st.integers(1, n + 1), rates)
    whole = st.tuples(st.just(n), rates)
    longer = st.tuples(st.integers(n + 1, 2 * n + 8), rates)
    sparse = st.integers(1, 3).flatmap(
        lambda w: st.tuples(st.just(w), st.integers(w + 1, w + MAX_DILATION))
    )
    uneven = st.integers(2, MAX_DILATION).flatmap(
        lambda r: st.tuples(st.integers(1, 5).map(lambda whole: whole * r + 1), st.just(r))
    )
    return plain | whole | longer | sparse | uneven


@st.composite
def patterns(
    draw: st.DrawFn,
    n: int,
    num_heads: int,
    *,
    features: Iterable[str] = PATTERN_FEATURES,
) -> Pattern:
    """Patterns of one to three branches that fit n tokens and H heads.

    Args:
        draw: Hypothesis's draw function.
        n: Length.
        num_heads: Number of query heads; ``head_groups`` gets no more branches than that.
        features: The rules to draw from, and ``torchscale_switches`` if these may be on.

    Returns:
        The pattern.

    Raises:
        ValueError: For unknown features, no rule, or n or num_heads below 1.
    """
    allowed = check_features(features)
    _at_least_one("num_heads", num_heads)
    rules = [rule for rule in PATTERN_FEATURES[:-1] if rule in allowed]
    if not rules:
        raise ValueError(f"features: expected at least one rule of {PATTERN_FEATURES[:-1]}")
    rule = draw(st.sampled_from(rules))
    most = min(MAX_BRANCHES, num_heads) if rule == "head_groups" else MAX_BRANCHES
    drawn = tuple(draw(st.lists(branches(n), min_size=1, max_size=most)))
    if rule == "table":
        table = tuple(
            tuple(draw(st.none() | st.integers(0, r - 1)) for _ in range(num_heads))
            for _, r in drawn
        )
        return Pattern(drawn, rule, table)
    if rule == "torchscale" and "torchscale_switches" in allowed and draw(st.booleans()):
        phantom_keys, detach_mix, shift_rows = (draw(st.booleans()) for _ in range(3))
        return Pattern(drawn, rule, None, phantom_keys, detach_mix, phantom_keys and shift_rows)
    return Pattern(drawn, rule)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
