"""Run an implementation on a case, and judge the result by the one tolerance formula."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.inputs import IntArray
from dilated_attention_oracle.precision import DTYPES, lse_dtype, round_to
from dilated_attention_oracle.results import Result
from dilated_attention_oracle.strategies import FEATURES, Case
from dilated_attention_oracle.tolerance import check, check_lse

GRADIENTS = ("dq", "dk", "dv")


def require(implementation: Implementation, *capabilities: str) -> None:
    """Skip the test unless all capabilities are supported.

    Args:
        implementation: The implementation under test.
        *capabilities: Names out of `CAPABILITIES`.
    """
    missing = sorted(set(capabilities) - implementation.supports)
    if missing:
        pytest.skip(f"not supported: {', '.join(missing)}; test_errors holds that it raises")


def features(implementation: Implementation, without: Iterable[str] = ()) -> frozenset[str]:
    """What a drawn case may use.

    Args:
        implementation: The implementation under test.
        without: Features to leave out.

    Returns:
        Names out of `FEATURES`.
    """
    return implementation.supports.intersection(FEATURES).difference(without)


def supported_dtypes(implementation: Implementation) -> list[str]:
    """The implementation's dtypes, the most exact first."""
    return [dtype for dtype in DTYPES if dtype in implementation.supports]


def run(
    implementation: Implementation,
    case: Case,
    *,
    gradients: bool = True,
    **extra: Any,
) -> Result:
    """Call the implementation with the case's arrays, rounded to the case's dtype.

    Args:
        implementation: The implementation under test.
        case: The case.
        gradients: Whether to ask for gradients, if supported.
        **extra: Ring options and ``deterministic``.

    Returns:
        What it returned.
    """
    call = dict(case.options)
    if gradients and "gradients" in implementation.supports:
        call["dout"] = round_to(case.dout, case.dtype)
        if "lse_gradient" in implementation.supports:
            call["dlse"] = round_to(case.dlse, lse_dtype(case.dtype))
    query, key, value = (round_to(x, case.dtype) for x in case.tensors)
    return implementation(query, key, value, case.pattern, dtype=case.dtype, **call, **extra)


def expected(implementation: Implementation, case: Case) -> tuple[Result, Result]:
    """The oracle's and the naive result of the case.

    Args:
        implementation: The implementation under test; without ``lse_gradient`` dlse is 0.
        case: The case.

    Returns:
        ``(reference, naive)``.
    """
    dlse = case.dlse if "lse_gradient" in implementation.supports else None
    arguments = (*case.tensors, case.pattern, case.dtype)
    options = {"dout": case.dout, "dlse": dlse, **case.options}
    return reference(*arguments, **options), naive(*arguments, **options)


def judge(
    implementation: Implementation, case: Case, actual: Result, *, gradients: bool = True
) -> None:
    """Judge lse and out, and the gradients if asked for and supported.

    Args:
        implementation: The implementation under test.
        case: What it was given.
        actual: What it returned.
        gradients: Whether to judge dq, dk and dv.

    Raises:
        AssertionError: If a bound is exceeded.
    """
    want, plain = expected(implementation, case)
    assert want.terms is not None
    check_lse(actual.lse, want.lse, plain.lse, case.dtype, want.terms.lse)
    names = ("out", *(GRADIENTS if gradients and "gradients" in implementation.supports else ()))
    for name in names:
        got, right, simple = (getattr(result, name) for result in (actual, want, plain))
        check(name, got, right, simple, case.dtype, getattr(want.terms, name))


def ring_options(implementation: Implementation, shards: list[IntArray]) -> dict[str, Any]:
    """The ring arguments for a drawn partition, as far as supported.

    Args:
        implementation: The implementation under test.
        shards: Global positions of each rank's rows.

    Returns:
        Keywords for the implementation.
    """
    options: dict[str, Any] = {"ring_size": len(shards)}
    if "shard_lengths" in implementation.supports:
        options["shard_lengths"] = tuple(len(shard) for shard in shards)
    if "order" in implementation.supports:
        options["order"] = np.concatenate(shards).astype(np.int64)
    return options
