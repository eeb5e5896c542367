"""The next-token loss of a sequence that several ranks hold."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def next_token_pairs(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a whole sequence, to be made *before* it is sharded.

    `targets[:, p]` is the token after `inputs[:, p]`. The target of a shard's last row is the
    first input of another rank, so a rank cannot make targets from its own rows.

    Args:
        tokens: (b, n + 1).

    Returns:
        (inputs, targets), both (b, n).

    Raises:
        ValueError: Not two dimensions, or fewer than two tokens.
    """
    if tokens.dim() != 2 or tokens.shape[1] < 2:
        raise ValueError(
            f"tokens must have shape (batch, n + 1) with n >= 1, got {tuple(tokens.shape)}"
        )
    return tokens[:, :-1], tokens[:, 1:]


def next_token_loss(logits: Tensor, targets: Tensor, count: int | None = None) -> Tensor:
    """A rank's share of the mean cross-entropy.

        share = (1 / count) * sum over the rank's targets of -log softmax(logits)[target]

    The shares of all ranks add up to the mean over the whole sequence, and so do the gradients
    that they give to replicated parameters.

    Args:
        logits: (b, n, vocab_size), the rank's rows; n may be 0.
        targets: (b, n) int64.
        count: Number of targets on all ranks; those at hand where None.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: Shapes that do not fit, or no targets at all.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits and targets must have the same rows, got {tuple(logits.shape[:-1])} and "
            f"{tuple(targets.shape)}"
        )
    total = targets.numel() if count is None else count
    if total < 1:
        raise ValueError(f"count must be at least 1, got {total}")
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / total
