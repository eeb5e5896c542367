"""One implementation of one case, ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .cases import Case
from .inputs import Inputs


class AbsentError(RuntimeError):
    """An implementation cannot run this case here; the message says why."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Calls that are timed.

    Args:
        forward: computes out, and whatever backward needs if it is to be called.
        forward_backward: forward, then the gradients; None where it cannot.
        flops: of the forward by the contract's count, 4 d pairs; backward counts 2.5 times that.
        result_bytes: bytes of out; of out and the gradients.
        values: arrays to verify, by name (out, lse, dq, dk, dv); None where what is computed is
            not this library's operator.
        executed_pairs: (query, key) pairs that are really scored, where fewer than the contract's.
        note: what a reader of the figures has to know.
    """

    forward: Callable[[], object]
    forward_backward: Callable[[], object] | None
    flops: int
    result_bytes: tuple[int, int]
    values: Callable[[], Mapping[str, Tensor]] | None = None
    executed_pairs: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Verified out (1, n, H, d) and lse (1, n, H) of the case."""

    out: Tensor
    lse: Tensor


# Raises AbsentError, or ModuleNotFoundError for a package that is not installed.
Peer = Callable[[Case, Inputs, Answer], Candidate]
