"""One kernel with its numbers fixed, launched with descriptors that are encoded once an address.

Triton 3.6 encodes every tensor descriptor anew in each launch, in Python, and a kernel here takes
ten and more. But for the address nothing in them changes from call to call, and the allocator
gives the same addresses again and again. So the expanded arguments are kept by address, and
Triton's C function is called with them, below the part of its launcher that expands them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.backends.nvidia.driver import make_tensordesc_arg
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.runtime import driver

from ...errors import BackendError
from ...schedule.streams import View
from . import MOST_VIEWS, failures

# Sets of addresses whose arguments a launcher keeps, some 5 KB each: one for each layer of a model.
MOST_ADDRESSES: Final = 128

Grid = tuple[int, int, int]
# Number of the tensor that a view reads, of those of its side, and the view.
Source = tuple[int, View]


@dataclass(frozen=True, slots=True)
class _Address:
    """An address in the place of a tensor, which is all that Triton's encoder asks it for."""

    address: int

    def data_ptr(self) -> int:
        """The address."""
        return self.address


def _descriptor(tensor: Tensor, view: View, block: int, columns: int) -> TensorDescriptor:
    """(b, heads, residues, rows, d) in blocks of `block` rows; it does not keep the tensor."""
    b, _, heads, d = tensor.shape
    batch, row, head, _ = tensor.stride()
    shape = [1, 1, 1, block, columns]
    dtype = gl.bfloat16 if tensor.dtype == torch.bfloat16 else gl.float16
    made = TensorDescriptor(
        tensor,
        [b, heads, view.residues, view.rows, d],
        [batch, head, row, view.rate * row, 1],
        shape,
        gl.NVMMASharedLayout.get_default_for(shape, dtype),
    )
    made.base = None
    return made


class _Views:
    """The descriptors of a kernel, which get their addresses from what they are placed at."""

    def __init__(
        self,
        sources: Sequence[tuple[Source, ...]],
        streamed: Sequence[tuple[Tensor, ...]],
        block: int,
        columns: int,
    ) -> None:
        self._sides = tuple(
            tuple((i, _descriptor(tensors[i], view, block, columns)) for i, view in side)
            for side, tensors in zip(sources, streamed, strict=True)
        )

    def at(self, bases: Sequence[tuple[Any, ...]]) -> Iterator[TensorDescriptor | None]:
        """The kernel's arguments, with None for views that it has no use for."""
        for side, some in zip(self._sides, bases, strict=True):
            for i, descriptor in side:
                placed: TensorDescriptor = object.__new__(TensorDescriptor)
                placed.__dict__.update(descriptor.__dict__, base=some[i])
                yield placed
            yield from (None,) * (MOST_VIEWS - len(side))


def _expanded(
    views: _Views,
    boxes: list[Any],
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    addresses: tuple[tuple[int, ...], ...],
) -> tuple[Any, ...]:
    """Arguments from the table on as the C function takes them, with encoded descriptors."""
    found: list[Any] = [*before]
    box = iter(boxes)
    for view in views.at([tuple(_Address(x) for x in side) for side in addresses]):
        found += [None] if view is None else make_tensordesc_arg(view, next(box))
    assert next(box, None) is None
    return (*found, *after)


def _watched() -> bool:
    """Whether somebody wants to hear of launches, a profiler for one."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def _refused(reason: str) -> BackendError:
    """The error to raise; from now on `explain()` says the reason, and `auto` takes another."""
    failures.append(reason)
    return BackendError(f"backend 'gluon': {reason}; backend='triton' serves this call")


@dataclass(frozen=True, eq=False, slots=True)
class _Compiled:
    """A compiled kernel on its device.

    Args:
        kernel: as Triton returns it.
        launch: Triton's C function; None where a launch needs memory of its own, as a kernel
            has that a profiler instruments.
        handles: what the C function takes between the stream and the kernel's arguments.
        expanded: addresses to arguments.
        stream: number of a device to its current stream.
    """

    kernel: Any
    launch: Callable[..., None] | None
    handles: tuple[Any, ...]
    expanded: Callable[[tuple[tuple[int, ...], ...]], tuple[Any, ...]]
    stream: Callable[[int], int]

    @classmethod
    def of(
        cls, kernel: Any, views: _Views, before: tuple[Any, ...], after: tuple[Any, ...]
    ) -> _Compiled:
        """What lies below Triton's launcher, once it has launched the kernel.

        Raises:
            BackendError: this version of Triton keeps it elsewhere.
        """
        try:
            run, about = kernel.run, kernel.metadata
            launch = inspect.getclosurevars(run.launch).nonlocals["launcher"]
            if run.global_scratch_size or run.profile_scratch_size:
                launch = None
            flags = (run.launch_cooperative_grid, run.launch_pdl)
            nothing = (None, None)
            handles = (kernel.function, *flags, *nothing, kernel.packed_metadata, None, *nothing)
            encode = partial(_expanded, views, about.tensordesc_meta, before, after)
            stream = driver.active.get_current_stream
        except (AttributeError, KeyError, TypeError) as error:
            raise _refused(f"triton {triton.__version__} has another launcher: {error}") from error
        return cls(kernel, launch, handles, lru_cache(MOST_ADDRESSES)(encode), stream)


class Launcher:
    """Launches a kernel on tensors whose shapes, dtypes and strides are those of the first call.

    Args:
        kernel: of this folder; its arguments are tensors, table, numbers, `MOST_VIEWS` views of
            either side, compile-time constants.
        grid: programs along each axis.
        table: tiles, on the device.
        numbers: between the table and the views.
        views: of each side what its streams are read through.
        constants: all after the views.
        block: rows that come at a time.
        columns: that a row fills in shared memory.
    """

    def __init__(
        self,
        kernel: Any,
        grid: Grid,
        table: Tensor,
        numbers: tuple[int | float, ...],
        views: Sequence[tuple[Source, ...]],
        constants: tuple[int | bool, ...],
        *,
        block: int,
        columns: int,
    ) -> None:
        self._kernel, self._grid = kernel, grid
        self._table, self._numbers, self._constants = table, numbers, constants
        self._sources, self._block, self._columns = views, block, columns
        self._views: _Views | None = None
        self._compiled: _Compiled | None = None

    def __call__(self, streamed: Sequence[tuple[Tensor, ...]], *tensors: Tensor) -> None:
        """Launch on the current device and stream.

        Args:
            streamed: of each side the tensors that its views read.
            tensors: the kernel's first arguments; 16 divides their addresses.

        Raises:
            BackendError: the kernel does not compile here, or Triton does not launch as expected.
        """
        compiled = self._compiled
        if compiled is None:
            if self._grid[0]:
                self._compiled = self._compile(streamed, tensors)
            return
        if compiled.launch is None or _watched():
            compiled.kernel[self._grid](*self._arguments(streamed, tensors))
            return
        addresses = tuple([tuple([x.data_ptr() for x in side]) for side in streamed])
        compiled.launch(
            *self._grid,
            compiled.stream(tensors[0].get_device()),
            *compiled.handles,
            *[x.data_ptr() for x in tensors],
            *compiled.expanded(addresses),
        )

    def _arguments(
        self, streamed: Sequence[tuple[Tensor, ...]], tensors: tuple[Tensor, ...]
    ) -> tuple[Any, ...]:
        """What the kernel takes, in Triton's terms."""
        if self._views is None:
            self._views = _Views(self._sources, streamed, self._block, self._columns)
        views = self._views.at(streamed)
        return (*tensors, self._table, *self._numbers, *views, *self._constants)

    def _compile(
        self, streamed: Sequence[tuple[Tensor, ...]], tensors: tuple[Tensor, ...]
    ) -> _Compiled:
        """Compile and launch."""
        arguments = self._arguments(streamed, tensors)
        try:
            kernel = self._kernel[self._grid](*arguments, num_warps=4)
        except triton.CompilationError as error:
            raise _refused(f"its kernels did not compile here: {error}") from error
        assert self._views is not None
        before = (self._table.data_ptr(), *self._numbers)
        return _Compiled.of(kernel, self._views, before, self._constants)
