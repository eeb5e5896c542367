from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings

from dilated_attention_oracle.counts import branch_counts, counts
from dilated_attention_oracle.inputs import Inputs, prepare
from dilated_attention_oracle.strategies import FEATURES, Case, cases

EXACT = set(FEATURES) - {"torchscale_switches", "dropout", "scale"}


def literal(inputs: Inputs) -> np.ndarray[Any, Any]:
    """The definition, one pair at a time."""
    n, branches = inputs.length, inputs.pattern.branches
    offsets = inputs.pattern.offsets(inputs.num_heads)
    found = np.zeros((len(branches), inputs.batch, inputs.num_heads, n, n), dtype=np.bool_)
    for start, end in zip(inputs.cu_seqlens[:-1], inputs.cu_seqlens[1:], strict=True):
        for p in range(start, end):
            for k in range(start, end):
                for i, (w, r) in enumerate(branches):
                    in_reach = (p - start) // w == (k - start) // w
                    in_reach &= k <= p or not inputs.is_causal
                    for h, o in enumerate(offsets[i]):
                        both = all(((x - start) % w) % r == o for x in (p, k))
                        for b in range(inputs.batch):
                            seen = both and in_reach and inputs.key_mask[b, k]
                            found[i, b, h, p, k] = seen
    return found


@settings(max_examples=25)
@given(case=cases(features=EXACT, max_length=14, max_heads=3))
def test_counts_are_the_definition(case: Case) -> None:
    inputs = prepare(*case.tensors, case.pattern, **case.options)
    expected = literal(inputs)
    assert np.array_equal(branch_counts(inputs), expected)
    assert np.array_equal(counts(inputs), expected.sum(axis=0))
