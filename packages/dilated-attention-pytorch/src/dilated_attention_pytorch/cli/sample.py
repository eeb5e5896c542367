"""Text that a trained model writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch

from ..models import DecoderConfig, DilatedDecoderLM, generate

_TEMPERATURE = 0.5


def write_sample(
    config: DecoderConfig,
    parameters: Mapping[str, npt.NDArray[Any]],
    prompt: bytes,
    length: int,
    seed: int,
) -> str:
    """Continue a prompt by `length` bytes; what is no printable text shows as a replacement sign.

    Args:
        config: The model.
        parameters: Its parameters.
        prompt: At least one byte.
        length: Bytes to write.
        seed: Of the draw.

    Returns:
        The continuation alone.
    """
    model = DilatedDecoderLM(config)
    model.load_state_dict({name: torch.tensor(x) for name, x in parameters.items()})
    tokens = generate(
        model,
        torch.tensor([list(prompt)]),
        length,
        window=config.pattern.branches[-1].segment_length,
        temperature=_TEMPERATURE,
        generator=torch.Generator().manual_seed(seed),
    )
    written = bytes(tokens[0, len(prompt) :].tolist()).decode("utf-8", errors="replace")
    return "".join(x if x.isprintable() or x == "\n" else "\ufffd" for x in written)
