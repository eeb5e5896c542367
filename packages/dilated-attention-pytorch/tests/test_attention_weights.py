"""Attention of chosen rows: the oracle's weights, entry by entry, in the memory that is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, check, check_lse
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.adapters.torch_adapter import pattern_factory
from dilated_attention_oracle.counts import counts
from dilated_attention_oracle.inputs import prepare
from dilated_attention_oracle.torchscale import branches, mix
from dilated_attention_pytorch import (
    AttentionWeights,
    Branch,
    DilationPattern,
    attention_weights,
    dilated_attention,
)

N, HEADS, KV, WIDTH = 29, 4, 2, 6
library_pattern = pattern_factory(DilationPattern, Branch)
LADDER = ((6, 1), (11, 2), (40, 3))
TABLE = Pattern(((7, 2), (29, 3)), "table", ((0, None, 1, 1), (2, 0, None, 1)))
# In (3, 4) the last head sees a phantom alone: lse = 0, torchscale's mark of an uncovered row.
TRAINED = Pattern(((6, 1), (7, 2), (3, 4), (10, 4), (64, 8)), "torchscale", None, True, True, True)
CASES: dict[str, tuple[Pattern, dict[str, Any]]] = {
    "longnet": (Pattern(LADDER), {}),
    "causal": (Pattern(LADDER), {"is_causal": True, "scale": 0.7}),
    "head groups": (Pattern(LADDER, "head_groups"), {}),
    "table": (TABLE, {"is_causal": True}),
    "masked": (Pattern(LADDER), {"key_mask": np.arange(2 * N).reshape(2, N) % 3 > 0}),
    "documents": (Pattern(LADDER), {"cu_seqlens": np.array([0, 9, 9, 20, N], dtype=np.int32)}),
    "torchscale": (TRAINED, {}),
    "torchscale causal": (TRAINED, {"is_causal": True}),
    "phantom keys alone": (replace(TRAINED, shift_rows=False), {}),
    "exact torchscale": (
        replace(TRAINED, phantom_keys=False, detach_mix=False, shift_rows=False),
        {"is_causal": True},
    ),
}
ROWS = list(range(N - 1, -1, -1))


def draw(options: dict[str, Any]) -> tuple[Any, ...]:
    rng = np.random.default_rng(3)
    batch = 1 if "cu_seqlens" in options else 2
    return tuple(rng.standard_normal((batch, N, heads, WIDTH)) for heads in (HEADS, KV, KV, HEADS))


def weigh(
    arrays: tuple[Any, ...], pattern: Pattern, rows: Any, options: dict[str, Any]
) -> AttentionWeights:
    query, key = (torch.tensor(x) for x in arrays[:2])
    given = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    return attention_weights(query, key, library_pattern(pattern), rows, **given)


def summed(found: AttentionWeights, value: torch.Tensor) -> torch.Tensor:
    """`P v`, rows in place of n."""
    values = value.repeat_interleave(HEADS // KV, dim=2)
    return torch.einsum("bmhk,bkhd->bmhd", found.dense(), values)


@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_the_oracles(name: str) -> None:
    pattern, options = CASES[name]
    q, k, v, dout = draw(options)
    found = weigh((q, k), pattern, ROWS, options)
    expected = reference(q, k, v, pattern, dout=dout, **options)
    plain = naive(q, k, v, pattern, dout=dout, **options)
    assert expected.terms is not None
    lse, terms = found.lse.numpy(), expected.terms
    check_lse(lse, expected.lse[:, ROWS], plain.lse[:, ROWS], "float64", terms.lse[:, ROWS])
    out = summed(found, torch.tensor(v)).numpy()
    check("out", out, expected.out[:, ROWS], plain.out[:, ROWS], "float64", terms.out[:, ROWS])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0].is_exact])
def test_multiplicities_are_the_oracles(name: str) -> None:
    pattern, options = CASES[name]
    arrays = draw(options)
    inputs = prepare(*arrays[:3], pattern, **options)
    unmasked = {key: value for key, value in options.items() if key != "key_mask"}
    expected = counts(prepare(*arrays[:3], pattern, **unmasked))[0]
    found = weigh(arrays, pattern, ROWS, options)
    assert np.array_equal(found.multiplicity().numpy(), expected.transpose(1, 0, 2)[ROWS])
    hidden = ~inputs.key_mask
    assert (found.dense().movedim(3, 1).numpy()[hidden] == 0).all()
    assert torch.allclose(found.dense().mean(dim=2), found.per_key(), atol=1e-15)
    seeing = found.lse > -torch.inf
    assert torch.allclose(found.dense().sum(-1)[seeing], torch.ones(()).double())
    assert torch.allclose(found.share.sum(-1)[seeing], torch.ones(()).double())


@pytest.mark.parametrize("name", ["torchscale", "torchscale causal"])
def test_shares_of_torchscales_branches_count_their_phantom_keys(name: str) -> None:
    pattern, options = CASES[name]
    arrays = draw(options)
    inputs = prepare(*arrays[:3], pattern, **options)
    found = weigh(arrays, pattern, ROWS, options)
    phantoms = 0.0
    for b, h in np.ndindex(2, HEADS):
        shares, _ = mix(branches(inputs, b, h)[1])
        ours = found.share[b, :, h].numpy()
        plain, want = shares.T[ROWS], shares.T[ROWS]
        check("share", ours, want, plain, "float64", np.ones_like(want))
        phantoms = max(phantoms, float((1 - found.dense()[b, :, h].sum(-1)).max()))
    assert phantoms > 0.01, "phantom keys take a part of the softmax"


def test_a_branch_has_its_share_of_every_row() -> None:
    """The entries of a branch add up to its alpha."""
    found = weigh(draw({}), Pattern(LADDER), ROWS, {})
    b, m, heads, branches_ = found.share.shape
    at = (found.row * heads + found.head) * branches_ + found.branch
    totals = torch.zeros(b, m * heads * branches_, dtype=torch.float64).index_add(
        1, at, found.weight
    )
    assert torch.allclose(totals.view_as(found.share), found.share)
    assert len(found.share.unique()) > 10


def test_only_what_is_seen_is_held() -> None:
    """At n = 2^20 a row of the published ladder sees thousands of keys of a million."""
    n = 1 << 20
    pattern = DilationPattern.preset("gigapath", exact=True)
    query = torch.randn(1, n, 16, 1)
    found = attention_weights(query, query, pattern, [0, 777_777])
    expected = sum(
        len(range(offset, branch.segment_length, branch.dilation_rate))
        for branch, offsets in zip(pattern.branches, pattern.offsets(16), strict=True)
        for offset in offsets
        if offset == 0
    )
    assert int((found.row == 0).sum()) == expected
    assert found.weight.shape[1] < n


def test_rows_may_repeat_and_come_in_any_order() -> None:
    arrays = draw({})
    one = weigh(arrays, Pattern(LADDER), torch.tensor([5]), {}).dense()
    several = weigh(arrays, Pattern(LADDER), [20, 5, 5, 0], {}).dense()
    assert torch.equal(several[:, 1], several[:, 2])
    assert torch.allclose(one[:, 0], several[:, 1], atol=1e-15)
    assert not torch.allclose(several[:, 0], several[:, 3])


def test_gradients_flow_through_the_weights() -> None:
    q, k, v, _ = (torch.tensor(x) for x in draw({}))
    pattern = DilationPattern.longnet([6, 11], [1, 2])
    found = []
    for by_rows in (True, False):
        query, key = q.clone().requires_grad_(), k.clone().requires_grad_()
        if by_rows:
            out = summed(attention_weights(query, key, pattern, [3, 17]), v)
        else:
            out = dilated_attention(query, key, v, pattern)[:, [3, 17]]
        found.append(torch.autograd.grad(out.square().sum(), (query, key)))
    for ours, theirs in zip(*found, strict=True):
        plain = theirs.numpy()
        check("gradient", ours.numpy(), plain, plain, "float64", np.ones_like(plain))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_float32_for_smaller_inputs(dtype: torch.dtype) -> None:
    q, k, _, _ = (torch.tensor(x).to(dtype) for x in draw({}))
    found = attention_weights(q, k, DilationPattern.longnet([6, 11], [1, 2]), [3])
    assert found.weight.dtype == found.lse.dtype == torch.float32
    exact = attention_weights(q.double(), k.double(), DilationPattern.longnet([6, 11], [1, 2]), [3])
    name = "float32"
    want = exact.weight.numpy()
    check("weight", found.weight.numpy(), want, want.astype("float32"), name, np.ones_like(want))


def test_a_row_that_sees_nothing_has_no_weights() -> None:
    q, k, _, _ = (torch.tensor(x) for x in draw({}))
    pattern = DilationPattern.from_branches([Branch(6, 2)], [[0, 0, 0, 0]])
    found = attention_weights(q, k, pattern, [1, 2])
    assert (found.lse[:, 0] == -torch.inf).all()
    assert (found.dense()[:, 0] == 0).all()
    assert (found.share[:, 0] == 0).all()
    nobody = attention_weights(q, k, pattern, [1])
    assert nobody.weight.shape == (2, 0)
    assert (nobody.dense() == 0).all()


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([], ValueError, "at least one position"),
        ([N], ValueError, r"lie in \[0, 29\)"),
        ([-1], ValueError, r"lie in \[0, 29\)"),
        ([0.5], TypeError, "must be an int"),
        (torch.ones(N, dtype=torch.bool), TypeError, r"mask.nonzero\(\)"),
        (torch.zeros(2, 2, dtype=torch.int64), TypeError, "1-d tensor of int64, got 2-d"),
    ],
)
def test_rows_that_are_no_positions_are_refused(
    rows: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        weigh(draw({}), Pattern(LADDER), rows, {})


def test_torchscales_switches_know_no_mask() -> None:
    with pytest.raises(ValueError, match="key_mask cannot be combined with phantom_keys"):
        weigh(draw({}), TRAINED, [0], {"key_mask": np.ones((2, N), dtype=bool)})
