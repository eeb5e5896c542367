"""Which ring a call means: a process group, one dimension of a mesh, or ranks in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch.distributed as dist
from torch import Tensor

from ..cost import Links
from ..typing import IntArray

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from ..comm.process_group import ProcessGroupCommunicator

Order: TypeAlias = "str | Sequence[int] | IntArray | Tensor"


def order_map(order: Order) -> str | IntArray:
    """`order` with an index map as a NumPy array."""
    if isinstance(order, str):
        return order
    return np.asarray(order.cpu() if isinstance(order, Tensor) else order)


def resolve_group(group: object) -> ProcessGroup:
    """The process group of a group or a 1-d mesh.

    Raises:
        TypeError: neither of them.
        ValueError: a mesh of several dimensions, or a group without this process.
    """
    from torch.distributed.device_mesh import DeviceMesh

    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"group needs a mesh of one dimension, got {group.ndim}; pass mesh['name'] of the "
                "dimension that holds the sequence"
            )
        found: ProcessGroup = group.get_group()
    elif isinstance(group, dist.ProcessGroup):
        found = group
    else:
        raise TypeError(
            f"group must be a ProcessGroup or a 1-d DeviceMesh, got {type(group).__name__}"
        )
    if dist.get_rank(found) < 0:
        raise ValueError("this process is not a member of the group that was passed")
    return found


def communicator(
    group: object, ring_size: int | None, *, simulate: bool
) -> ProcessGroupCommunicator | None:
    """This process's end of a real ring, or None where ranks are simulated.

    Raises:
        ValueError: no group in a process of several ranks, or a ring_size that is not the
            group's.
    """
    if ring_size is not None and (isinstance(ring_size, bool) or not isinstance(ring_size, int)):
        raise TypeError(f"ring_size must be an int or None, got {ring_size!r}")
    if ring_size is not None and ring_size < 1:
        raise ValueError(f"ring_size must be at least 1, got {ring_size}")
    if group is None:
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if several and not simulate:
            raise ValueError(
                f"torch.distributed runs {dist.get_world_size()} ranks and no group was given; "
                "pass group=… for a ring over them, or simulate=True for a ring inside this process"
            )
        return None
    if simulate:
        raise ValueError("group=… makes a real ring and simulate=True does not; pass one of them")
    if not dist.is_available():
        raise ValueError("group=… needs torch built with distributed support")
    from ..comm.process_group import ProcessGroupCommunicator

    found = ProcessGroupCommunicator(resolve_group(group))
    if ring_size is not None and ring_size != found.size:
        raise ValueError(
            f"ring_size must be the group's size {found.size} or None, got {ring_size}"
        )
    return found


def release_buffers(group: object) -> None:
    """Free the message buffers that a ring keeps for its next call.

    A ring keeps the buffers of rows that it sends and receives, so that the steps of a training
    allocate none. They are at most twice what was in use at once, and made again when needed.
    Symmetric memory is kept: others read it.

    Args:
        group: the ring's ProcessGroup or 1-d DeviceMesh.

    Raises:
        TypeError: neither of them.
        ValueError: a mesh of several dimensions, or a group without this process.
    """
    from ..comm.process_group import ProcessGroupCommunicator

    ProcessGroupCommunicator(resolve_group(group)).workspace.release()


def measured_links(group: object) -> Links | None:
    """Latency and bandwidth between the GPUs of a ring, as measured before its first call.

    Args:
        group: the ring's ProcessGroup or 1-d DeviceMesh.

    Returns:
        The same numbers on every rank; None before the first call, and where a group has one
        transport alone (Gloo, several hosts, a transport named by DILATED_ATTENTION_TRANSPORT).

    Raises:
        TypeError: neither of them.
        ValueError: a mesh of several dimensions, or a group without this process.
    """
    from ..comm.process_group import ProcessGroupCommunicator

    return ProcessGroupCommunicator(resolve_group(group)).links
