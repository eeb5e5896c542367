"""Where the ranks of a group are, so that one that waits in vain can say for whom.

A step is one agreement of the ranks and the exchanges that follow it: a forward, or a backward.
Every rank of a group makes the same steps, so their numbers match. A rank posts the number of its
step to the group's store, which answers whatever the ranks themselves are doing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
import torch.distributed as dist

_steps: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Progress:
    """One rank's place among the steps of its group."""

    group: dist.ProcessGroup
    rank: int
    size: int

    @property
    def step(self) -> int:
        """Number of this process's step on the group, from 1; 0 before the first."""
        return _steps[str(self.group.group_name)]

    @property
    def timeout(self) -> float:
        """Seconds that the group waits for a rank."""
        backend = self.group._get_backend(_device_of(self.group))
        seconds: float = backend.options._timeout.total_seconds()
        return seconds

    def enter(self) -> None:
        """Begin a step, and post its number; a store takes it without an answer."""
        _steps[str(self.group.group_name)] += 1
        self._post(str(self.step))

    def lost(self, what: str) -> None:
        """Post what this rank waited for in vain; ranks that wait for this one will read it."""
        try:
            self._post(f"{self.step} {what}")
        except RuntimeError:
            # Its host may have ended as well; the error that is being raised says enough.
            return

    def others(self) -> str:
        """What the other ranks posted, as far as it differs from this rank's step.

        Returns:
            A sentence that begins with "; ", or nothing where all are in this rank's step.
        """
        try:
            said = [text for rank in range(self.size) if (text := self._said(rank))]
        except RuntimeError as error:
            return f"; the group's store does not answer, its host may have ended: {error}"
        return "".join(f"; {text}" for text in said)

    def _said(self, rank: int) -> str:
        store, key = self.group.get_group_store(), _key(rank)
        if rank == self.rank:
            return ""
        if not store.check([key]):
            return f"rank {rank} has not begun a step"
        number, _, lost = store.get(key).decode().partition(" ")
        if lost:
            return f"rank {rank} raised in step {number}: {lost}"
        return "" if int(number) == self.step else f"rank {rank} is still in step {number}"

    def _post(self, text: str) -> None:
        self.group.get_group_store().set(_key(self.rank), text)


def _key(rank: int) -> str:
    return f"dilated_attention/step/{rank}"


def _device_of(group: dist.ProcessGroup) -> torch.device:
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
