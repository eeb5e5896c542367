"""What it costs the gradients that delta is computed from the rounded out, flat to one-hot softmax.

`python -m benchmarks.peaky_delta` repeats the arithmetic of the 16-bit kernels in float64, with
their roundings put in by hand, writes benchmarks/results/peaky_delta.json and the tables of
docs/numerics.md. Needs no GPU; one core takes a minute.
"""

from __future__ import annotations

import json
import platform
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dilated_attention_oracle import Pattern, Result, round_to
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.counts import counts
from dilated_attention_oracle.inputs import FloatArray, prepare
from dilated_attention_oracle.tolerance import measure

from . import markers

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/peaky_delta.json"
PAGE = ROOT / "docs/numerics.md"
PATTERN = Pattern(((64, 1), (128, 2), (256, 4)))
N, HEADS, HEAD_DIMS = 256, 4, (64, 128)
DTYPES = ("bfloat16", "float16")
PEAKS = (1, 2, 4, 8, 16, 32)
# What is added to every entry of key and value: 4 standard deviations, or nothing.
INPUTS = {"normal": 0.0, "shifted": 4.0}
# What the kernels round to 16 bits: P before it is multiplied by value (P <= 1 after the row's
# maximum is taken off), out, dS before it is multiplied by key and query, the gradients.
STEPS = {"P": "P in out", "out": "out for delta", "dS": "dS", "gradients": "dq"}
WAYS = {
    "rounded": ("the returned out, as now", "nothing"),
    "residual": (
        "out and its rounding residual",
        "2 bytes for every entry of out, kept until then",
    ),
    "float32": ("a float32 out", "4 bytes for every entry of out, kept until then"),
    "keys": ("sum P dP over the keys", "2 more products beside the 7 of the backward"),
    "corrected": ("the row sums of dS, in the kernel of dq", "1 more product, of P and key, there"),
}
GRADIENTS = ("dq", "dk")


def inputs(kind: str, dtype: str, head_dim: int, peak: float) -> list[FloatArray]:
    """query, key, value and dout, rounded to the dtype."""
    rng = np.random.default_rng(0)
    query, key, value, dout = (rng.standard_normal((1, N, HEADS, head_dim)) for _ in range(4))
    shift = INPUTS[kind]
    return [round_to(x, dtype) for x in (query * peak, key + shift, value + shift, dout)]


def weights(query: FloatArray, key: FloatArray) -> tuple[FloatArray, FloatArray]:
    """C exp(s - max s) and its sum over the keys, (b, H, n, n) and (b, H, n, 1)."""
    count = counts(prepare(query, key, key, PATTERN)).astype(np.float64)
    scores = query.shape[-1] ** -0.5 * np.einsum("bphd,bkhd->bhpk", query, key)
    scores = np.where(count > 0, scores, -np.inf)
    unscaled = count * np.exp(scores - scores.max(axis=-1, keepdims=True))
    return unscaled, unscaled.sum(axis=-1, keepdims=True)


def gradients(
    arrays: list[FloatArray], dtype: str, way: str, steps: tuple[str, ...] = tuple(STEPS)
) -> dict[str, FloatArray]:
    """dq and dk as the kernels compute them, delta by one of `WAYS`, some of `STEPS` rounded."""
    query, key, value, dout = arrays

    def kept(array: FloatArray, step: str) -> FloatArray:
        return round_to(array, dtype) if step in steps else array

    unscaled, total = weights(query, key)
    share = unscaled / total
    out = np.einsum("bhpk,bkhd->bphd", kept(unscaled, "P"), value) / total.swapaxes(1, 2)
    dshare = np.einsum("bphd,bkhd->bhpk", dout, value)
    exact = (share * dshare).sum(axis=-1, keepdims=True)
    rounded = kept(out, "out")
    seen = {
        "rounded": rounded,
        "residual": rounded + round_to(out - rounded, dtype),
        "float32": round_to(out, "float32"),
        "corrected": rounded,
    }
    delta = exact if way == "keys" else np.einsum("bphd,bphd->bhp", dout, seen[way])[..., None]
    dscores = share * (dshare - delta)
    # What the row sum of dS is short of 0 is the error of delta.
    missing = dscores.sum(axis=-1, keepdims=True) if way == "corrected" else np.zeros_like(total)
    scale = query.shape[-1] ** -0.5
    dq = np.einsum("bhpk,bkhd->bphd", kept(dscores, "dS"), key)
    dq -= np.einsum("bhpk,bkhd->bphd", missing * kept(share, "P"), key)
    dk = np.einsum("bhpk,bphd->bkhd", kept(dscores - share * missing, "dS"), query)
    return {"dq": kept(scale * dq, "gradients"), "dk": kept(scale * dk, "gradients")}


def _norm(error: npt.NDArray[Any], size: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(error) / np.linalg.norm(size))


def _median_row(error: FloatArray, size: FloatArray) -> float:
    return float(np.median(np.linalg.norm(error, axis=-1) / np.linalg.norm(size, axis=-1)))


def judge(
    found: dict[str, FloatArray], exact: Result, plain: Result, dtype: str
) -> dict[str, dict[str, float]]:
    """Of dq and dk: share of the budget, share without the naive run's error, relative error.

    The error is that of the whole array and of its median row.
    """
    judged = {}
    for name in GRADIENTS:
        got, want, naive_one = (found[name], getattr(exact, name), getattr(plain, name))
        terms = getattr(exact.terms, name)
        numbers = {
            "share": measure(name, got, want, naive_one, dtype, terms).share,
            "share_without_naive": measure(name, got, want, want, dtype, terms).share,
            "error": _norm(got - want, want),
            "median_row": _median_row(got - want, want),
        }
        judged[name] = {field: float(f"{number:.3e}") for field, number in numbers.items()}
    return judged


def row(kind: str, dtype: str, head_dim: int, peak: float) -> dict[str, Any]:
    """One case: every way with all roundings, and every rounding alone."""
    arrays = inputs(kind, dtype, head_dim, peak)
    query, key, value, dout = arrays
    exact = reference(query, key, value, PATTERN, dtype, dout=dout)
    plain = naive(query, key, value, PATTERN, dtype, dout=dout)
    unscaled, total = weights(query, key)
    return {
        "inputs": kind,
        "dtype": dtype,
        "head_dim": head_dim,
        "peak": peak,
        "median_of_largest_p": float(np.median((unscaled / total).max(axis=-1))),
        "naive": {
            name: _norm(getattr(plain, name) - getattr(exact, name), getattr(exact, name))
            for name in GRADIENTS
        },
        "ways": {way: judge(gradients(arrays, dtype, way), exact, plain, dtype) for way in WAYS},
        "steps": {
            step: judge(gradients(arrays, dtype, "rounded", (step,)), exact, plain, dtype)
            for step in STEPS
        },
    }


def _markdown(heading: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(x)} |" for x in (heading, ["---"] * len(heading), *rows))


def _cell(report: dict[str, Any], *path: str, **wanted: object) -> float:
    """The larger of the head dimensions: what stands at a path in the rows of a case."""
    found = []
    for entry in report["rows"]:
        if wanted.items() <= entry.items():
            value: Any = entry
            for step in path:
                value = value[step]
            found.append(float(value))
    return max(found)


def _by_peak(report: dict[str, Any]) -> str:
    """Shares of the budget."""
    rows = []
    for kind, dtype, peak in product(INPUTS, DTYPES, PEAKS):
        wanted = {"inputs": kind, "dtype": dtype, "peak": peak}
        cells = [f"{_cell(report, 'median_of_largest_p', **wanted):.2f}"] + [
            f"{_cell(report, 'ways', way, name, 'share', **wanted):.3f}"
            for name, way in product(GRADIENTS, ("rounded", "float32"))
        ]
        rows.append([kind, dtype, str(peak), *cells])
    heading = ["inputs", "dtype", "queries times", "largest P, median row", "dq: rounded out"]
    return _markdown([*heading, "float32 out", "dk: rounded out", "float32 out"], rows)


def _by_step(report: dict[str, Any]) -> str:
    """Errors of dq in bfloat16: whole, of the median row, by one rounding alone."""
    paths = (
        *(("ways", way, "dq", "error") for way in ("rounded", "float32", "keys")),
        ("naive", "dq"),
        *(("ways", way, "dq", "median_row") for way in ("rounded", "float32")),
        *(("steps", step, "dq", "error") for step in STEPS),
    )
    rows = []
    for kind, peak in product(INPUTS, PEAKS):
        wanted = {"inputs": kind, "dtype": "bfloat16", "peak": peak}
        cells = [f"{_cell(report, *path, **wanted):.1e}" for path in paths]
        rows.append([kind, str(peak), *cells])
    heading = ["inputs", "queries times", "rounded out", "float32 out", "exact delta", "naive run"]
    heading += ["median row: rounded out", "float32 out"]
    return _markdown([*heading, *(f"only {name}" for name in STEPS.values())], rows)


def _by_way(report: dict[str, Any]) -> str:
    """The worst of all cases for every way, and what it costs."""
    rows = []
    for way, (name, cost) in WAYS.items():
        shares = [
            f"{max(_cell(report, 'ways', way, x, field) for x in GRADIENTS):.3f}"
            for field in ("share", "share_without_naive")
        ]
        errors = [
            f"{_cell(report, 'ways', way, 'dq', 'error', inputs=x, dtype='bfloat16'):.1e}"
            for x in INPUTS
        ]
        rows.append([name, *shares, *errors, cost])
    heading = ["delta from", "largest share", "without the naive run's error"]
    heading += [f"error of dq, bfloat16, {x}" for x in INPUTS]
    return _markdown([*heading, "cost"], rows)


def parts(report: dict[str, Any]) -> dict[str, str]:
    """What stands between the markers, by name."""
    return {
        "delta-by-peak": _by_peak(report),
        "delta-by-step": _by_step(report),
        "delta-by-way": _by_way(report),
    }


def render(page: str, report: dict[str, Any]) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: a marker is missing.
    """
    return markers.fill(page, parts(report))


def load() -> dict[str, Any]:
    """The committed result."""
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Compute, write and print."""
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    report = {
        "case": {"n": N, "heads": HEADS, "branches": PATTERN.branches},
        "environment": versions | {"python": platform.python_version()},
        "rows": [
            row(kind, dtype, head_dim, peak)
            for kind in INPUTS
            for dtype in DTYPES
            for head_dim in HEAD_DIMS
            for peak in PEAKS
        ],
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")
    print("\n\n".join(parts(report).values()))


if __name__ == "__main__":
    main()
