"""One kernel with its numbers fixed, launched without Triton's binding of arguments.

Triton compiles a kernel for the types of its arguments and for which of them 16 divides, and finds
that out anew in every call, for some forty arguments. The numbers of a problem do not change from
call to call; only tensors do, and of these only whether 16 divides their addresses matters.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

Grid = tuple[int, int, int]


def rows_last(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where its head dimension is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def dropout_numbers(dropout_p: float) -> tuple[int, float]:
    """The least Philox word that is kept, and the factor of what is kept."""
    return math.floor(dropout_p * 2**32), 0.0 if dropout_p == 1 else 1 / (1 - dropout_p)


class Launcher:
    """Launches a kernel on tensors whose dtypes and strides are those of earlier calls.

    Args:
        kernel: a Triton kernel whose first arguments are pointers.
        grid: programs along each axis.
        fixed: pointers that follow those of a call, the same in every call.
        numbers: all arguments after the pointers, compile-time constants included.
        warps: per program.
        stages: of the loops' software pipeline.
    """

    def __init__(
        self,
        kernel: Any,
        grid: Grid,
        fixed: tuple[Tensor, ...],
        numbers: tuple[int | float | bool | str, ...],
        *,
        warps: int,
        stages: int,
    ) -> None:
        self._kernel = kernel
        self._grid = grid
        self._fixed = fixed
        self._numbers = numbers
        self._rest = (*[tensor.data_ptr() for tensor in fixed], *numbers)
        self._options = {"num_warps": warps, "num_stages": stages}
        self._compiled: dict[tuple[bool, ...], Any] = {}

    def __call__(self, *tensors: Tensor) -> None:
        """Launch on the current device and stream."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        aligned = tuple([address % 16 == 0 for address in addresses])
        compiled = self._compiled.get(aligned)
        if compiled is not None:
            compiled[self._grid](*addresses, *self._rest)
            return
        # Under Triton's interpreter nothing is compiled and every call comes here.
        launch = self._kernel[self._grid]
        compiled = launch(*tensors, *self._fixed, *self._numbers, **self._options)
        self._compiled[aligned] = compiled
