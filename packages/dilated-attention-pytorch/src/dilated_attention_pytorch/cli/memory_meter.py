"""The bytes of tensor storage alive at once, counted and not estimated.

Works on the CPU, where PyTorch keeps no statistics of its allocator.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..ring import ops


class MemoryMeter(TorchDispatchMode):
    """Counts the live storage bytes of every tensor that operators return while it is active.

    A storage counts from the operator that first returns a tensor over it until it is freed,
    whoever holds it: the caller, autograd's saved tensors, a receive buffer, a gradient. Views
    add nothing. Tensors made before the meter was entered count once given to `track`. Memory
    that a library allocates inside one operator and frees before it returns is not seen.

    Attributes:
        live: Bytes alive now.
        peak: Most bytes alive at once since the start or the last `reset_peak`.

    Example:
        >>> with MemoryMeter() as meter:
        ...     x = torch.zeros(256)
        ...     y = x + 1.0
        ...     del y
        >>> meter.peak, meter.live
        (2048, 1024)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}
        self._depth = 0

    def __enter__(self) -> MemoryMeter:
        if self._depth == 0:
            ops.observers.append(self)
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth == 0:
            ops.observers.remove(self)

    def track(self, *tensors: Tensor) -> None:
        """Count tensors that exist already."""
        for tensor in tensors:
            self._count(tensor.untyped_storage())

    def reset_peak(self) -> None:
        """Start a new peak at what is alive now."""
        self.peak = self.live

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        known = self._sizes.get(key)
        if known is None:
            weakref.finalize(storage, self._free, key).atexit = False
        self._sizes[key] = size
        self.live += size - (known or 0)
        self.peak = max(self.peak, self.live)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result
