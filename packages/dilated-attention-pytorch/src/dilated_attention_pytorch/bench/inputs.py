"""What a case is run on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .cases import Case


@dataclass(frozen=True, slots=True)
class Inputs:
    """query, key, value and the gradient of out, each (1, n, H, d)."""

    query: Tensor
    key: Tensor
    value: Tensor
    dout: Tensor

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """query, key, value as leaves of a graph, over the same memory."""
        query, key, value = (
            x.detach().requires_grad_() for x in (self.query, self.key, self.value)
        )
        return query, key, value

    @property
    def result_bytes(self) -> tuple[int, int]:
        """Bytes of out; of out and the three gradients."""
        gradients = self.query.nbytes + self.key.nbytes + self.value.nbytes
        return self.query.nbytes, self.query.nbytes + gradients


def draw(case: Case, device: torch.device) -> Inputs:
    """Standard normal tensors, the same for the same case, device and PyTorch."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, case.n, case.heads, case.head_dim)
    return Inputs(
        *(
            torch.randn(shape, dtype=case.dtype, device=device, generator=generator)
            for _ in range(4)
        )
    )
