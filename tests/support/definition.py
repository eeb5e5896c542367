"""The pattern by definition, with loops: who sees whom, and what has to travel.

Written apart from both the package and the oracle, whose vectorised code it is there to judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dilated_attention_oracle import Pattern

# (branch, query head, query position, key position)
Pair = tuple[int, int, int, int]


def require_same_pairs(found: Counter[Pair], wanted: Counter[Pair]) -> None:
    """AssertionError with an example of what is missing and what is too much."""
    missing, extra = wanted - found, found - wanted
    if missing or extra:
        raise AssertionError(
            f"{missing.total()} of {wanted.total()} pairs (branch, head, query, key) are missing, "
            f"such as {next(iter(missing), None)}; {extra.total()} are too many, such as "
            f"{next(iter(extra), None)}"
        )


@dataclass(frozen=True)
class Question:
    """A pattern on a sequence."""

    pattern: Pattern
    n: int
    heads: int
    kv_heads: int
    is_causal: bool = False
    cu_seqlens: tuple[int, ...] | None = None

    def _document(self, position: int) -> tuple[int, int]:
        """(start, end) of the document that holds a position."""
        bounds = self.cu_seqlens or (0, self.n)
        for start, end in pairwise(bounds):
            if start <= position < end:
                return start, end
        raise AssertionError(f"position {position} is in no document of {bounds}")

    def pairs(self) -> Counter[Pair]:
        """Every pair that the pattern holds, once for each branch that holds it."""
        found: Counter[Pair] = Counter()
        offsets = self.pattern.offsets(self.heads)
        for branch, (w, r) in enumerate(self.pattern.branches):
            for query in range(self.n):
                start, end = self._document(query)
                first = start + (query - start) // w * w
                for key in range(first, min(first + w, end)):
                    if self.is_causal and key > query:
                        continue
                    for head in range(self.heads):
                        offset = offsets[branch][head]
                        if offset is None:
                            continue
                        if (query - first) % r == offset == (key - first) % r:
                            found[branch, head, query, key] += 1
        return found

    def travellers(
        self, owned: Sequence[Sequence[int]], pairs: Counter[Pair]
    ) -> dict[tuple[int, int], set[tuple[int, int]]]:
        """For each (sender, receiver): the (key position, key head) rows that must go there."""
        owner = {position: rank for rank, rows in enumerate(owned) for position in rows}
        group = self.heads // self.kv_heads
        moved: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for _, head, query, key in pairs:
            ends = owner[key], owner[query]
            if ends[0] != ends[1]:
                moved.setdefault(ends, set()).add((key, head // group))
        return moved

    def answered(
        self, owned: Sequence[Sequence[int]], pairs: Counter[Pair]
    ) -> dict[tuple[int, int], set[tuple[int, int]]]:
        """For each (key owner, query owner): the (query position, head) it has a partial for."""
        owner = {position: rank for rank, rows in enumerate(owned) for position in rows}
        moved: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for _, head, query, key in pairs:
            ends = owner[key], owner[query]
            if ends[0] != ends[1]:
                moved.setdefault(ends, set()).add((query, head))
        return moved
