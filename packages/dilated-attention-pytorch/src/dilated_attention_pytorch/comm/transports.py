"""Which transports a group has, what is known of them, and which one serves what.

What ranks keep of a group is part of what they agree on before every call, so that none can take
another way than its peers.
"""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from ..cost import Links
from .arrivals import Arrivals
from .bandwidth import measure
from .member import Member
from .parcel import Transport
from .symmetric import SymmetricMemory
from .workspace import Workspace

VARIABLE: Final = "DILATED_ATTENTION_TRANSPORT"
P2P, SYMMETRIC, AUTO = "p2p", "symmetric", "auto"


def asked() -> str:
    """What the environment asks for: `p2p`, `symmetric`, or `auto` where it says nothing.

    Raises:
        ValueError: it says something else.
    """
    found = os.environ.get(VARIABLE, AUTO)
    if found not in (P2P, SYMMETRIC, AUTO):
        raise ValueError(
            f"{VARIABLE} must be '{P2P}', '{SYMMETRIC}' or '{AUTO}', got {found!r}; unset it to "
            "let measured bandwidths decide"
        )
    return found


@dataclass(eq=False, slots=True)
class GroupState:
    """What one process keeps of a group between calls.

    Args:
        workspace: buffers of messages.
        arrivals: which operations of the device are over.
        symmetric: mapped memory; None before it was made and where it cannot be.
        refusal: why it cannot be made, None where it can or nobody tried.
        links: measured; None before.
    """

    workspace: Workspace
    arrivals: Arrivals = field(default_factory=Arrivals)
    symmetric: SymmetricMemory | None = None
    refusal: str | None = None
    links: Links | None = None

    def __str__(self) -> str:
        """What the ranks of a group must have alike."""
        made = "made" if self.symmetric is not None else self.refusal or "not tried"
        return f"symmetric memory {made}, links {self.links}"


_states: WeakKeyDictionary[dist.ProcessGroup, GroupState] = WeakKeyDictionary()


def state_of(group: dist.ProcessGroup) -> GroupState:
    """What this process keeps of the group; forgotten with it."""
    if group not in _states:
        _states[group] = GroupState(Workspace(keep=dist.get_backend(group) == "nccl"))
    return _states[group]


def prepare(member: Member, p2p: Transport, choice: str) -> None:
    """Make the symmetric memory of an NCCL group and measure its links; once, and collectively.

    Args:
        member: this process.
        p2p: the transport that every group has.
        choice: `auto` or `symmetric`, on every rank.
    """
    state = state_of(member.group)
    if state.symmetric is None and state.refusal is None:
        state.refusal = _refusal(member)
        if state.refusal is None:
            _make_symmetric(state, member)
    if choice == AUTO and state.links is None and state.symmetric is not None:
        state.links = Links(
            p2p=measure(p2p, member),
            symmetric=measure(state.symmetric, member),
            source="measured on this group",
        )


def _make_symmetric(state: GroupState, member: Member) -> None:
    made, words = None, ""
    try:
        made = SymmetricMemory(member)
    except RuntimeError as error:
        words = f" (here: {str(error).splitlines()[0]})"
    failed = [i for i, x in enumerate(_told(int(made is None), member)) if x]
    if not failed:
        state.symmetric = made
        return
    # The words of an error differ from rank to rank; what is kept must not.
    state.refusal = f"ranks {failed} could not map the memory of their peers"
    warnings.warn(f"{state.refusal}{words}; rows travel by NCCL", RuntimeWarning, stacklevel=2)


def _told(number: int, member: Member) -> list[int]:
    mine = torch.tensor([number], dtype=torch.int64, device=member.device)
    return [int(x.item()) for x in member.gather(mine)]


def _refusal(member: Member) -> str | None:
    """Why no rank may try to map memory; the same on every rank."""
    from torch._C._distributed_c10d import _SymmetricMemory

    hosts = _told(_digest(socket.gethostname()), member)
    if len(set(hosts)) > 1:
        return "the ranks are on several hosts"
    properties = torch.cuda.get_device_properties(member.device)
    gpus = _told(_digest(str(properties.uuid)), member)
    overlapping = os.environ.get("TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES") == "1"
    if len(set(gpus)) < len(gpus) and not all(_told(int(overlapping), member)):
        return "ranks share a GPU"
    backend = _SymmetricMemory.get_backend(member.device)
    if not all(_told(int(backend == "CUDA"), member)):
        return "PyTorch's backend for symmetric memory is not 'CUDA' on every rank"
    return None


def _digest(text: str) -> int:
    found = hashlib.blake2b(text.encode(), digest_size=7).digest()
    return int.from_bytes(found, "little")
