"""What is computed, apart from who computes it: the hashable key of every plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..pattern import DilationPattern
from ..typing import IntArray, OffsetTable


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything that decides which (query, key, branch, head) pairs exist.

    Args:
        pattern: branches and offset rule.
        n: global sequence length.
        num_heads: query heads H.
        num_kv_heads: key/value heads, a divisor of H.
        is_causal: a query sees keys at its own and earlier positions only.
        cu_seqlens: document starts, then n; None for one document.
    """

    pattern: DilationPattern
    n: int
    num_heads: int
    num_kv_heads: int
    is_causal: bool = False
    cu_seqlens: tuple[int, ...] | None = None

    @property
    def offsets(self) -> OffsetTable:
        """`[branch][head]` offsets."""
        return self.pattern.offsets(self.num_heads)

    @property
    def num_branches(self) -> int:
        """Number of branches."""
        return len(self.pattern.branches)

    def segment_length(self, branch: int) -> int:
        """w, clipped to n: the two select the same tokens, and torchscale's padding needs it."""
        return max(1, min(self.pattern.branches[branch].segment_length, self.n))

    def shifted(self, branch: int) -> bool:
        """Whether torchscale's row shift moves this branch's queries (semantics of the switch)."""
        w, r = self.segment_length(branch), self.pattern.branches[branch].dilation_rate
        return self.pattern.shift_rows and w % r != 0 and self.n > w

    def padded_segment(self, branch: int) -> int:
        """Segment length padded to a multiple of r, the unit of torchscale's row shift."""
        w, r = self.segment_length(branch), self.pattern.branches[branch].dilation_rate
        return -(-w // r) * r

    def key_coordinates(self, branch: int, positions: IntArray) -> tuple[IntArray, IntArray]:
        """(segment, u): the global start of each position's segment and its place in it.

        A position is selected for offset o iff `u mod r == o`; the rows of one (segment, offset)
        are numbered `x = u // r`. Two positions share a segment (and a document) iff their
        segment starts are equal.
        """
        w = self.segment_length(branch)
        if self.cu_seqlens is None:
            place = positions % w
            return positions - place, place
        bounds = np.asarray(self.cu_seqlens, dtype=np.int64)
        start = bounds[np.searchsorted(bounds, positions, side="right") - 1]
        place = (positions - start) % w
        return positions - place, place

    def query_coordinates(self, branch: int, positions: IntArray) -> tuple[IntArray, IntArray]:
        """Like `key_coordinates`, for the query whose output stands at each position.

        They differ only where torchscale's rows are shifted: with W the padded segment, the
        output at t is that of segment `t // W` and place `t mod W`.
        """
        if not self.shifted(branch):
            return self.key_coordinates(branch, positions)
        padded = self.padded_segment(branch)
        return positions // padded * self.segment_length(branch), positions % padded

    def phantom_rows(self, branch: int, offset: int, segment: IntArray, x: IntArray) -> IntArray:
        """How many of torchscale's unmasked zero keys each query row sees.

        The padded segment has `ceil(w / r)` rows for every offset, of which c are real; the rest
        are phantoms and come last. A causal query of row x sees those with number <= x.
        """
        w, r = self.segment_length(branch), self.pattern.branches[branch].dilation_rate
        rows = -(-w // r)
        real_length = np.minimum(w, self.n - segment)
        real = np.maximum(0, -((offset - real_length) // r))
        seen = np.minimum(x + 1, rows) if self.is_causal else np.full_like(x, rows)
        phantoms: IntArray = np.maximum(0, seen - real)
        return phantoms
