"""Contract: what is not supported or wrong raises; nothing is accepted and ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import require, run
from dilated_attention_oracle.conformance.protocol import CAPABILITIES, Implementation
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import DTYPES
from dilated_attention_oracle.strategies import Case

REFUSALS = (ValueError, TypeError, NotImplementedError)
HEADS = 4
BRANCHES = ((4, 1), (8, 2))
# One change to a plain case that needs the capability.
CHANGES: dict[str, dict[str, Any]] = {
    "longnet": {"pattern": Pattern(BRANCHES)},
    "torchscale": {"pattern": Pattern(BRANCHES, "torchscale")},
    "head_groups": {"pattern": Pattern(BRANCHES, "head_groups")},
    "table": {"pattern": Pattern(BRANCHES, "table", ((0, 0, None, 0), (1, 0, 1, 1)))},
    "torchscale_switches": {"pattern": Pattern(BRANCHES, "torchscale", None, True, True, True)},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.25},
    "key_mask": {"key_mask": np.arange(8)[None] % 2 == 0},
    "documents": {"cu_seqlens": np.array([0, 3, 8])},
    "dropout": {"dropout_p": 0.5, "seed": 1},
    **{dtype: {"dtype": dtype} for dtype in DTYPES},
}
CALLS: dict[str, dict[str, Any]] = {
    "deterministic": {"deterministic": True},
    "ring": {"ring_size": 2},
    "shard_lengths": {"ring_size": 2, "shard_lengths": (1, 7)},
    "order": {"ring_size": 2, "order": "zigzag"},
    "replicated": {"ring_size": 2, "layout": "replicated"},
}
# What is wrong, what it needs, the keywords, and the error that semantics asks for.
BAD_CALLS: list[tuple[str, str | None, dict[str, Any], type[Exception]]] = [
    ("dropout_p below 0", "dropout", {"dropout_p": -0.1, "seed": 1}, ValueError),
    ("dropout_p above 1", "dropout", {"dropout_p": 1.5, "seed": 1}, ValueError),
    ("key mask of another length", "key_mask", {"key_mask": np.ones((1, 7), bool)}, ValueError),
    ("key mask of floats", "key_mask", {"key_mask": np.ones((1, 8))}, TypeError),
    ("documents past the end", "documents", {"cu_seqlens": np.array([0, 9])}, ValueError),
    ("documents not from 0", "documents", {"cu_seqlens": np.array([1, 8])}, ValueError),
    ("documents that shrink", "documents", {"cu_seqlens": np.array([0, 5, 3, 8])}, ValueError),
    ("no rank", "ring", {"ring_size": 0}, ValueError),
    ("an unknown layout", "ring", {"ring_size": 2, "layout": "scattered"}, ValueError),
    ("an unknown order", "order", {"ring_size": 2, "order": "spiral"}, ValueError),
    ("order no permutation", "order", {"ring_size": 2, "order": np.zeros(8, int)}, ValueError),
    ("lengths too few", "shard_lengths", {"ring_size": 2, "shard_lengths": (8,)}, ValueError),
    ("lengths too short", "shard_lengths", {"ring_size": 2, "shard_lengths": (3, 4)}, ValueError),
    ("a negative length", "shard_lengths", {"ring_size": 2, "shard_lengths": (9, -1)}, ValueError),
]


class TestErrors:
    """Refusals."""

    @pytest.mark.parametrize(
        "capability", [name for name in CAPABILITIES if name in (*CHANGES, *CALLS)]
    )
    def test_unsupported_raises(
        self, attention_implementation: Implementation, capability: str
    ) -> None:
        """A call that needs what is not supported raises; one that is supported does not."""
        case = replace(plain(attention_implementation), **CHANGES.get(capability, {}))
        call = CALLS.get(capability, {})
        if capability in attention_implementation.supports:
            if "ring_size" in call:
                require(attention_implementation, "ring")
            run(attention_implementation, case, gradients=False, **call)
            return
        with pytest.raises(REFUSALS):
            run(attention_implementation, case, gradients=False, **call)

    @pytest.mark.parametrize("capability", ["gradients", "lse_gradient", "grouped_query"])
    def test_unsupported_arrays_raise(
        self, attention_implementation: Implementation, capability: str
    ) -> None:
        """Arrays that need what is not supported raise; one that is supported does not."""
        case = plain(attention_implementation)
        query, key, value = case.tensors
        given: dict[str, Any] = {"dtype": case.dtype}
        if capability == "grouped_query":
            key, value = key[:, :, :2], value[:, :, :2]
        else:
            given["dout"] = case.dout
        if capability == "lse_gradient":
            given["dlse"] = case.dlse
        if capability in attention_implementation.supports:
            attention_implementation(query, key, value, case.pattern, **given)
            return
        with pytest.raises(REFUSALS):
            attention_implementation(query, key, value, case.pattern, **given)

    @pytest.mark.parametrize(
        ("needs", "call", "error"),
        [bad[1:] for bad in BAD_CALLS],
        ids=[bad[0] for bad in BAD_CALLS],
    )
    def test_wrong_values_raise(
        self,
        attention_implementation: Implementation,
        needs: str,
        call: dict[str, Any],
        error: type[Exception],
    ) -> None:
        """ValueError for a wrong value or shape, TypeError for a wrong dtype."""
        require(attention_implementation, needs)
        case = plain(attention_implementation)
        options = {**case.options, **call}
        with pytest.raises(error):
            attention_implementation(*case.tensors, case.pattern, dtype=case.dtype, **options)

    @pytest.mark.parametrize(
        "shapes",
        [
            ((1, 8, HEADS, 4), (1, 7, HEADS, 4), (1, 7, HEADS, 4)),
            ((1, 8, HEADS, 4), (2, 8, HEADS, 4), (2, 8, HEADS, 4)),
            ((1, 8, HEADS, 4), (1, 8, HEADS, 5), (1, 8, HEADS, 5)),
            ((1, 8, HEADS, 4), (1, 8, HEADS, 4), (1, 8, HEADS, 3)),
            ((1, 8, HEADS, 4), (1, 8, 3, 4), (1, 8, 3, 4)),
            ((8, HEADS, 4), (8, HEADS, 4), (8, HEADS, 4)),
        ],
        ids=["length", "batch", "width", "value", "heads", "rank"],
    )
    def test_wrong_shapes_raise(
        self, attention_implementation: Implementation, shapes: tuple[tuple[int, ...], ...]
    ) -> None:
        """Query, key and value that do not belong together raise ValueError."""
        case = plain(attention_implementation)
        query, key, value = (np.zeros(shape) for shape in shapes)
        with pytest.raises(ValueError, match=r".+"):
            attention_implementation(query, key, value, case.pattern, dtype=case.dtype)

    def test_head_groups_need_a_head_each(self, attention_implementation: Implementation) -> None:
        """More branches than heads raise ValueError."""
        require(attention_implementation, "head_groups")
        case = fixed_case(attention_implementation, BRANCHES, n=8, heads=1)
        pattern = Pattern(BRANCHES, "head_groups")
        with pytest.raises(ValueError, match=r".+"):
            attention_implementation(*case.tensors, pattern, dtype=case.dtype)

    @pytest.mark.parametrize("capability", ["key_mask", "documents", "dropout"])
    def test_switches_refuse_options_without_meaning(
        self, attention_implementation: Implementation, capability: str
    ) -> None:
        """The torchscale switches together with a mask, documents or dropout raise ValueError."""
        require(attention_implementation, "torchscale_switches", capability)
        case = replace(plain(attention_implementation), **CHANGES[capability])
        case = replace(case, **CHANGES["torchscale_switches"])
        with pytest.raises(ValueError, match=r".+"):
            run(attention_implementation, case, gradients=False)


def plain(implementation: Implementation) -> Case:
    """A case that every implementation supports."""
    return fixed_case(implementation, BRANCHES, n=8, heads=HEADS)
