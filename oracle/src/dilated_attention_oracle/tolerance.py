"""The one formula that says how far from the oracle an implementation may be.

For an array computed in dtype T, against the float64 oracle on the same T-rounded inputs::

    max error  <= 2 * naive_max  + c_T * eps_T * max(size)
    mean error <= 2 * naive_mean + c_T * eps_T * mean(size)

where naive_max and naive_mean are the errors of a plain one-pass implementation in T, and c_T is
2 (16-bit), 8 (float32), 64 (float64). So the bound follows from what the dtype can do on these
very inputs (the idea is that of flash-attention's tests), and no number is chosen by hand.

``size`` is ``|ref|``, or, where the sum that an entry is cancels, the sum of the absolute values
of its terms (see `terms`). With ``|ref|`` alone a query with one key, whose dq is an exact
0 = 1 - 1, has a budget of 0 whenever the naive run happens to cancel exactly, and right
implementations fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.inputs import FloatArray
from dilated_attention_oracle.precision import EPS, lse_dtype, require_dtype
from dilated_attention_oracle.results import Result

C = {"float16": 2.0, "bfloat16": 2.0, "float32": 8.0, "float64": 64.0}


@dataclass(frozen=True)
class Report:
    """How much of its budget one array used.

    Attributes:
        name: What was compared.
        dtype: The dtype the budget was derived for.
        error_max: Largest absolute error, NaN if any entry is wrong in kind.
        error_mean: Mean absolute error.
        budget_max: The bound for error_max.
        budget_mean: The bound for error_mean.
    """

    name: str
    dtype: str
    error_max: float
    error_mean: float
    budget_max: float
    budget_mean: float

    @property
    def share_max(self) -> float:
        """Largest error as a share of its bound; above 1 is a failure."""
        return _share(self.error_max, self.budget_max)

    @property
    def share_mean(self) -> float:
        """Mean error as a share of its bound; above 1 is a failure."""
        return _share(self.error_mean, self.budget_mean)

    @property
    def share(self) -> float:
        """The larger of both shares."""
        return float(np.maximum(self.share_max, self.share_mean))

    @property
    def passed(self) -> bool:
        """Whether both errors are within their bounds; NaN never is."""
        return self.share_max <= 1.0 and self.share_mean <= 1.0

    def __str__(self) -> str:
        """One line with errors, bounds and shares."""
        return (
            f"{self.name} ({self.dtype}): max error {self.error_max:.3e} of {self.budget_max:.3e} "
            f"({self.share_max:.2f}), mean error {self.error_mean:.3e} of {self.budget_mean:.3e} "
            f"({self.share_mean:.2f})"
        )


def measure(
    name: str,
    actual: npt.ArrayLike,
    reference: npt.ArrayLike,
    naive: npt.ArrayLike,
    dtype: str,
    terms: npt.ArrayLike | None = None,
) -> Report:
    """Apply the formula to one array, without judging.

    Args:
        name: What is compared; for the report.
        actual: The array under test.
        reference: The float64 oracle's array on the same T-rounded inputs.
        naive: The array of the naive implementation in T on the same inputs.
        dtype: Name of T.
        terms: The sizes of the reference's terms, in its shape; ``|ref|`` if None.

    Returns:
        The report; an error is NaN or infinite where an entry of actual is.

    Raises:
        ValueError: If shapes or dtype are wrong, or reference or naive are not finite, so that
            there is no budget.
    """
    require_dtype(dtype)
    got, want, plain = (np.asarray(x, dtype=np.float64) for x in (actual, reference, naive))
    if want.shape != plain.shape:
        raise ValueError(f"{name}: naive has shape {plain.shape}, the reference {want.shape}")
    if got.shape != want.shape:
        raise ValueError(f"{name}: expected shape {want.shape}, got {got.shape}")
    for kind, array in (("reference", want), ("naive", plain)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: the {kind} holds non-finite entries, so there is no budget")
    size = np.abs(want) if terms is None else np.maximum(np.abs(want), np.asarray(terms))
    if size.shape != want.shape or not np.isfinite(size).all():
        raise ValueError(f"{name}: expected finite terms of shape {want.shape}, got {size.shape}")
    error, naive_error, unit = np.abs(got - want), np.abs(plain - want), C[dtype] * EPS[dtype]
    return Report(
        name=name,
        dtype=dtype,
        error_max=_largest(error),
        error_mean=_mean(error),
        budget_max=2.0 * _largest(naive_error) + unit * _largest(size),
        budget_mean=2.0 * _mean(naive_error) + unit * _mean(size),
    )


def check(
    name: str,
    actual: npt.ArrayLike,
    reference: npt.ArrayLike,
    naive: npt.ArrayLike,
    dtype: str,
    terms: npt.ArrayLike | None = None,
) -> Report:
    """Judge out, dq, dk or dv by the formula.

    Args:
        name: As in `measure`.
        actual: As in `measure`.
        reference: As in `measure`.
        naive: As in `measure`.
        dtype: As in `measure`.
        terms: As in `measure`.

    Returns:
        The report.

    Raises:
        AssertionError: If either bound is exceeded, or any entry of actual is not finite.
        ValueError: As `measure`, except that a wrong shape of actual is an AssertionError.
    """
    got, want = np.asarray(actual, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if got.shape != want.shape:
        raise AssertionError(f"{name}: expected shape {want.shape}, got {got.shape}")
    report = measure(name, got, want, naive, dtype, terms)
    if not report.passed:
        error = np.abs(got - want)
        worst = np.unravel_index(
            int(np.argmax(np.where(np.isnan(error), np.inf, error))), got.shape
        )
        raise AssertionError(
            f"{report}; worst at {tuple(int(i) for i in worst)}: "
            f"expected {want[worst]:.9g}, got {got[worst]:.9g}"
        )
    return report


def check_lse(
    actual: npt.ArrayLike,
    reference: npt.ArrayLike,
    naive: npt.ArrayLike,
    dtype: str,
    terms: npt.ArrayLike | None = None,
    name: str = "lse",
) -> Report:
    """Judge lse: its -inf rows must match exactly, then the rest is judged in lse's own dtype.

    Args:
        actual: ``(b, n, H)``.
        reference: The float64 oracle's lse.
        naive: The lse of a naive run in lse's own dtype (float32; float64 for float64 inputs) on
            the T-rounded inputs.
        dtype: Name of T, the dtype of the inputs.
        terms: As in `measure`.
        name: What is compared; for the report.

    Returns:
        The report on the rows that see a key.

    Raises:
        AssertionError: If the -inf rows differ or a bound is exceeded.
        ValueError: As `measure`.
    """
    got, want, plain = (np.asarray(x, dtype=np.float64) for x in (actual, reference, naive))
    if got.shape != want.shape:
        raise AssertionError(f"{name}: expected shape {want.shape}, got {got.shape}")
    empty = np.isneginf(want)
    wrong = np.argwhere(np.isneginf(got) != empty)
    if wrong.size:
        first = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{name}: {len(wrong)} rows are -inf on one side only, the first at {first}: "
            f"expected {want[first]}, got {got[first]}"
        )
    if plain.shape != want.shape or (np.isneginf(plain) != empty).any():
        raise ValueError(f"{name}: the naive run and the reference differ in shape or -inf rows")
    sizes = None if terms is None else np.asarray(terms, dtype=np.float64)[~empty]
    return check(name, got[~empty], want[~empty], plain[~empty], lse_dtype(dtype), sizes)


def check_result(actual: Result, reference: Result, naive: Result, dtype: str) -> dict[str, Report]:
    """Judge out, lse, dq, dk and dv of one call.

    Args:
        actual: What the implementation under test returned.
        reference: The float64 oracle's result on the T-rounded inputs, best with its terms, as
            `adapters.numpy_adapter.reference` gives it.
        naive: The naive result: out and gradients from a run in T, lse from one in `lse_dtype`.
        dtype: Name of T.

    Returns:
        The report of each array, by name.

    Raises:
        AssertionError: If any bound is exceeded.
        ValueError: As `measure`.
    """
    # lse first: a wrong set of keys shows there most clearly, in 16-bit above all.
    terms = reference.terms
    sizes = None if terms is None else terms.lse
    reports = {"lse": check_lse(actual.lse, reference.lse, naive.lse, dtype, sizes)}
    for name in ("out", "dq", "dk", "dv"):
        got, want, plain = (getattr(result, name) for result in (actual, reference, naive))
        sizes = None if terms is None else getattr(terms, name)
        reports[name] = check(name, got, want, plain, dtype, sizes)
    return reports


def _largest(array: FloatArray) -> float:
    return float(array.max(initial=0.0))


def _mean(array: FloatArray) -> float:
    return float(array.mean()) if array.size else 0.0


def _share(error: float, budget: float) -> float:
    if error == 0.0:
        return 0.0
    return error / budget if budget > 0.0 else error * float("inf")
