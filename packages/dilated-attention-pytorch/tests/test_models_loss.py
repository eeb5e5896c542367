"""The sharded loss: targets cross shards, shares add up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import check
from dilated_attention_pytorch import shard
from dilated_attention_pytorch.models import next_token_loss, next_token_pairs


def test_a_target_is_the_next_token_even_across_shards() -> None:
    tokens = torch.arange(10).expand(2, 10)
    inputs, targets = next_token_pairs(tokens)
    for rank in range(4):
        own = shard(inputs, ring_size=4, rank=rank), shard(targets, ring_size=4, rank=rank)
        assert torch.equal(own[1], own[0] + 1)


@pytest.mark.parametrize("lengths", [[9], [5, 4], [3, 0, 6], [0, 9]])
def test_shares_and_their_gradients_add_up_to_the_mean(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 9, 7, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.randint(7, (2, 9), generator=generator)
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def share(rank: int) -> Tensor:
        own = [
            shard(x, ring_size=len(lengths), rank=rank, shard_lengths=lengths)
            for x in (logits, targets)
        ]
        return next_token_loss(own[0], own[1], count=targets.numel())

    shares = torch.stack([share(rank) for rank in range(len(lengths))]).sum()
    gradients = [torch.autograd.grad(x, logits)[0] for x in (shares, whole)]
    for name, (got, want) in {"loss": (shares, whole), "gradient": gradients}.items():
        expected = want.detach().numpy()
        check(name, got.detach().numpy(), expected, expected, "float64")


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        next_token_pairs(torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(batch, n \+ 1\)"):
        next_token_pairs(torch.zeros(5, dtype=torch.int64))
    targets = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="same rows"):
        next_token_loss(torch.zeros(1, 5, 3), targets)
    with pytest.raises(ValueError, match="count must be at least 1"):
        next_token_loss(torch.zeros(1, 0, 3), targets[:, :0])
