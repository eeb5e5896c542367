"""What a dilation pattern is: branches, the offset rule, and the torchscale switches."""

from __future__ import annotations

from dataclasses import dataclass

Offsets = tuple[tuple[int | None, ...], ...]

RULES = ("longnet", "torchscale", "head_groups", "table")


@dataclass(frozen=True)
class Pattern:
    """An ordered list of branches ``(w, r)`` and the rule that places each head in them.

    A token at position ``p`` of a document is selected by (branch i, head h) iff
    ``(p mod w_i) mod r_i == o_{i,h}`` and head h takes part in branch i. The rules are:

    - ``longnet``: ``o = h mod r_i`` (LongNet, arXiv 2307.02486, Eq. 8-10);
    - ``torchscale``: ``o = h // ceil(H / r_i)`` (microsoft/torchscale);
    - ``head_groups``: ``o = i mod r_i``, and only the i-th contiguous group of heads takes part;
    - ``table``: ``table[i][h]``, where ``None`` means that the head takes no part.

    Args:
        branches: Pairs ``(segment_length, dilation_rate)``, both at least 1.
        rule: One of the four rules above.
        table: ``table[branch][head]``, for ``rule="table"`` only.
        phantom_keys: Score the zero keys of torchscale's padding (``rule="torchscale"`` only).
        detach_mix: Give the branch weights no gradient (``rule="torchscale"`` only).
        shift_rows: Cut padded segments back unaligned (needs ``phantom_keys``).

    Raises:
        ValueError: For a wrong value of any argument or a wrong combination of them.
        TypeError: For a segment length, dilation rate or offset that is not an int.
    """

    branches: tuple[tuple[int, int], ...]
    rule: str = "longnet"
    table: Offsets | None = None
    phantom_keys: bool = False
    detach_mix: bool = False
    shift_rows: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not a pattern."""
        if not self.branches:
            raise ValueError("branches: expected at least one (w, r) pair, got none")
        for w, r in self.branches:
            _require_int("segment length", w)
            _require_int("dilation rate", r)
            if w < 1 or r < 1:
                raise ValueError(f"branches: expected w >= 1 and r >= 1, got ({w}, {r})")
        if self.rule not in RULES:
            raise ValueError(f"rule: expected one of {RULES}, got {self.rule!r}")
        if (self.table is not None) != (self.rule == "table"):
            raise ValueError("table: give it with rule='table', and only then")
        if self.table is not None:
            _check_table(self.table, self.branches)
        if not self.is_exact and self.rule != "torchscale":
            raise ValueError(
                "phantom_keys, detach_mix, shift_rows: only rule='torchscale' has these switches, "
                f"got rule={self.rule!r}"
            )
        if self.shift_rows and not self.phantom_keys:
            raise ValueError("shift_rows: needs phantom_keys=True, since it moves padded rows")

    @property
    def is_exact(self) -> bool:
        """Whether this is the plain operator, with no torchscale switch on."""
        return not (self.phantom_keys or self.detach_mix or self.shift_rows)

    def offsets(self, num_heads: int) -> Offsets:
        """The offset of each head in each branch, ``None`` where it takes no part.

        Args:
            num_heads: Number of query heads H.

        Returns:
            ``offsets[branch][head]``, each ``0 <= o < r`` or ``None``.

        Raises:
            ValueError: If H does not fit the rule.
        """
        _require_int("num_heads", num_heads)
        if num_heads < 1:
            raise ValueError(f"num_heads: expected at least 1, got {num_heads}")
        heads = range(num_heads)
        if self.rule == "longnet":
            return tuple(tuple(h % r for h in heads) for _, r in self.branches)
        if self.rule == "torchscale":
            return tuple(tuple(h // -(-num_heads // r) for h in heads) for _, r in self.branches)
        if self.rule == "head_groups":
            return self._head_group_offsets(num_heads)
        assert self.table is not None
        if len(self.table[0]) != num_heads:
            raise ValueError(f"table: has {len(self.table[0])} heads, the query has {num_heads}")
        return self.table

    def _head_group_offsets(self, num_heads: int) -> Offsets:
        groups = len(self.branches)
        if num_heads < groups:
            raise ValueError(
                f"head_groups: expected at least one head per branch, got {num_heads} heads for "
                f"{groups} branches"
            )
        small, larger = divmod(num_heads, groups)
        group_of_head = [i for i in range(groups) for _ in range(small + (i < larger))]
        return tuple(
            tuple(i % r if group == i else None for group in group_of_head)
            for i, (_, r) in enumerate(self.branches)
        )


def _require_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {value!r} ({type(value).__name__})")


def _check_table(table: Offsets, branches: tuple[tuple[int, int], ...]) -> None:
    if len(table) != len(branches):
        raise ValueError(f"table: expected {len(branches)} rows, one per branch, got {len(table)}")
    if len({len(row) for row in table}) != 1 or not table[0]:
        raise ValueError("table: expected rows of one length, the number of heads, at least 1")
    for row, (_, r) in zip(table, branches, strict=True):
        for offset in row:
            if offset is None:
                continue
            _require_int("table offset", offset)
            if not 0 <= offset < r:
                raise ValueError(f"table: expected offsets in [0, {r}) or None, got {offset}")
