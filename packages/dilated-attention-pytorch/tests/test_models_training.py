"""Ring-sharded training over real processes: the same step as on one device."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.cli.pool import RankPool
from dilated_attention_pytorch.cli.rank import Rank
from dilated_attention_pytorch.models import (
    DecoderConfig,
    DilatedDecoderLM,
    LongNetLM,
    next_token_loss,
    next_token_pairs,
    sum_gradients,
    training_step,
)

RUNS = {
    "decoder": list(product((1, 2, 3), ("contiguous", "zigzag"))),
    "longnet": [(3, "zigzag")],
}
CONFIG = DecoderConfig(
    DilationPattern.longnet([5, 13], [1, 2]),
    vocab_size=11,
    embed_dim=12,
    num_heads=3,
    feed_forward_dim=20,
)


def build(kind: str) -> DilatedDecoderLM | LongNetLM:
    if kind == "decoder":
        return DilatedDecoderLM(CONFIG)
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 20}
    return LongNetLM(11, 12, 3, **sizes, segment_lengths=[5, 13], dilation_rates=[1, 2])


def start(kind: str) -> tuple[DilatedDecoderLM | LongNetLM, torch.optim.Optimizer, torch.Tensor]:
    """Model, optimizer and one batch of 13 targets, the same in every process."""
    torch.manual_seed(0)
    model = build(kind).double()
    # Plain descent at rate 1: what the parameters change by is the gradient.
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    generator = torch.Generator().manual_seed(0)
    return model, optimizer, torch.randint(CONFIG.vocab_size, (2, 14), generator=generator)


def parameters(model: torch.nn.Module) -> npt.NDArray[Any]:
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def step(rank: Rank, kind: str, order: str) -> tuple[float, npt.NDArray[Any]]:
    """Loss of one step, and the parameters after it."""
    model, optimizer, tokens = start(kind)
    loss = training_step(model, optimizer, tokens, group=rank.group, order=order)
    return loss, parameters(model)


def partly_used(rank: Rank) -> list[list[float]]:
    """Gradients of two parameters after the sum, of which each rank used one."""
    used = [torch.ones(2, requires_grad=True) for _ in range(2)]
    (used[rank.index] * torch.arange(2.0)).sum().backward()
    frozen = torch.ones(1)
    sum_gradients([*used, frozen], rank.group)
    assert frozen.grad is None
    return [x.grad.tolist() for x in used if x.grad is not None]


@pytest.mark.gloo
@pytest.mark.timeout(120)
def test_a_step_on_a_ring_is_the_step_on_one_device(tmp_path: Path) -> None:
    with RankPool(3, (1, 2, 3), tmp_path) as pool:
        pool.start()
        for kind, cases in RUNS.items():
            model, optimizer, tokens = start(kind)
            inputs, targets = next_token_pairs(tokens)
            loss = next_token_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            expected, after = float(loss.detach()), parameters(model)
            for ring_size, order in cases:
                ranks = pool.run(step, ring_size, kind, order)
                for rank_loss, found in ranks:
                    check("loss", [rank_loss], [expected], [expected], "float64")
                    check("parameters", found, after, after, "float64")
                    # Replicas stay equal to the last bit.
                    assert np.array_equal(found, ranks[0][1])
        assert pool.run(partly_used, 2) == [[[0.0, 1.0], [0.0, 1.0]]] * 2
