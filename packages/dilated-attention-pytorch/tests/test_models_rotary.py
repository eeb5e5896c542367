"""Rotary positions: the formula, distances alone, and positions far beyond float32."""

from __future__ import annotations

import torch

from dilated_attention_oracle import check
from dilated_attention_oracle.precision import EPS
from dilated_attention_oracle.tolerance import C
from dilated_attention_pytorch.models.rotary import Rotation


def test_each_pair_turns_by_its_angle() -> None:
    base, d = 100.0, 6
    positions = torch.tensor([0, 3, 7])
    x = torch.randn(2, 3, 2, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = Rotation.at(positions, d, base, torch.float64)(x)
    for row, p in enumerate(positions.tolist()):
        for j in range(d // 2):
            pair = torch.complex(x[:, row, :, j], x[:, row, :, j + d // 2])
            angle = torch.tensor(p * base ** (-2 * j / d), dtype=torch.float64)
            expected = pair * torch.polar(torch.ones_like(angle), angle)
            for column, want in ((j, expected.real), (j + d // 2, expected.imag)):
                check("rotated", turned[:, row, :, column], want, want, "float64", pair.abs())


def test_neighbours_differ_at_a_billion_tokens() -> None:
    far = 2**30
    positions = torch.tensor([0, 1, far, far + 1])
    rotation = Rotation.at(positions, 8, 10_000.0, torch.float32)
    x = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(1, 4, 1, 8)
    near_0, near_1, far_0, far_1 = rotation(x)[0, :, 0].unbind(0)
    bound = C["float32"] * EPS["float32"] * float(x[0, 0].square().sum())
    assert abs(float(near_0 @ near_1 - far_0 @ far_1)) <= bound
    assert abs(float(near_0 @ near_0 - near_0 @ near_1)) > bound
