"""Which tokens see which: branches, offset rules and presets (pure numbers, no torch)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .typing import OffsetTable

RULES: Final = ("longnet", "torchscale", "head_groups", "table")


def _as_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    return int(value.__index__())


def as_ints(name: str, values: object) -> tuple[int, ...]:
    """The values as ints.

    Raises:
        TypeError: no sequence, or an entry that is not an int.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of ints, got {values!r}")
    return tuple(_as_int(f"an entry of {name}", value) for value in values)


@dataclass(frozen=True, slots=True)
class Branch:
    """One (segment length w, dilation rate r) pair of a pattern.

    Token `p` is selected by the branch for offset `o` iff `((p - start) mod w) mod r == o`,
    where `start` is 0 or the first token of p's document. Any positive w and r are legal.

    Raises:
        TypeError: a value is not an int.
        ValueError: a value is not positive.
    """

    segment_length: int
    dilation_rate: int

    def __post_init__(self) -> None:
        for name in ("segment_length", "dilation_rate"):
            value = _as_int(name, getattr(self, name))
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class DilationPattern:
    """Branches plus the rule that gives each (branch, head) an offset `0 <= o < r`.

    Query `p` of head `h` sees key `k` once for every branch `i` that selects both with the offset
    `o[i, h]` and holds both in one segment; the attention is one softmax over that multiset
    (LongNet, arXiv 2307.02486, Eq. 8-10).

    | rule | offset of head h in branch i | heads in branch i |
    |---|---|---|
    | `longnet` | `h mod r_i` | all |
    | `torchscale` | `h // ceil(H / r_i)` | all |
    | `head_groups` | `i mod r_i` | the i-th of len(branches) contiguous groups of heads |
    | `table` | `table[i][h]`, None where the head takes no part | as given |

    `phantom_keys`, `detach_mix` and `shift_rows` reproduce microsoft/torchscale's operator for
    weights that were trained with it; they need rule `torchscale`.

    Use the constructors `longnet`, `torchscale`, `head_groups`, `from_branches` and `preset`.
    """

    branches: tuple[Branch, ...]
    rule: str = "longnet"
    table: OffsetTable | None = None
    phantom_keys: bool = False
    detach_mix: bool = False
    shift_rows: bool = False

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("a pattern needs at least one branch, got none")
        for branch in self.branches:
            if not isinstance(branch, Branch):
                raise TypeError(f"branches must hold Branch(w, r) objects, got {branch!r}")
        if self.rule not in RULES:
            raise ValueError(f"unknown offset rule {self.rule!r}; expected one of {list(RULES)}")
        if (self.table is not None) != (self.rule == "table"):
            raise ValueError("an offset table goes with rule 'table' and with no other rule")
        if self.table is not None:
            _check_table(self.branches, self.table)
        switches = (self.phantom_keys, self.detach_mix, self.shift_rows)
        if any(switches) and self.rule != "torchscale":
            raise ValueError(
                "phantom_keys, detach_mix and shift_rows reproduce torchscale's operator and need "
                f"rule 'torchscale', got {self.rule!r}"
            )
        if self.shift_rows and not self.phantom_keys:
            raise ValueError("shift_rows needs phantom_keys=True (torchscale has both or neither)")

    @classmethod
    def longnet(
        cls, segment_lengths: Sequence[int], dilation_rates: Sequence[int]
    ) -> DilationPattern:
        """The LongNet paper's rule: head h has offset `h mod r_i` in branch i."""
        return cls(_branches(segment_lengths, dilation_rates), "longnet")

    @classmethod
    def torchscale(
        cls,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        *,
        phantom_keys: bool = False,
        detach_mix: bool = False,
        shift_rows: bool = False,
    ) -> DilationPattern:
        """torchscale's rule: head h has offset `h // ceil(H / r_i)` in branch i.

        Args:
            segment_lengths: w of each branch.
            dilation_rates: r of each branch.
            phantom_keys: attend the zero keys that torchscale pads segments with.
            detach_mix: no gradient through the weights that mix the branches.
            shift_rows: reproduce the row shift where r does not divide w.
        """
        return cls(
            _branches(segment_lengths, dilation_rates),
            "torchscale",
            phantom_keys=phantom_keys,
            detach_mix=detach_mix,
            shift_rows=shift_rows,
        )

    @classmethod
    def head_groups(
        cls, segment_lengths: Sequence[int], dilation_rates: Sequence[int]
    ) -> DilationPattern:
        """The historical `DilatedAttention`: group i of the heads attends in branch i only."""
        return cls(_branches(segment_lengths, dilation_rates), "head_groups")

    @classmethod
    def from_branches(
        cls, branches: Sequence[Branch], offsets: Sequence[Sequence[int | None]]
    ) -> DilationPattern:
        """An explicit table `offsets[branch][head]`, None where the head takes no part."""
        table = tuple(
            tuple(None if o is None else _as_int("an offset", o) for o in row) for row in offsets
        )
        return cls(tuple(branches), "table", table)

    @classmethod
    def preset(cls, name: str, *, exact: bool = False) -> DilationPattern:
        """A published pattern by name.

        Args:
            name: `longnet-paper`, `gigapath`, `gigapath-panda` or `longvit`.
            exact: turn torchscale's switches off, which its weights were trained with.

        Raises:
            ValueError: unknown name; the message lists the names.
        """
        if name not in _PRESETS:
            raise ValueError(f"unknown preset {name!r}; expected one of {sorted(_PRESETS)}")
        pattern = _PRESETS[name]
        if exact:
            return replace(pattern, phantom_keys=False, detach_mix=False, shift_rows=False)
        return pattern

    @property
    def exact(self) -> bool:
        """Whether none of torchscale's three switches is on."""
        return not (self.phantom_keys or self.detach_mix or self.shift_rows)

    def offsets(self, num_heads: int) -> OffsetTable:
        """The table `[branch][head]` of offsets, None where the head takes no part.

        Raises:
            ValueError: the rule cannot serve `num_heads` heads.
        """
        if num_heads < 1:
            raise ValueError(f"num_heads must be positive, got {num_heads}")
        rates = [branch.dilation_rate for branch in self.branches]
        if self.table is not None:
            if len(self.table[0]) != num_heads:
                raise ValueError(
                    f"the offset table has {len(self.table[0])} heads, got {num_heads} query heads"
                )
            return self.table
        if self.rule == "longnet":
            return tuple(tuple(h % r for h in range(num_heads)) for r in rates)
        if self.rule == "torchscale":
            return tuple(tuple(h // -(-num_heads // r) for h in range(num_heads)) for r in rates)
        groups = len(rates)
        if num_heads < groups:
            raise ValueError(
                f"rule 'head_groups' needs num_heads >= number of branches, got {num_heads} heads "
                f"and {groups} branches; use rule 'longnet' or fewer branches"
            )
        small, larger = divmod(num_heads, groups)
        group_of = [i for i in range(groups) for _ in range(small + (i < larger))]
        return tuple(
            tuple(i % r if group_of[h] == i else None for h in range(num_heads))
            for i, r in enumerate(rates)
        )


def _branches(segment_lengths: Sequence[int], dilation_rates: Sequence[int]) -> tuple[Branch, ...]:
    for name, values in (("segment_lengths", segment_lengths), ("dilation_rates", dilation_rates)):
        if isinstance(values, (str, int)) or not hasattr(values, "__len__"):
            raise TypeError(f"{name} must be a sequence of ints, got {values!r}")
        if len(values) == 0:
            raise ValueError(f"{name} cannot be empty")
    if len(segment_lengths) != len(dilation_rates):
        raise ValueError(
            "segment_lengths and dilation_rates must have the same length: "
            f"{len(segment_lengths)} != {len(dilation_rates)}"
        )
    pairs = zip(segment_lengths, dilation_rates, strict=True)
    return tuple(Branch(w, r) for w, r in pairs)


def _check_table(branches: tuple[Branch, ...], table: OffsetTable) -> None:
    if len(table) != len(branches):
        raise ValueError(f"the offset table has {len(table)} rows for {len(branches)} branches")
    if len({len(row) for row in table}) != 1 or not table[0]:
        raise ValueError("the offset table needs rows of one length, one entry for each head")
    for i, (branch, row) in enumerate(zip(branches, table, strict=True)):
        for h, offset in enumerate(row):
            if offset is not None and not 0 <= offset < branch.dilation_rate:
                raise ValueError(
                    f"offsets[{i}][{h}] must lie in [0, {branch.dilation_rate}), got {offset}"
                )


def _torchscale_trained(segment_lengths: Sequence[int]) -> DilationPattern:
    return DilationPattern.torchscale(
        segment_lengths, (1, 2, 4, 8, 16), phantom_keys=True, detach_mix=True, shift_rows=True
    )


_PRESETS: Final = {
    "longnet-paper": DilationPattern.longnet((2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12)),
    "gigapath": _torchscale_trained((1024, 5792, 32768, 185363, 1048576)),
    "gigapath-panda": _torchscale_trained((1024, 4870, 23170, 110217, 524288)),
    "longvit": _torchscale_trained((1024, 4096, 32768, 262144, 1048576)),
}
