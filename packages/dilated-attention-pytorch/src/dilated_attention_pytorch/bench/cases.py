"""What is timed: the one registry of cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import torch

from .. import cost
from ..pattern import DilationPattern
from ..schedule import Problem

GROUPS: Final = ("small", "ladder", "paper", "gigapath", "dense", "long", "flex", "cpu")

_LADDER: Final = DilationPattern.longnet([2048 << i for i in range(5)], [1 << i for i in range(5)])
_DENSE: Final = ("dense_same_n", "dense_same_flops")
_ALL: Final = (*_DENSE, "strided", "torchscale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attention call with b = 1: forward, and forward + backward.

    Args:
        name: unique, names the row of a result.
        group: one of `GROUPS`; a set of cases that one run times.
        pattern: branches and offset rule, without torchscale's switches.
        n: sequence length.
        heads: query and key/value heads H.
        head_dim: d.
        dtype: of query, key and value.
        is_causal: causal or not.
        backward: whether backward is timed as well.
        peers: names of what is timed beside it.
    """

    name: str
    group: str
    pattern: DilationPattern
    n: int
    heads: int
    head_dim: int
    dtype: torch.dtype = torch.bfloat16
    is_causal: bool = False
    backward: bool = True
    peers: tuple[str, ...] = ()

    @property
    def problem(self) -> Problem:
        """The (query, key, branch, head) pairs."""
        return Problem(self.pattern, self.n, self.heads, self.heads, self.is_causal)

    @property
    def flops(self) -> int:
        """4 d pairs: the contract's count of the forward."""
        return cost.attention_flops(self.problem, 1, self.head_dim)

    @property
    def dtype_name(self) -> str:
        """`bfloat16` and so on."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        """The shape in one line."""
        kind = ", causal" if self.is_causal else ""
        return f"n = {self.n:,}, H = {self.heads}, d = {self.head_dim}, {self.dtype_name}{kind}"


def _ladder(
    n: int, head_dim: int, peers: Iterable[str], *, is_causal: bool = False, group: str = "ladder"
) -> Case:
    size = f"{n >> 20}M" if n >= 1 << 20 else f"{n >> 10}k"
    return Case(
        name=f"ladder-{size}-d{head_dim}{'-causal' if is_causal else ''}",
        group=group,
        pattern=_LADDER,
        n=n,
        heads=16,
        head_dim=head_dim,
        is_causal=is_causal,
        peers=tuple(peers),
    )


def _ladders() -> Iterable[Case]:
    for n in (1 << 14, 1 << 17, 1 << 20):
        for d in (128, 64):
            for is_causal in (False, True):
                peers: tuple[str, ...] = _ALL
                if n == 1 << 17:
                    # Dense attention over 128k tokens takes a second; one case shows the ratio.
                    peers = _ALL if d == 128 and not is_causal else _ALL[1:]
                if n == 1 << 20:
                    # torchscale needs 120 GiB beside the inputs.
                    peers = ("strided",)
                yield _ladder(n, d, peers, is_causal=is_causal)


def _gigapath(n: int, *, is_causal: bool = False) -> Case:
    return Case(
        name=f"gigapath-{n}{'-causal' if is_causal else ''}",
        group="gigapath",
        pattern=DilationPattern.preset("gigapath", exact=True),
        n=n,
        heads=16,
        head_dim=48,
        dtype=torch.float16,
        is_causal=is_causal,
        peers=_ALL,
    )


def _paper(*, is_causal: bool) -> Case:
    return Case(
        name=f"paper-32k{'-causal' if is_causal else ''}",
        group="paper",
        pattern=DilationPattern.preset("longnet-paper"),
        n=1 << 15,
        heads=12,
        head_dim=64,
        is_causal=is_causal,
        peers=_ALL,
    )


def _dense(head_dim: int, *, is_causal: bool) -> Case:
    """One branch over all: the classic attention, streams as long as they get."""
    return Case(
        name=f"dense-64k-d{head_dim}{'-causal' if is_causal else ''}",
        group="dense",
        pattern=DilationPattern.longnet([1 << 16], [1]),
        n=1 << 16,
        heads=16,
        head_dim=head_dim,
        is_causal=is_causal,
        peers=("dense_same_n",),
    )


def _long(n: int) -> Case:
    return Case(
        name=f"ladder-{n >> 20}M-h8-d64",
        group="long",
        pattern=_LADDER,
        n=n,
        heads=8,
        head_dim=64,
        backward=False,
    )


def _cpu(n: int, dtype: torch.dtype, *, is_causal: bool = False) -> Case:
    kind = str(dtype).removeprefix("torch.")
    return Case(
        name=f"cpu-{n}-{kind}{'-causal' if is_causal else ''}",
        group="cpu",
        pattern=DilationPattern.longnet(
            [n >> 4 << i for i in range(5)], [1 << i for i in range(5)]
        ),
        n=n,
        heads=4,
        head_dim=64,
        dtype=dtype,
        is_causal=is_causal,
        peers=_DENSE,
    )


CASES: Final[tuple[Case, ...]] = (
    *(
        _ladder(1 << 12, d, _ALL, is_causal=is_causal, group="small")
        for d in (128, 64)
        for is_causal in (False, True)
    ),
    *_ladders(),
    *(_paper(is_causal=is_causal) for is_causal in (False, True)),
    *(_gigapath(n) for n in (10_001, 45_681, 70_001)),
    _gigapath(45_681, is_causal=True),
    *(_dense(d, is_causal=is_causal) for d in (128, 64) for is_causal in (False, True)),
    *(_long(n) for n in (1 << 20, 1 << 24)),
    # A case and a group of its own: FlexAttention compiles for a minute.
    replace(_ladder(1 << 17, 128, ("flex",), group="flex"), name="flex-128k-d128"),
    _cpu(2048, torch.float32),
    _cpu(2048, torch.float32, is_causal=True),
    _cpu(2048, torch.bfloat16),
    _cpu(8192, torch.float32),
)


def choose(names: Iterable[str], groups: Iterable[str], device: torch.device) -> tuple[Case, ...]:
    """The named cases and those of the named groups, in the registry's order.

    Where nothing is named: on CUDA every group but `cpu`, elsewhere the group `cpu`.

    Raises:
        ValueError: there is no such case or group.
    """
    wanted, sets = set(names), set(groups)
    for kind, given, known in (
        ("case", wanted, {case.name for case in CASES}),
        ("group", sets, set(GROUPS)),
    ):
        if given - known:
            raise ValueError(
                f"unknown {kind} {sorted(given - known)}; expected some of {sorted(known)}"
            )
    if not wanted and not sets:
        sets = set(GROUPS) - {"cpu"} if device.type == "cuda" else {"cpu"}
    return tuple(case for case in CASES if case.name in wanted or case.group in sets)
