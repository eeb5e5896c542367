"""The benchmark's definition of a row, its samples, and the faults that its check refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import Pattern, tolerance
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.results import Result
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.bench import backends, verify
from dilated_attention_pytorch.bench.cases import Case
from dilated_attention_pytorch.bench.definition import key_row, query_rows
from dilated_attention_pytorch.bench.inputs import Inputs, draw
from dilated_attention_pytorch.bench.peers.views import views

CPU = torch.device("cpu")
PATTERNS = {
    "ladder": DilationPattern.longnet([16, 32, 64], [1, 2, 4]),
    "ragged": DilationPattern.torchscale([9, 21, 100], [1, 2, 3]),
    "uncovered": DilationPattern.head_groups([12, 40], [3, 2]),
}


def case(
    name: str, n: int = 64, *, is_causal: bool = False, dtype: torch.dtype = torch.float64
) -> Case:
    return Case(
        name=name,
        group="cpu",
        pattern=PATTERNS[name],
        n=n,
        heads=4,
        head_dim=8,
        dtype=dtype,
        is_causal=is_causal,
    )


def by_definition(one: Case, inputs: Inputs) -> Result:
    """Every row of every head."""
    at = np.arange(one.n)
    columns: dict[str, list[Tensor]] = {name: [] for name in ("out", "lse", "dq", "dk", "dv")}
    for head in range(one.heads):
        rows = query_rows(one, inputs, head, at, torch.float64)
        keys = [key_row(one, inputs, head, p, torch.float64) for p in range(one.n)]
        dk, dv = (torch.stack(x) for x in zip(*keys, strict=True))
        for name, value in zip(columns, (rows.out, rows.lse, rows.dquery, dk, dv), strict=True):
            columns[name].append(value)
    return Result(*(torch.stack(x, 1)[None].numpy() for x in columns.values()))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
def test_the_definition_is_the_oracles(name: str, is_causal: bool) -> None:
    one = case(name, 45, is_causal=is_causal)
    inputs = draw(one, CPU)
    arrays = [x.numpy() for x in (inputs.query, inputs.key, inputs.value)]
    branches = tuple((b.segment_length, b.dilation_rate) for b in one.pattern.branches)
    options: dict[str, Any] = {"dout": inputs.dout.numpy(), "is_causal": is_causal}
    pattern = Pattern(branches, one.pattern.rule)
    tolerance.check_result(
        by_definition(one, inputs),
        reference(*arrays, pattern, **options),
        naive(*arrays, pattern, **options),
        "float64",
    )


@pytest.mark.parametrize("name", PATTERNS)
def test_every_branch_selects_sampled_rows(name: str) -> None:
    one = case(name, 45)
    places = verify.sample_places(one)
    positions = {p for p, _ in places}
    assert {0, 44} <= positions
    for branch, offsets in zip(one.pattern.branches, one.pattern.offsets(4), strict=True):
        w, r = branch.segment_length, branch.dilation_rate
        assert any(offsets[h] is not None and p % w % r == offsets[h] for p, h in places)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_causal", [False, True])
def test_right_results_pass(dtype: torch.dtype, is_causal: bool) -> None:
    one = case("ragged", 50, is_causal=is_causal, dtype=dtype)
    inputs = draw(one, CPU)
    values = backends.backend("eager", one, inputs, asked=True).values
    assert values is not None
    shares = verify.verify(one, verify.sample(one, inputs), values(), tolerance)
    assert set(shares) == {"out", "lse", "dq", "dk", "dv"}
    assert all(0 <= share <= 1 for share in shares.values())


def swap_heads(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**values, "out": values["out"].roll(1, 2)}


def base_two(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**values, "lse": values["lse"] / np.log(2)}


def one_nan(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In a row that is not sampled."""
    dk = values["dk"].clone()
    dk[0, 1, 0, 0] = torch.nan
    return {**values, "dk": dk}


def unsummed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**values, "dv": values["dv"] * 0.97}


@pytest.mark.parametrize(
    ("fault", "words"),
    [(swap_heads, "out"), (base_two, "lse"), (one_nan, "dk: not every"), (unsummed, "dv")],
)
def test_wrong_results_are_refused(
    fault: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], words: str
) -> None:
    one = case("ladder", dtype=torch.bfloat16)
    inputs = draw(one, CPU)
    samples = verify.sample(one, inputs)
    assert (1, 0) not in samples.places
    values = backends.backend("eager", one, inputs, asked=True).values
    assert values is not None
    with pytest.raises(verify.WrongResultError, match=words):
        verify.verify(one, samples, fault(values()), tolerance)


@pytest.mark.parametrize("branch", range(3))
def test_a_lost_branch_is_refused(branch: int) -> None:
    one = case("ladder", dtype=torch.bfloat16)
    inputs = draw(one, CPU)
    kept = [b for i, b in enumerate(one.pattern.branches) if i != branch]
    table = [row for i, row in enumerate(one.pattern.offsets(4)) if i != branch]
    less = Case(
        **{name: getattr(one, name) for name in one.__slots__}
        | {"pattern": DilationPattern.from_branches(kept, table)}
    )
    values = backends.backend("eager", less, inputs, asked=True).values
    assert values is not None
    with pytest.raises(verify.WrongResultError):
        verify.verify(one, verify.sample(one, inputs), values(), tolerance)


@pytest.mark.parametrize("n", [64, 45])
@pytest.mark.parametrize("name", ["ladder", "ragged"])
def test_the_views_of_a_pattern_hold_each_row_of_each_branch_once(name: str, n: int) -> None:
    one = case(name, n)
    counts = torch.zeros(1, n, 4, dtype=torch.int64)
    groups: list[set[int]] = []
    for view in views(one):
        rows = view.of(torch.arange(n * 4).view(1, n, 4))
        view.of(counts).add_(1)
        groups += [set(x.tolist()) for x in rows.flatten(0, 1)]
    expected = torch.zeros_like(counts)
    sets = []
    for branch, offsets in zip(one.pattern.branches, one.pattern.offsets(4), strict=True):
        for head, offset in enumerate(offsets):
            assert offset is not None
            for start in range(0, n, branch.segment_length):
                end = min(start + branch.segment_length, n)
                selected = range(start + offset, end, branch.dilation_rate)
                expected[0, list(selected), head] += 1
                sets.append({p * 4 + head for p in selected})
    assert torch.equal(counts, expected)
    # Each (segment, head) of a view is one set of rows that attend to each other.
    assert sorted(map(sorted, groups)) == sorted(sorted(x) for x in sets if x)
