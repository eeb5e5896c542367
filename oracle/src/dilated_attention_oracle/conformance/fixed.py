"""Small fixed cases, for the contracts that one drawn case in a hundred would meet."""

from __future__ import annotations

from typing import Any

import numpy as np

from dilated_attention_oracle.conformance.judge import supported_dtypes
from dilated_attention_oracle.conformance.protocol import RULES, Implementation
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.strategies import Case


def fixed_case(
    implementation: Implementation,
    branches: tuple[tuple[int, int], ...],
    *,
    n: int,
    heads: int = 4,
    batch: int = 1,
    **options: Any,
) -> Case:
    """A case of normal numbers in the implementation's most exact dtype.

    Args:
        implementation: The implementation under test.
        branches: Pairs ``(w, r)``, at most as many as heads.
        n: Length.
        heads: Number of query and key heads.
        batch: Batch size.
        **options: Fields of `Case`, such as ``is_causal``.

    Returns:
        The case, with the first rule that is supported; a table repeats the rule of LongNet.
    """
    rule = next(rule for rule in RULES if rule in implementation.supports)
    longnet = Pattern(branches)
    table = longnet.offsets(heads) if rule == "table" else None
    generator = np.random.default_rng([n, heads, batch])
    shape = (batch, n, heads, 4)
    query, key, value, dout = generator.standard_normal((4, *shape))
    return Case(
        query,
        key,
        value,
        dout,
        dlse=generator.standard_normal(shape[:3]),
        pattern=Pattern(branches, rule, table),
        dtype=supported_dtypes(implementation)[0],
        **options,
    )
