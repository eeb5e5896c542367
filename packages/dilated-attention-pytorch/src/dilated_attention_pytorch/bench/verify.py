"""Correctness of the shapes that are timed: sampled rows against the definition in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .cases import Case
from .definition import key_row, query_rows
from .inputs import Inputs

FloatArray = npt.NDArray[np.float64]
_ROWS_PER_BRANCH = 3


class WrongResultError(AssertionError):
    """A result is outside its tolerance."""


class Report(Protocol):
    """An array's errors beside their bounds."""

    @property
    def share(self) -> float:
        """The error as a share of its bound."""
        ...


class Judge(Protocol):
    """The tolerance of semantics 8; the module `dilated_attention_oracle.tolerance` is one.

    The library does not import the oracle: whoever runs a benchmark hands the judge in.
    """

    def check(self, name: str, actual: Any, reference: Any, naive: Any, dtype: str) -> Report:
        """Judge out, dq, dk or dv; AssertionError where a bound is exceeded."""
        ...

    def check_lse(self, actual: Any, reference: Any, naive: Any, dtype: str) -> Report:
        """Judge lse."""
        ...


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows of a case by definition.

    Args:
        places: (position, head) of each row.
        exact: by name of the array (out, lse, dq, dk, dv), the rows in float64.
        naive: the same from a plain one-pass run in the case's dtype, lse in float32 at least.
    """

    places: tuple[tuple[int, int], ...]
    exact: dict[str, FloatArray]
    naive: dict[str, FloatArray]


def sample_places(case: Case) -> tuple[tuple[int, int], ...]:
    """(position, head) pairs: the first and last row, and some that each branch selects."""
    random = np.random.default_rng(0)
    found = [(p, int(random.integers(case.heads))) for p in (0, case.n - 1)]
    for branch, row in zip(case.pattern.branches, case.pattern.offsets(case.heads), strict=True):
        heads = [h for h, offset in enumerate(row) if offset is not None]
        w, r = branch.segment_length, branch.dilation_rate
        for _ in range(_ROWS_PER_BRANCH):
            head = int(random.choice(heads))
            offset = row[head]
            assert offset is not None
            position = int(random.integers(case.n))
            start = position // w * w
            selected = range(start + offset, min(start + w, case.n), r)
            if selected:
                found.append((selected[int(random.integers(len(selected)))], head))
    return tuple(found)


def sample(case: Case, inputs: Inputs) -> Samples:
    """Compute the rows; gradients where the case times its backward."""
    places = sample_places(case)
    runs = []
    for dtype in (torch.float64, case.dtype):
        rows: dict[str, list[Tensor]] = {name: [] for name in ("out", "lse", "dq", "dk", "dv")}
        for position, head in places:
            found = query_rows(case, inputs, head, np.array([position], dtype=np.int64), dtype)
            rows["out"].append(found.out[0])
            if dtype == torch.float64:
                rows["lse"].append(found.lse[0])
            else:
                # The contract judges lse against a naive run in lse's own precision.
                at = np.array([position], dtype=np.int64)
                rows["lse"].append(query_rows(case, inputs, head, at, _wide(dtype)).lse[0])
            if case.backward:
                dk, dv = key_row(case, inputs, head, position, dtype)
                for name, value in (("dq", found.dquery[0]), ("dk", dk), ("dv", dv)):
                    rows[name].append(value)
        runs.append({name: _stack(values) for name, values in rows.items() if values})
    return Samples(places, *runs)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _stack(rows: list[Tensor]) -> FloatArray:
    stacked: FloatArray = torch.stack(rows).double().cpu().numpy()
    return stacked


def verify(
    case: Case, samples: Samples, values: Mapping[str, Tensor], judge: Judge
) -> dict[str, float]:
    """Largest share of the tolerance that the sampled rows of each array use.

    Args:
        case: what was computed.
        samples: its rows by definition.
        values: arrays by name: out, dq, dk, dv (1, n, H, d), lse (1, n, H); some may be absent.
        judge: the tolerance.

    Raises:
        WrongResultError: an array is outside its bound, or holds a non-finite number anywhere.
    """
    positions, heads = (list(x) for x in zip(*samples.places, strict=True))
    shares = {}
    for name, tensor in values.items():
        # Rows that were not sampled must at least be finite: a sum of finite float32 is.
        if name != "lse" and not bool(tensor.sum(dtype=torch.float32).isfinite()):
            raise WrongResultError(f"{case.name} {name}: not every entry is finite")
        rows = tensor[0, positions, heads].double().cpu().numpy()
        exact, naive = samples.exact[name], samples.naive[name]
        try:
            if name == "lse":
                report = judge.check_lse(rows, exact, naive, case.dtype_name)
            else:
                report = judge.check(f"{case.name} {name}", rows, exact, naive, case.dtype_name)
        except AssertionError as error:
            raise WrongResultError(str(error)) from None
        shares[name] = round(report.share, 4)
    return shares
