"""xPos: the formula, history's buffer, distances alone, and the range of a dtype."""

from __future__ import annotations

import pytest
import torch

from dilated_attention_oracle import check
from dilated_attention_pytorch.models import XPos
from dilated_attention_pytorch.models.xpos import PositionEmbedding

D, BASE, SCALE_BASE = 6, 100.0, 8.0
ZETA = (torch.arange(0, D, 2, dtype=torch.float64) / D + 0.4) / 1.4


def draw(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, n, 2, D, dtype=torch.float64, generator=generator)


def test_queries_shrink_keys_grow_and_pairs_turn() -> None:
    positions, x = torch.tensor([0, 3, 7]), draw(3)
    xpos = XPos.at(positions, ZETA, BASE, SCALE_BASE, torch.float64)
    for row, p in enumerate(positions.tolist()):
        for j in range(D // 2):
            pair = torch.complex(x[:, row, :, j], x[:, row, :, j + D // 2])
            angle = torch.tensor(p * BASE ** (-2 * j / D), dtype=torch.float64)
            for factors, power in ((xpos.query, 1), (xpos.key, -1)):
                zeta = float(ZETA[j]) ** (power * p / SCALE_BASE)
                expected = zeta * pair * torch.polar(torch.ones_like(angle), angle)
                found = factors(x)[:, row]
                for column, want in ((j, expected.real), (j + D // 2, expected.imag)):
                    check("xpos", found[..., column], want, want, "float64", zeta * pair.abs())


def test_products_depend_on_the_distance_and_decay_with_it() -> None:
    x = draw(1).expand(2, 40, 2, D)

    def product(query_at: int, key_at: int) -> torch.Tensor:
        at = XPos.at(torch.tensor([query_at, key_at]), ZETA, BASE, SCALE_BASE, torch.float64)
        return (at.query(x[:, :2])[:, 0] * at.key(x[:, :2])[:, 1]).sum(-1)

    for shift in (1, 20):
        want = product(5, 2)
        terms = x[:, 0].square().sum(-1)
        check("product", product(5 + shift, 2 + shift), want, want, "float64", terms)
    assert not torch.allclose(product(5, 2), product(6, 2))
    same = torch.stack([product(p, p) for p in (0, 11)])
    check("no distance", same[1], same[0], same[0], "float64")


def test_the_buffer_is_historys_and_every_hth_is_a_heads_zeta() -> None:
    heads = 4
    embedding = PositionEmbedding("xpos", heads * D, heads, BASE, SCALE_BASE).double()
    width = heads * D
    historical = (torch.arange(0, width, 2) + 0.4 * width) / (1.4 * width)
    check("scale", embedding.scale, historical, historical, "float32")
    found = embedding(torch.arange(5), torch.float64)
    assert isinstance(found, XPos)
    want = XPos.at(torch.arange(5), ZETA, BASE, SCALE_BASE, torch.float64)
    check("growth", found.growth, want.growth, want.growth, "float32")


@pytest.mark.parametrize(
    ("dtype", "served", "refused"),
    [
        (torch.float32, 17_800, 18_000),
        (torch.bfloat16, 17_800, 18_000),
        (torch.float16, 1900, 2100),
    ],
)
def test_positions_beyond_the_range_of_the_dtype_are_refused(
    dtype: torch.dtype, served: int, refused: int
) -> None:
    x = torch.ones(1, 1, 1, D, dtype=dtype)
    xpos = XPos.at(torch.tensor([served]), ZETA, BASE, 512.0, dtype)
    for out in (xpos.query(x), xpos.key(x)):
        assert out.dtype == dtype
        assert bool(out.isfinite().all())
        # A pair that is turned to 0 may be so small; a pair as a whole may not.
        assert float(out.abs().amax()) >= torch.finfo(dtype).tiny
    with pytest.raises(ValueError, match=f"xPos at position {refused} .* raise scale_base"):
        XPos.at(torch.tensor([refused]), ZETA, BASE, 512.0, dtype)
    XPos.at(torch.tensor([refused]), ZETA, BASE, 1024.0, dtype)
