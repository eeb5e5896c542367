"""Continuing a text."""

from __future__ import annotations

import torch
from torch import Tensor

from .decoder import DilatedDecoderLM
from .longnet_lm import LongNetLM


@torch.no_grad()
def generate(
    model: DilatedDecoderLM | LongNetLM,
    prompt: Tensor,
    length: int,
    *,
    window: int | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Append `length` tokens to a prompt, one after the other.

    Without `window` a token sees the whole text so far: keys and values are kept, and each pass
    reads only the rows that the new token sees. With it each token comes from a pass over the last
    `window` tokens, whose positions and segments are counted from the first of them, so that
    nothing can be kept.

    Args:
        model: The model, in eval() where it has dropout; on one device.
        prompt: (b, n) int64, n >= 1.
        length: Number of tokens to append.
        window: Most tokens that a forward pass sees, at best the length trained with; all of them
            where None.
        temperature: 0 takes the likeliest token; above 0 draws from softmax(logits / temperature).
        generator: To draw from; torch's own where None.

    Returns:
        (b, n + length) int64.

    Raises:
        ValueError: A wrong shape or value.
        TypeError: A prompt that is not int64.
    """
    if prompt.dim() != 2 or prompt.shape[1] < 1:
        raise ValueError(
            f"prompt must have shape (batch, n) with n >= 1, got {tuple(prompt.shape)}"
        )
    if length < 0 or (window is not None and window < 1):
        raise ValueError(
            f"length must not be negative and window at least 1, got {length} and {window}"
        )
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    tokens = new = prompt
    cache = model.empty_cache() if window is None else None
    for _ in range(length):
        seen = new if window is None else tokens[:, -window:]
        logits = model(seen, cache=cache)[:, -1]
        if temperature == 0:
            chosen = logits.argmax(-1, keepdim=True)
        else:
            shares = (logits / temperature).softmax(-1)
            chosen = torch.multinomial(shares, 1, generator=generator)
        tokens, new = torch.cat((tokens, chosen), dim=1), chosen
    return tokens
