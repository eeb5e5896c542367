"""torchscale's key/value cache: what its decoders keep in `incremental_state` between calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def checked(
    state: dict[str, Any] | None,
    *,
    is_first_step: bool,
    exact: bool,
    is_causal: bool,
    ring: bool,
    dropped: bool,
    masked: bool,
) -> dict[str, Any]:
    """The state of a call that can be served.

    Args:
        state: of one layer.
        is_first_step: as passed to the layer.
        exact: whether the operator is the true one.
        is_causal: as passed.
        ring: whether a ring holds the rows.
        dropped: whether attention weights would be dropped.
        masked: whether there is a padding mask.

    Raises:
        ValueError: any other call.
    """
    refused = {
        "is_first_step=True belongs to an empty incremental_state; pass an empty dict": (
            is_first_step and (state is None or "prev_key" in state)
        ),
        "without exact=True a row's numbers depend on the length that the sequence will have "
        "(phantom keys, shifted rows); set `exact = True` on the modules that "
        "integrations.layers_of(model) names, or call the model with the whole sequence": not exact,
        "rows can only be appended to causal attention; pass is_causal=True": not is_causal,
        "a ring holds whole sequences; replace the attention without group=": ring,
        "attention weights would be dropped; call model.eval()": dropped,
        "it holds no padding; pass no mask, and sequences of one length": masked,
    }
    for reason, holds in refused.items():
        if holds:
            raise ValueError(
                f"the key/value cache (incremental_state) is not served here: {reason}"
            )
    assert state is not None
    return state


def append(state: dict[str, Any], key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """All rows so far, (b, n, h, d), which the state holds from now on.

    Its entries are torchscale's: `prev_key` and `prev_value`, (b, h, n, d), the keys before xPos,
    so that code which reorders the states of a beam search goes on working.

    Args:
        state: of one layer; empty before the first call.
        key: (b, m, h, d), the rows of this call.
        value: likewise.

    Raises:
        ValueError: rows that do not continue those of the state.
    """
    found = []
    for name, rows in (("prev_key", key), ("prev_value", value)):
        past = state.get(name)
        if past is not None:
            if (*past.shape[:2], past.shape[3]) != (rows.shape[0], *rows.shape[2:]):
                raise ValueError(
                    f"incremental_state holds {name} of shape (b, h, n, d) = {tuple(past.shape)}, "
                    f"which rows of shape (b, m, h, d) = {tuple(rows.shape)} do not continue; "
                    "begin with an empty dict"
                )
            rows = torch.cat((past.transpose(1, 2), rows), dim=1)
        found.append(rows)
    state |= {"prev_key": found[0].transpose(1, 2), "prev_value": found[1].transpose(1, 2)}
    return found[0], found[1]
