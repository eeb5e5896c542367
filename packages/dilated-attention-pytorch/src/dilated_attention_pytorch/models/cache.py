"""Keys and values of the rows so far, kept for generation token by token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..functional import dilated_attention
from ..functional.call import autocast
from ..functional.decoding import decode_attention
from ..pattern import DilationPattern


class CachedAttention:
    """Causal attention of one layer that remembers the keys and values it was given.

    The first call attends over its rows as `dilated_attention`; later ones append their rows and
    read, for each, only the rows that it sees. Rows are kept detached: no gradient flows back
    into earlier calls.
    """

    def __init__(self) -> None:
        self.length = 0
        self._key = torch.empty(0)
        self._value = torch.empty(0)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pattern: DilationPattern,
        *,
        is_causal: bool,
        dropout_p: float = 0.0,
    ) -> Tensor:
        """Attention of the new rows (b, m, h, d) over all rows so far.

        Raises:
            ValueError: Not causal, with dropout, or shapes that do not continue the earlier rows.
        """
        if not is_causal or dropout_p:
            raise ValueError(
                "a cache serves causal attention without dropout: pass is_causal=True and put the "
                f"model into eval(), got is_causal={is_causal} and dropout {dropout_p}"
            )
        # Kept as autocast would make them, not cast anew for each token.
        query, key, value = autocast(query, key, value)
        past = self.length
        self._append(key.detach(), value.detach())
        if past == 0:
            return dilated_attention(query, key, value, pattern, is_causal=True)
        rows = slice(0, self.length)
        return decode_attention(query, self._key[:, rows], self._value[:, rows], pattern)

    def _append(self, key: Tensor, value: Tensor) -> None:
        end = self.length + key.shape[1]
        if self.length == 0:
            self._key, self._value = key, value
        elif (key.shape[0], *key.shape[2:]) != (self._key.shape[0], *self._key.shape[2:]):
            raise ValueError(
                f"the cache holds keys of shape {tuple(self._key.shape)}, which rows of shape "
                f"{tuple(key.shape)} do not continue; begin with an empty cache"
            )
        else:
            if end > self._key.shape[1]:
                # Twice the rows each time: n rows cost O(n) copies and not O(n^2).
                self._key = _grown(self._key, self.length, max(end, 2 * self.length))
                self._value = _grown(self._value, self.length, max(end, 2 * self.length))
            self._key[:, self.length : end] = key
            self._value[:, self.length : end] = value
        self.length = end


class KeyValueCache:
    """What generation keeps between calls of a model: one `CachedAttention` for each attention.

    Args:
        num_attentions: Number of attentions that the model runs, in the order of its layers.
    """

    def __init__(self, num_attentions: int) -> None:
        self.attentions = [CachedAttention() for _ in range(num_attentions)]

    @property
    def length(self) -> int:
        """Number of rows so far."""
        return self.attentions[0].length

    def functions(self, num_attentions: int, **ring: Any) -> list[CachedAttention]:
        """The attentions of a model with that many; `ring` are its options for a ring.

        Raises:
            ValueError: The cache of another model, or an option for a ring.
        """
        if len(self.attentions) != num_attentions:
            raise ValueError(
                f"the cache is for {len(self.attentions)} attentions and the model has "
                f"{num_attentions}; use the model's empty_cache()"
            )
        for name, value in ring.items():
            if not (value is None or (isinstance(value, str) and value == "contiguous")):
                raise ValueError(
                    f"a cache holds all rows on one device, in their order: pass no {name}"
                )
        return self.attentions


def _grown(rows: Tensor, length: int, capacity: int) -> Tensor:
    """The first `length` rows in a tensor that has room for `capacity`."""
    larger = rows.new_empty((rows.shape[0], capacity, *rows.shape[2:]))
    larger[:, :length] = rows[:, :length]
    return larger
