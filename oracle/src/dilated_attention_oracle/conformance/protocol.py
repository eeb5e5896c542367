"""What the kit tests: a callable on NumPy arrays that says what it supports."""

from __future__ import annotations

from typing import Protocol

import numpy.typing as npt

from dilated_attention_oracle.inputs import IntArray
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import DTYPES
from dilated_attention_oracle.results import Result

RULES = ("longnet", "torchscale", "head_groups", "table")
CAPABILITIES = (
    *RULES,
    "torchscale_switches",
    "causal",
    "scale",
    "key_mask",
    "documents",
    "dropout",
    "grouped_query",
    *DTYPES,
    "gradients",
    "lse_gradient",
    "deterministic",
    "ring",
    "shard_lengths",
    "order",
    "replicated",
    "traffic",
)


class Implementation(Protocol):
    """An implementation of dilated attention, forward and backward in one call.

    Everything is NumPy: the implementation converts to and from its own arrays, rounding query,
    key, value and dout to ``dtype`` first (the kit passes arrays that are exact in it). A call
    that needs a capability which is not in ``supports`` has to raise ValueError, TypeError or
    NotImplementedError; it may not be answered by something else.

    Attributes:
        supports: Out of `CAPABILITIES`; at least one rule and one dtype. ``gradients``: accepts
            dout. ``lse_gradient``: accepts dlse. ``deterministic``: two runs agree in every bit,
            as do out and lse of sharded, contiguous rings of every size. ``ring``: more than one
            rank. ``traffic``: reports ``rows_received``. The others are named like the rule,
            option or dtype.
    """

    @property
    def supports(self) -> frozenset[str]:
        """The capabilities."""
        ...

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
        is_causal: bool = False,
        scale: float | None = None,
        key_mask: npt.ArrayLike | None = None,
        cu_seqlens: npt.ArrayLike | None = None,
        dropout_p: float = 0.0,
        seed: int | None = None,
        deterministic: bool = False,
        ring_size: int = 1,
        layout: str = "sharded",
        order: str | IntArray = "contiguous",
        shard_lengths: tuple[int, ...] | None = None,
    ) -> Result:
        """Compute out and lse, and with dout the gradients.

        A ring is simulated: full arrays in global order go in and come out, whatever ``order``.

        Args:
            query: ``(b, n, H, d)``.
            key: ``(b, n, H_kv, d)``.
            value: ``(b, n, H_kv, d)``.
            pattern: The dilation pattern.
            dtype: Name of the dtype to compute in.
            dout: ``(b, n, H, d)``, or None where no gradient is asked for.
            dlse: ``(b, n, H)``, or None for 0.
            is_causal: As in `dilated_attention_oracle.forward`.
            scale: As in `dilated_attention_oracle.forward`.
            key_mask: As in `dilated_attention_oracle.forward`.
            cu_seqlens: As in `dilated_attention_oracle.forward`.
            dropout_p: As in `dilated_attention_oracle.forward`.
            seed: As in `dilated_attention_oracle.forward`.
            deterministic: Ask for the same bits every time.
            ring_size: Number of ranks R.
            layout: ``"sharded"`` or ``"replicated"``.
            order: ``"contiguous"``, ``"zigzag"``, or the ``(n,)`` global positions of the rows,
                rank after rank.
            shard_lengths: Rows per rank; as even as possible if None.

        Returns:
            The result; dq, dk and dv may hold anything where dout is None.

        Raises:
            ValueError: For wrong values or shapes.
            TypeError: For wrong dtypes or kinds.
        """
        ...
