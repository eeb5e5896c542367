"""A PyTorch function with the public signature, as an implementation the kit can test.

The function is called as ``function(query, key, value, pattern, return_lse=True, **options)`` with
the option names of `dilated_attention_oracle.forward`, and returns ``(out, lse)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.adapters.naive import naive as naive
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import lse_dtype
from dilated_attention_oracle.results import Result

if TYPE_CHECKING:
    import torch

RING_OPTIONS = frozenset({"layout", "order", "shard_lengths"})


def pattern_factory(pattern_type: Any, branch_type: Any) -> Callable[[Pattern], Any]:
    """How to build another package's pattern from the oracle's.

    Args:
        pattern_type: A class with the constructors ``longnet``, ``torchscale``, ``head_groups``
            and ``from_branches``, such as ``DilationPattern``.
        branch_type: What ``from_branches`` takes a list of, called as ``branch_type(w, r)``.

    Returns:
        A function of the oracle's pattern.
    """

    def build(pattern: Pattern) -> Any:
        lengths, rates = zip(*pattern.branches, strict=True)
        if pattern.rule == "table":
            branches = [branch_type(w, r) for w, r in pattern.branches]
            return pattern_type.from_branches(branches, offsets=pattern.table)
        if pattern.rule == "torchscale":
            return pattern_type.torchscale(
                lengths,
                rates,
                phantom_keys=pattern.phantom_keys,
                detach_mix=pattern.detach_mix,
                shift_rows=pattern.shift_rows,
            )
        return getattr(pattern_type, pattern.rule)(lengths, rates)

    return build


class TorchImplementation:
    """An `Implementation` made of a PyTorch function, and perhaps a second one for rings.

    Options that keep their default are not passed, so that a function without them can be tested;
    what is passed to a function that lacks it raises TypeError, as the kit asks.

    Args:
        function: ``function(query, key, value, pattern, *, return_lse, ...)``.
        make_pattern: Builds the function's pattern from the oracle's, see `pattern_factory`.
        supports: The capabilities, see `Implementation`.
        ring_function: Called instead for a ring, with ``ring_size``, and with ``layout``,
            ``order`` and ``shard_lengths`` where given. It simulates the ring in this process.
        rows_received: Called after each call; what it returns is the result's ``rows_received``.
        device: Where the tensors live.
        **fixed: Further keywords of every call, such as ``backend="eager"``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        make_pattern: Callable[[Pattern], Any],
        *,
        supports: frozenset[str],
        ring_function: Callable[..., Any] | None = None,
        rows_received: Callable[[], npt.NDArray[Any]] | None = None,
        device: str = "cpu",
        **fixed: Any,
    ) -> None:
        """Keep the functions."""
        self.function = function
        self.make_pattern = make_pattern
        self.supports = supports
        self.ring_function = ring_function
        self.rows_received = rows_received
        self.device = device
        self.fixed = fixed

    def __call__(
        self,
        query: npt.ArrayLike,
        key: npt.ArrayLike,
        value: npt.ArrayLike,
        pattern: Pattern,
        *,
        dtype: str = "float64",
        dout: npt.ArrayLike | None = None,
        dlse: npt.ArrayLike | None = None,
        ring_size: int = 1,
        **options: Any,
    ) -> Result:
        """Run the function, and autograd through it if dout is given; see `Implementation`.

        Args:
            query: ``(b, n, H, d)``.
            key: ``(b, n, H_kv, d)``.
            value: ``(b, n, H_kv, d)``.
            pattern: The dilation pattern.
            dtype: Name of the dtype.
            dout: ``(b, n, H, d)`` or None.
            dlse: ``(b, n, H)`` or None.
            ring_size: Number of ranks.
            **options: The other options of `Implementation`.

        Returns:
            The result, as float64 arrays.

        Raises:
            ValueError: What the function raises, and for a dtype, ring or gradient that is not
                supported.
            TypeError: What the function raises.
        """
        self._refuse(dtype, ring_size, dout, dlse)
        tensors = [self._tensor(x, dtype) for x in (query, key, value)]
        wants_gradient = dout is not None
        for tensor in tensors:
            tensor.requires_grad_(wants_gradient)
        keywords = {name: x for name, x in options.items() if not _is_default(name, x)}
        for name in ("key_mask", "cu_seqlens"):
            if name in keywords:
                keywords[name] = self._tensor(keywords[name])
        function = self.function
        on_ring = ring_size != 1 or not RING_OPTIONS.isdisjoint(keywords)
        if on_ring and self.ring_function is not None:
            function, keywords["ring_size"] = self.ring_function, ring_size
        out, lse = function(
            *tensors, self.make_pattern(pattern), return_lse=True, **keywords, **self.fixed
        )
        received = None if self.rows_received is None else self.rows_received()
        if dout is None:
            absent = np.empty(0)
            return Result(_array(out), _array(lse), absent, absent, absent, received)
        dq, dk, dv = self._gradients((out, lse), tensors, (dout, dlse), dtype)
        return Result(_array(out), _array(lse), dq, dk, dv, received)

    def _refuse(
        self,
        dtype: str,
        ring_size: int,
        dout: npt.ArrayLike | None,
        dlse: npt.ArrayLike | None,
    ) -> None:
        needed = {
            dtype: True,
            "ring": ring_size > 1,
            "gradients": dout is not None,
            "lse_gradient": dlse is not None,
        }
        missing = [name for name, is_needed in needed.items() if is_needed]
        missing = [name for name in missing if name not in self.supports]
        if missing:
            raise ValueError(f"not supported by this implementation: {', '.join(missing)}")

    def _tensor(self, array: npt.ArrayLike, dtype: str | None = None) -> torch.Tensor:
        import torch

        kind = None if dtype is None else getattr(torch, dtype)
        return torch.tensor(np.asarray(array), dtype=kind, device=self.device)

    def _gradients(
        self,
        results: tuple[torch.Tensor, torch.Tensor],
        tensors: list[torch.Tensor],
        directions: tuple[npt.ArrayLike, npt.ArrayLike | None],
        dtype: str,
    ) -> list[npt.NDArray[Any]]:
        import torch

        (out, lse), (dout, dlse) = results, directions
        # A detached lse (torchscale's) has no gradient to ask for.
        pairs = [(out, self._tensor(dout, dtype))]
        if dlse is not None and lse.requires_grad:
            pairs.append((lse, self._tensor(dlse, lse_dtype(dtype))))
        targets, gradients = zip(*pairs, strict=True)
        found = torch.autograd.grad(targets, tensors, gradients)
        return [_array(gradient) for gradient in found]


def _is_default(name: str, value: Any) -> bool:
    defaults = {"layout": "sharded", "order": "contiguous", "dropout_p": 0.0}
    if value is None or value is False:
        return True
    return name in defaults and isinstance(value, str | float) and value == defaults[name]


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    import torch

    found: npt.NDArray[Any] = tensor.detach().to("cpu", torch.float64).numpy()
    return found
