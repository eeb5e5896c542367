"""Training on a sequence that a ring holds: parameters replicated, rows sharded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..functional import positions, shard
from ..functional.group import communicator
from .decoder import DilatedDecoderLM
from .longnet_lm import LongNetLM
from .loss import next_token_loss, next_token_pairs

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


def sum_gradients(parameters: Iterable[Tensor], group: ProcessGroup | DeviceMesh) -> None:
    """Replace each gradient by its sum over the ranks, so that every replica steps alike.

    The sum and not the mean: each rank's loss is its share of the mean loss.

    Args:
        parameters: The same on every rank; those without a gradient count as zero.
        group: The ring.

    Raises:
        ValueError: This process is not in the group.
        TypeError: Not a group.
    """
    comm = communicator(group, None, simulate=False)
    assert comm is not None
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    # One message for all of them.
    total = comm.all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = total.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def training_step(
    model: DilatedDecoderLM | LongNetLM,
    optimizer: torch.optim.Optimizer,
    tokens: Tensor,
    *,
    group: ProcessGroup | DeviceMesh,
    order: Order = "contiguous",
) -> float:
    """One step on a batch whose rows the ring's ranks divide evenly.

    Every rank passes the same tokens and an equal model, and ends with an equal model. The result
    does not depend on the number of ranks, up to the order of summation.

    Args:
        model: This rank's replica.
        optimizer: Of the replica's parameters.
        tokens: (b, n + 1) int64, the whole sequences.
        group: The ring; of one rank for a single device.
        order: How rows lie on the ranks; `zigzag` balances causal attention.

    Returns:
        The mean loss over all ranks, before the step.

    Raises:
        ValueError: As `next_token_pairs` and the model.
        TypeError: As the model.
    """
    comm = communicator(group, None, simulate=False)
    assert comm is not None
    inputs, targets = next_token_pairs(tokens)
    rows = positions(inputs.shape[1], group=group, order=order, device=tokens.device)
    own_inputs, own_targets = (shard(x, group=group, order=order) for x in (inputs, targets))
    logits = model(own_inputs, positions=rows, group=group, order=order)
    loss = next_token_loss(logits, own_targets, count=targets.numel())
    optimizer.zero_grad()
    loss.backward()
    sum_gradients(model.parameters(), group)
    optimizer.step()
    return float(comm.all_reduce_sum(loss.detach().clone()))
