"""Contract: the pinned vectors, which do not depend on the installed oracle computing anything."""

from __future__ import annotations

from typing import Any

import pytest

from dilated_attention_oracle.conformance.judge import (
    GRADIENTS,
    expected,
    require,
    run,
    supported_dtypes,
)
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.conformance.vectors import INPUTS, SPECS, Spec, load
from dilated_attention_oracle.strategies import Case
from dilated_attention_oracle.tolerance import check, check_lse


def needs(spec: Spec) -> list[str]:
    """The capabilities that a vector needs."""
    used: dict[str, Any] = {
        spec.rule: True,
        "torchscale_switches": any(spec.switches),
        "causal": spec.is_causal,
        "scale": spec.scale is not None,
        "key_mask": spec.real_keys is not None,
        "documents": spec.cu_seqlens is not None,
        "dropout": spec.dropout_p > 0.0,
        "grouped_query": spec.kv_heads != spec.heads,
    }
    return [name for name, is_used in used.items() if is_used]


class TestVectors:
    """Stored results, in every supported dtype."""

    @pytest.mark.parametrize("number", range(len(SPECS)))
    def test_pinned_vector(self, attention_implementation: Implementation, number: int) -> None:
        """Out and lse, and the gradients if supported, equal the stored ones."""
        spec, stored = SPECS[number], load()[number]
        require(attention_implementation, *needs(spec))
        arrays: dict[str, Any] = {name: stored[name] for name in INPUTS}
        for dtype in supported_dtypes(attention_implementation):
            case = Case(**arrays, pattern=spec.pattern, dtype=dtype, **spec.options)
            actual = run(attention_implementation, case)
            want, plain = expected(attention_implementation, case)
            assert want.terms is not None
            check_lse(actual.lse, stored["lse"], plain.lse, dtype, want.terms.lse)
            check("out", actual.out, stored["out"], plain.out, dtype, want.terms.out)
            if not {"gradients", "lse_gradient"} <= attention_implementation.supports:
                continue
            for name in GRADIENTS:
                got, simple, terms = (getattr(x, name) for x in (actual, plain, want.terms))
                check(name, got, stored[name], simple, dtype, terms)
