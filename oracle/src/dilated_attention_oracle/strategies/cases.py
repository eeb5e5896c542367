"""Strategy for whole calls of the operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dilated_attention_oracle.inputs import BoolArray, FloatArray, IntArray
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import DTYPES
from dilated_attention_oracle.strategies.arrays import normals
from dilated_attention_oracle.strategies.dtypes import dtypes as dtype_names
from dilated_attention_oracle.strategies.features import FEATURES, check_features
from dilated_attention_oracle.strategies.masks import boundaries, key_masks
from dilated_attention_oracle.strategies.specs import head_counts, lengths, patterns

_SCALES = st.sampled_from([0.0, -0.5]) | st.floats(0.125, 2.0).map(np.float32).map(float)


@dataclass(frozen=True)
class Case:
    """Everything one call is given, forward and backward.

    Attributes:
        query: ``(b, n, H, d)`` float64.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        dout: ``(b, n, H, d)``.
        dlse: ``(b, n, H)``.
        pattern: The dilation pattern.
        dtype: Name of the dtype to compute in.
        is_causal: As in `dilated_attention_oracle.forward`.
        scale: As in `dilated_attention_oracle.forward`.
        key_mask: As in `dilated_attention_oracle.forward`.
        cu_seqlens: As in `dilated_attention_oracle.forward`.
        dropout_p: As in `dilated_attention_oracle.forward`.
        seed: As in `dilated_attention_oracle.forward`.
    """

    query: FloatArray
    key: FloatArray
    value: FloatArray
    dout: FloatArray
    dlse: FloatArray
    pattern: Pattern
    dtype: str = "float64"
    is_causal: bool = False
    scale: float | None = None
    key_mask: BoolArray | None = None
    cu_seqlens: IntArray | None = None
    dropout_p: float = 0.0
    seed: int | None = None

    @property
    def tensors(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Query, key and value."""
        return self.query, self.key, self.value

    @property
    def options(self) -> dict[str, Any]:
        """The keyword options of `dilated_attention_oracle.forward`."""
        return {
            "is_causal": self.is_causal,
            "scale": self.scale,
            "key_mask": self.key_mask,
            "cu_seqlens": self.cu_seqlens,
            "dropout_p": self.dropout_p,
            "seed": self.seed,
        }

    @property
    def gradients(self) -> dict[str, FloatArray]:
        """The incoming gradients, as keywords."""
        return {"dout": self.dout, "dlse": self.dlse}

    @property
    def length(self) -> int:
        """Global length n."""
        return int(self.query.shape[1])

    @property
    def num_heads(self) -> int:
        """Number of query heads H."""
        return int(self.query.shape[2])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Keep Hypothesis from printing every number: the shapes and a seed tell as much."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        """Shapes and options."""
        options = {name: value for name, value in self.options.items() if value is not None}
        return (
            f"Case(query={self.query.shape}, key={self.key.shape}, dtype={self.dtype!r}, "
            f"pattern={self.pattern}, {options})"
        )


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    features: Iterable[str] = FEATURES,
    dtypes: Iterable[str] = DTYPES,
    max_length: int = 48,
    max_heads: int = 6,
    max_width: int = 8,
    max_batch: int = 2,
) -> Case:
    """Calls whose dense oracle takes a few milliseconds.

    Args:
        draw: Hypothesis's draw function.
        features: What a case may use, out of `FEATURES`; at least one rule.
        dtypes: Names of the dtypes to draw from.
        max_length: Longest sequence.
        max_heads: Most query heads.
        max_width: Largest head dim.
        max_batch: Largest batch; packed documents have batch 1.

    Returns:
        The case.

    Raises:
        ValueError: For unknown features or dtypes, no rule, or a limit below 1.
    """
    allowed = check_features(features)
    if max_width < 1 or max_batch < 1:
        raise ValueError(
            f"expected max_width and max_batch of at least 1, got {max_width}, {max_batch}"
        )
    n = draw(lengths(max_length))
    heads, kv_heads = draw(head_counts(max_heads, grouped_query="grouped_query" in allowed))
    width = draw(st.integers(1, max_width))
    pattern = draw(patterns(n, heads, features=allowed))

    def choose(feature: str) -> bool:
        masks_fit = pattern.is_exact or feature in ("causal", "scale")
        return feature in allowed and masks_fit and draw(st.booleans())

    has_documents = choose("documents")
    batch = 1 if has_documents else draw(st.integers(1, max_batch))
    has_dropout = choose("dropout")
    query_shape, key_shape = (batch, n, heads, width), (batch, n, kv_heads, width)
    return Case(
        query=draw(normals(query_shape)),
        key=draw(normals(key_shape)),
        value=draw(normals(key_shape)),
        dout=draw(normals(query_shape)),
        dlse=draw(normals(query_shape[:3])),
        pattern=pattern,
        dtype=draw(dtype_names(dtypes)),
        is_causal=choose("causal"),
        scale=draw(_SCALES) if choose("scale") else None,
        key_mask=draw(key_masks(batch, n)) if choose("key_mask") else None,
        cu_seqlens=draw(boundaries(n)) if has_documents else None,
        dropout_p=draw(st.sampled_from([0.1, 0.5, 0.9, 1.0])) if has_dropout else 0.0,
        seed=draw(st.integers(-(2**63), 2**63 - 1)) if has_dropout else None,
    )
