"""Pinned vectors: 32 calls with inputs and the oracle's results, shipped as one npz file.

The inputs are exact in all four dtypes, so that one set of vectors serves all of them.
``python -m dilated_attention_oracle.conformance.vectors`` writes the file anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.inputs import FloatArray
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import round_to

PATH = Path(__file__).parent / "data" / "vectors.npz"
INPUTS = ("query", "key", "value", "dout", "dlse")
RESULTS = ("out", "lse", "dq", "dk", "dv")


@dataclass(frozen=True)
class Spec:
    """One call: shape, pattern and options; the seed of its numbers is its place in the list."""

    n: int
    branches: tuple[tuple[int, int], ...]
    rule: str = "longnet"
    heads: int = 2
    kv_heads: int = 2
    width: int = 4
    batch: int = 1
    table: tuple[tuple[int | None, ...], ...] | None = None
    switches: tuple[bool, bool, bool] = (False, False, False)
    is_causal: bool = False
    scale: float | None = None
    real_keys: tuple[int, ...] | None = None
    cu_seqlens: tuple[int, ...] | None = None
    dropout_p: float = 0.0
    seed: int | None = None

    @property
    def pattern(self) -> Pattern:
        """The dilation pattern."""
        return Pattern(self.branches, self.rule, self.table, *self.switches)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the call; ``real_keys`` is the number of unmasked keys per sequence."""
        mask = None
        if self.real_keys is not None:
            mask = np.arange(self.n)[None, :] < np.array(self.real_keys)[:, None]
        return {
            "is_causal": self.is_causal,
            "scale": self.scale,
            "key_mask": mask,
            "cu_seqlens": None if self.cu_seqlens is None else np.array(self.cu_seqlens),
            "dropout_p": self.dropout_p,
            "seed": self.seed,
        }


SPECS = (
    Spec(1, ((1, 1),)),
    Spec(1, ((4, 2), (2, 3)), heads=3, kv_heads=3, width=1),
    Spec(7, ((7, 1),)),
    Spec(9, ((4, 1), (16, 2)), is_causal=True),
    Spec(13, ((4, 3),), heads=4, kv_heads=4),
    Spec(12, ((2, 5),), heads=3, kv_heads=1),
    Spec(10, ((64, 4),), heads=4, kv_heads=2),
    Spec(15, ((4, 1), (8, 2), (16, 4)), heads=4, kv_heads=4, is_causal=True),
    Spec(11, ((11, 1), (11, 1))),
    Spec(8, ((3, 2), (5, 3)), batch=2),
    Spec(8, ((4, 2), (8, 3)), "torchscale", heads=5, kv_heads=5),
    Spec(14, ((7, 2), (14, 4)), "torchscale", heads=6, kv_heads=3, width=2, is_causal=True),
    Spec(9, ((4, 2), (16, 4)), "head_groups", heads=3, kv_heads=3),
    Spec(12, ((3, 1), (6, 2), (12, 3)), "head_groups", heads=4, kv_heads=2, is_causal=True),
    Spec(7, ((3, 2), (7, 3)), "table", 3, 3, table=((0, None, 1), (2, 1, None))),
    Spec(6, ((3, 1), (6, 2)), "table", 2, 1, table=((None, 0), (None, 1))),
    Spec(10, ((4, 1), (10, 3)), scale=1.0),
    Spec(10, ((4, 1), (10, 3)), scale=0.125, is_causal=True, width=8),
    Spec(9, ((4, 1), (16, 2)), batch=2, real_keys=(9, 5)),
    Spec(9, ((4, 1), (16, 2)), batch=2, real_keys=(0, 7), is_causal=True),
    Spec(13, ((4, 1), (8, 2)), cu_seqlens=(0, 5, 5, 13)),
    Spec(13, ((3, 2), (8, 3)), heads=4, kv_heads=1, cu_seqlens=(0, 1, 6, 13), is_causal=True),
    Spec(11, ((4, 2),), cu_seqlens=(0, 3, 11), real_keys=(8,)),
    Spec(12, ((4, 1), (12, 2)), dropout_p=0.25, seed=0),
    Spec(12, ((4, 1), (12, 2)), dropout_p=0.5, seed=-(2**63), is_causal=True, batch=2),
    Spec(12, ((5, 2), (12, 3)), dropout_p=0.9, seed=2**40 + 3, heads=4, kv_heads=2),
    Spec(6, ((3, 1), (6, 2)), dropout_p=1.0, seed=5),
    Spec(13, ((6, 2), (13, 3)), cu_seqlens=(0, 4, 13), dropout_p=0.3, seed=11, real_keys=(12,)),
    Spec(11, ((4, 3), (16, 2)), "torchscale", 4, 4, switches=(True, False, False)),
    Spec(11, ((4, 1), (8, 2)), "torchscale", 4, 2, switches=(False, True, False)),
    Spec(13, ((5, 2), (13, 4)), "torchscale", 4, 4, switches=(True, True, True)),
    Spec(13, ((5, 2), (6, 4)), "torchscale", 4, 4, switches=(True, True, True), is_causal=True),
)


def inputs(number: int) -> dict[str, FloatArray]:
    """The input arrays of one vector: normal numbers, rounded to what every dtype holds.

    Args:
        number: Its place in `SPECS`.

    Returns:
        query, key, value, dout and dlse.
    """
    spec, generator = SPECS[number], np.random.default_rng(number)
    query, key = ((spec.batch, spec.n, h, spec.width) for h in (spec.heads, spec.kv_heads))
    shapes = (query, key, key, query, query[:3])
    return {
        name: round_to(round_to(generator.standard_normal(shape), "bfloat16"), "float16")
        for name, shape in zip(INPUTS, shapes, strict=True)
    }


def compute(number: int) -> dict[str, npt.NDArray[Any]]:
    """Inputs, specification and results of one vector.

    Args:
        number: Its place in `SPECS`.

    Returns:
        The arrays by name; ``spec`` is JSON text.
    """
    spec, arrays = SPECS[number], inputs(number)
    query, key, value, dout, dlse = (arrays[name] for name in INPUTS)
    result = reference(query, key, value, spec.pattern, dout=dout, dlse=dlse, **spec.options)
    stored: dict[str, npt.NDArray[Any]] = {
        name: array.astype(np.float16) for name, array in arrays.items()
    }
    stored |= {name: getattr(result, name) for name in RESULTS}
    stored["spec"] = np.array(json.dumps(vars(spec)))
    return stored


def load(path: Path = PATH) -> list[dict[str, npt.NDArray[Any]]]:
    """The stored vectors, inputs as float64.

    Args:
        path: The npz file.

    Returns:
        One dict per vector, keyed as `compute` does.
    """
    with np.load(path, allow_pickle=False) as stored:
        loaded = [
            {name: stored[f"case{number:02d}/{name}"] for name in (*INPUTS, *RESULTS, "spec")}
            for number in range(len(SPECS))
        ]
    for vector in loaded:
        vector.update({name: vector[name].astype(np.float64) for name in INPUTS})
    return loaded


def write(path: Path = PATH) -> None:
    """Compute all vectors and store them.

    Args:
        path: The npz file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"case{number:02d}/{name}": array
        for number in range(len(SPECS))
        for name, array in compute(number).items()
    }
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    write()
