"""Strategy for tensors: a drawn seed and size of normally distributed numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dilated_attention_oracle.inputs import FloatArray

MAGNITUDES = (1.0, 0.0, 0.25)


@st.composite
def normals(draw: st.DrawFn, shape: tuple[int, ...]) -> FloatArray:
    """Normal numbers times 1, 0 or 1/4, so that scores stay of the size they have in use.

    Drawing a seed instead of each number keeps a case small to draw and to report.

    Args:
        draw: Hypothesis's draw function.
        shape: Shape of the array.

    Returns:
        float64 array of that shape.

    Raises:
        ValueError: For a negative size.
    """
    if any(size < 0 for size in shape):
        raise ValueError(f"shape: expected sizes of at least 0, got {shape}")
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    return draw(st.sampled_from(MAGNITUDES)) * generator.standard_normal(shape)
