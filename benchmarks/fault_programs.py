"""Faults, as the ranks of `benchmarks.faults` live through them: one program for each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from dilated_attention_pytorch import DilationPattern, dilated_attention, ring_dilated_attention
from dilated_attention_pytorch.comm import Work
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

ROWS, HEADS, HEAD_DIM = 64, 2, 16


@dataclass(frozen=True)
class Member:
    """A rank that lives through a fault.

    Args:
        group: the ring.
        rank: its place in it.
        size: R.
        device: where its tensors live.
        odd: the rank that the fault is injected on.
        seconds: the group's timeout.
        happens: says that the fault happens now.
    """

    group: ProcessGroup
    rank: int
    size: int
    device: torch.device
    odd: int
    seconds: float
    happens: Callable[[], None]

    @property
    def is_odd(self) -> bool:
        """Whether the fault is injected here."""
        return self.rank == self.odd

    @property
    def pattern(self) -> DilationPattern:
        """Every rank needs rows of every other."""
        n = ROWS * self.size
        return DilationPattern.longnet([ROWS // 2, n], [1, 2])

    def rows(self, rows: int = ROWS, dtype: torch.dtype = torch.float32) -> Tensor:
        """This rank's rows of query, key and value alike."""
        generator = torch.Generator().manual_seed(self.rank)
        x = torch.randn(1, rows, HEADS, HEAD_DIM, generator=generator)
        return x.to(self.device, dtype)

    def attend(self, x: Tensor, pattern: DilationPattern | None = None, **options: Any) -> Tensor:
        """One forward."""
        out: Tensor = ring_dilated_attention(
            x, x, x, pattern or self.pattern, group=self.group, **options
        )
        # Work on a GPU ends when it is waited for.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return out

    def step(self) -> None:
        """One forward and backward."""
        x = self.rows().requires_grad_()
        self.attend(x).square().sum().backward()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def warm_up(member: Member) -> None:
    """A step that every rank makes, so that connections and caches are there."""
    member.step()


def other_arguments(member: Member, change: dict[str, Any]) -> str:
    """The odd rank passes something else."""
    change = dict(change) if member.is_odd else {}
    x = member.rows(change.pop("rows", ROWS), change.pop("dtype", torch.float32))
    member.happens()
    member.attend(x, **change)
    return "finished"


def other_pattern_second(member: Member) -> str:
    """The odd rank calls A, A and the others A, B: they met A before, which must not matter."""
    other = DilationPattern.longnet([ROWS, ROWS * member.size], [1, 4])
    member.attend(member.rows())
    member.happens()
    member.attend(member.rows(), None if member.is_odd else other)
    return "finished"


def swapped_rows(member: Member) -> str:
    """Two ranks hold each other's number of rows."""
    lengths = [ROWS + 8 * (rank == 0) for rank in range(member.size)]
    mine = {0: 1, member.odd: 0}.get(member.rank, member.rank)
    member.happens()
    member.attend(member.rows(lengths[mine]), shard_lengths=lengths)
    return "finished"


def one_call_less(member: Member, lives: bool) -> str:
    """The odd rank makes no second call; it ends at once, or lives on."""
    member.attend(member.rows())
    member.happens()
    if not member.is_odd:
        member.attend(member.rows())
    elif lives:
        time.sleep(2 * member.seconds)
    return "finished"


def forward_instead_of_backward(member: Member) -> str:
    """The odd rank calls forward twice where the others call forward and backward."""
    x = member.rows().requires_grad_()
    out = member.attend(x)
    member.happens()
    if member.is_odd:
        member.attend(x)
    else:
        out.sum().backward()
    return "finished"


def not_a_number(member: Member) -> str:
    """The odd rank's first value row holds NaN: it spreads to the rows that see it, no further."""
    x, value = member.rows(), member.rows()
    member.happens()
    if member.is_odd:
        value[:, 0] = torch.nan
    out = ring_dilated_attention(x, x, value, member.pattern, group=member.group, backend="eager")
    found = int((~out.isfinite()).any(-1).sum())
    return f"{found} rows of out not finite, {_rows_that_see(member)} see the NaN"


def _rows_that_see(member: Member) -> int:
    """By one process on the CPU: (row, head) pairs of this rank that see the odd rank's first."""
    n = ROWS * member.size
    zeros, value = torch.zeros(1, n, HEADS, HEAD_DIM), torch.zeros(1, n, HEADS, HEAD_DIM)
    value[:, member.odd * ROWS] = 1
    seen = dilated_attention(zeros, zeros, value, member.pattern)[..., 0] > 0
    return int(seen[:, member.rank * ROWS : (member.rank + 1) * ROWS].sum())


@dataclass
class _Ending:
    """Takes the place of `exchange`: the fault happens at its `countdown`-th call with a label."""

    member: Member
    how: str
    label: str
    when: str = "before"
    countdown: int = 0
    original: Any = field(default=ProcessGroupCommunicator.exchange)

    def __call__(self, comm: Any, label: str, sends: Any, receives: Any) -> Work:
        meant = label == self.label and self.countdown == 0
        self.countdown -= label == self.label
        if meant and self.when == "before":
            self.end()
        work: Work = self.original(comm, label, sends, receives)
        if meant and self.when == "during":
            self.end()
        return _Ends(work, self.end) if meant and self.when == "after" else work

    def end(self) -> None:
        self.member.happens()
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "frozen":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.how == "slow":
            time.sleep(0.5 * self.member.seconds)
        elif self.how == "stuck":
            time.sleep(3 * self.member.seconds)
        else:
            assert self.how == "raises"
            raise RuntimeError("injected: a kernel failed")


@dataclass(eq=False)
class _Ends:
    work: Work
    end: Callable[[], None]

    def ready(self) -> bool:
        return self.work.ready()

    def wait(self) -> None:
        self.work.wait()
        self.end()


def ends(member: Member, how: str, label: str, when: str = "before", countdown: int = 0) -> str:
    """A step in which the odd rank ends, or stops, at an exchange."""
    if member.is_odd:
        ending = _Ending(member, how, label, when, countdown)
        ProcessGroupCommunicator.exchange = (  # type: ignore[method-assign]
            lambda comm, *arguments: ending(comm, *arguments)
        )
    member.step()
    return "finished"


def killed_before_the_step(member: Member) -> str:
    """The odd rank is killed between two steps."""
    member.happens()
    if member.is_odd:
        os.kill(os.getpid(), signal.SIGKILL)
    member.step()
    return "finished"


def raises_and_lives(member: Member) -> str:
    """The odd rank's own exception is caught, and its process goes on without the group."""
    if not member.is_odd:
        member.step()
        return "finished"
    try:
        ends(member, "raises", "key_value")
    except RuntimeError:
        time.sleep(2 * member.seconds)
    return "caught its own error"


def agreement_price(member: Member, calls: int) -> dict[str, list[float]]:
    """Seconds of each agreement, of its all-gather alone, and of posting the step alone."""
    from dilated_attention_pytorch.ring.agreement import FIELDS, FORWARD, agree

    comm = ProcessGroupCommunicator(member.group)
    fields = {"operation": FORWARD}
    mine = torch.zeros(len(FIELDS), dtype=torch.int64, device=member.device)
    others = [torch.empty_like(mine) for _ in range(member.size)]
    store = member.group.get_group_store()

    def gather() -> None:
        dist.all_gather(others, mine, group=member.group)
        others[0].tolist()

    actions: dict[str, Callable[[], object]] = {
        "agreement": lambda: agree(comm, fields),
        "all_gather": gather,
        "posting": lambda: store.set(f"price/{member.rank}", "1"),
        "forward": lambda: member.attend(member.rows()),
    }
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(calls):
        for name, action in actions.items():
            dist.barrier(member.group)
            start = time.perf_counter()
            action()
            found[name].append(time.perf_counter() - start)
    return found
