"""Strategy for dtypes, by name."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from dilated_attention_oracle.precision import DTYPES, require_dtype


def dtypes(names: Iterable[str] = DTYPES) -> st.SearchStrategy[str]:
    """Names of dtypes, simplest (most exact) first.

    Args:
        names: The names to draw from.

    Returns:
        The strategy.

    Raises:
        ValueError: If a name is unknown or there is none.
    """
    chosen = sorted({require_dtype(name) for name in names}, key=DTYPES.index)
    if not chosen:
        raise ValueError("dtypes: expected at least one name")
    return st.sampled_from(chosen)
