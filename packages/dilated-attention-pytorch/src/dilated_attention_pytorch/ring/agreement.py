"""Ranks make sure that they make the same call before any row travels.

Every call of every rank begins with one all-gather of a fixed number of integers, so no collective
is entered by some ranks only: whoever differs, or failed before it got here, is seen by all.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..comm.process_group import ProcessGroupCommunicator
from ..errors import PeerError, RankDisagreementError

FORWARD, BACKWARD = 1, 2
_FAILED = "failed"

# Fields that each rank reports for itself and that may differ.
_FREE = frozenset({"rows", "key_rows", "seed_drawn", _FAILED})


def fingerprint(text: str) -> int:
    """A signed 64-bit digest."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int(struct.unpack("<q", digest)[0])


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the ranks told each other: for each field one number of every rank."""

    values: dict[str, tuple[int, ...]]

    def of(self, field: str) -> tuple[int, ...]:
        """A field's value on every rank."""
        return self.values[field]


_calls: Counter[str] = Counter()


def next_call(group_name: str) -> int:
    """Number of this process's call on a group, from 1; backward reports its forward's number."""
    _calls[group_name] += 1
    return _calls[group_name]


FIELDS = (
    _FAILED,
    "operation",
    "call",
    "batch",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "dtype",
    "layout",
    "order",
    "shard_lengths",
    "buffer_shards",
    "pattern",
    "is_causal",
    "scale",
    "key_mask",
    "cu_seqlens",
    "dropout_p",
    "seed",
    "backend",
    "transport",
    "deterministic",
    "requires_grad",
    "rows",
    "key_rows",
    "seed_drawn",
)


def agree(
    comm: ProcessGroupCommunicator,
    mine: dict[str, int],
    passed: dict[str, str] | None = None,
    *,
    failed: bool = False,
) -> Agreement:
    """Exchange the fields and raise on every rank if one differs.

    Args:
        comm: this rank's end of the ring.
        mine: fields by name; absent ones count as 0.
        passed: what this rank passed, in words, for fields that are digests.
        failed: this rank's call was refused; the others are told, and the caller raises.

    Raises:
        RankDisagreementError: a field differs; names the field and the ranks.
        PeerError: another rank's call was refused, or a rank did not answer in time.
    """
    numbers = [int(failed) if name == _FAILED else mine.get(name, 0) for name in FIELDS]
    rows = comm.gather_numbers(numbers)
    values = {name: tuple(row[i] for row in rows) for i, name in enumerate(FIELDS)}
    if failed:
        return Agreement(values)
    broken = [rank for rank, flag in enumerate(values[_FAILED]) if flag]
    if broken:
        raise PeerError(
            f"rank {comm.rank}, {_operation(mine)}: the call was refused on {_ranks(broken)} of "
            "the ring, which raised an error of its own; see its message"
        )
    for name in FIELDS:
        if name not in _FREE and len(set(values[name])) > 1:
            words = (passed or {}).get(name)
            raise RankDisagreementError(_difference(name, values[name], comm.rank, words))
    return Agreement(values)


def _operation(fields: dict[str, int]) -> str:
    """Which call of the group this is, and which direction of it."""
    direction = "backward" if fields.get("operation") == BACKWARD else "forward"
    return f"{direction} of call {fields.get('call', 0)}"


def _ranks(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(str(r) for r in ranks)


def _difference(name: str, values: tuple[int, ...], rank: int, passed: str | None) -> str:
    holders: dict[int, list[int]] = {}
    for owner, value in enumerate(values):
        holders.setdefault(value, []).append(owner)
    if name == "operation":
        shown = {FORWARD: "in forward", BACKWARD: "in backward"}
        parts = [f"{_ranks(r)} {shown.get(v, '?')}" for v, r in holders.items()]
        return (
            f"ranks of the ring called a different number of times: {'; '.join(parts)}; every rank "
            "must make the same calls in the same order"
        )
    if passed is None:
        parts = [f"{_ranks(r)}: {value}" for value, r in holders.items()]
    else:
        parts = [" and ".join(_ranks(r) for r in holders.values()) + " differ"]
        parts.append(f"rank {rank} passed {passed}")
    return (
        f"ranks of the ring disagree on {name} ({'; '.join(parts)}); every rank must pass the same "
        f"{name}"
    )
