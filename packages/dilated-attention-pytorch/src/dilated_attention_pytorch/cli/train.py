"""Training the demo's model on one ring."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..models import DecoderConfig, DilatedDecoderLM, training_step
from ..pattern import DilationPattern
from .rank import Rank
from .text import Bytes

_WARMUP = 10
_LEARNING_RATE = 4e-3


@dataclass(frozen=True, slots=True)
class Training:
    """What a rank has after training.

    Args:
        losses: Mean loss of each step.
        seconds: Wall time of all steps.
        parameters: This rank's replica, by name.
    """

    losses: list[float]
    seconds: float
    parameters: dict[str, npt.NDArray[Any]]


def demo_config(length: int) -> DecoderConfig:
    """A model of 0.25 million parameters whose widest branch spans `length` tokens."""
    segments = [max(32, length // 16), max(32, length // 4), length]
    return DecoderConfig(DilationPattern.longnet(segments, [1, 4, 8]))


def train(rank: Rank, config: DecoderConfig, batches: Bytes, seed: int) -> Training:
    """Train a model on all batches, one step each; every rank holds its rows of a batch.

    Args:
        rank: This process.
        config: The model.
        batches: (steps, b, n + 1) bytes, the same on every rank.
        seed: Of the initial parameters, which do not depend on the ring.
    """
    torch.manual_seed(seed)
    model = DilatedDecoderLM(config).to(rank.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    warmup = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / _WARMUP, total_iters=_WARMUP
    )
    losses = []
    start = time.perf_counter()
    for batch in batches:
        tokens = torch.from_numpy(batch.astype(np.int64)).to(rank.device)
        losses.append(training_step(model, optimizer, tokens, group=rank.group))
        warmup.step()
        rank.report(losses[-1])
    seconds = time.perf_counter() - start
    parameters = {name: x.detach().cpu().numpy() for name, x in model.named_parameters()}
    return Training(losses, seconds, parameters)


def largest_relative_difference(losses: list[float], reference: list[float]) -> float:
    """The largest difference of two runs' losses at one step, relative to the reference."""
    ours, theirs = np.array(losses), np.array(reference)
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))
