"""The `sdpa` backend on a CPU: its plan, its numbers, what it runs and what it refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import Pattern as OraclePattern
from dilated_attention_oracle import Result, round_to
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.precision import DTYPES, lse_dtype
from dilated_attention_oracle.tolerance import check_result
from dilated_attention_pytorch import Branch, DilationPattern, dilated_attention, explain
from dilated_attention_pytorch.errors import BackendError
from dilated_attention_pytorch.kernels import select
from dilated_attention_pytorch.kernels.sdpa import launch, plan
from dilated_attention_pytorch.kernels.sdpa.views import rows_of, view
from dilated_attention_pytorch.schedule import Problem

Arrays = list[np.ndarray[Any, Any]]
# Six heads in a row, of which key/value head 0 serves one, 1 three and 2 two.
MIDDLE_HEADS = ((None, None, 0, 0, 0, 0, 0, 0, None),)
SOME_HEADS = ((0, None, 1, 0), (1, 0, None, 1))
# Shape (b, n, heads, key/value heads, d), pattern, options.
SHAPES: dict[str, tuple[tuple[int, int, int, int, int], OraclePattern, dict[str, Any]]] = {
    "nested": ((1, 64, 4, 4, 24), OraclePattern(((16, 1), (32, 2), (64, 4))), {}),
    "causal": ((1, 64, 4, 4, 8), OraclePattern(((16, 1), (32, 2))), {"is_causal": True}),
    "ragged": ((1, 59, 4, 4, 48), OraclePattern(((16, 1), (24, 2), (99, 4))), {}),
    "uneven": ((1, 61, 6, 6, 3), OraclePattern(((10, 3), (25, 7))), {"is_causal": True}),
    "wide": ((1, 40, 2, 2, 96), OraclePattern(((40, 2), (7, 1))), {"scale": 0.3}),
    "widest": ((1, 20, 1, 1, 256), OraclePattern(((8, 1),)), {}),
    "one_row": ((1, 33, 4, 4, 5), OraclePattern(((4, 4), (3, 8))), {}),
    "nothing": ((1, 9, 3, 3, 2), OraclePattern(((1, 3),), "table", ((1, 2, 2),)), {}),
    "one_token": ((2, 1, 2, 1, 1), OraclePattern(((5, 1),)), {}),
    "grouped": ((1, 50, 8, 2, 4), OraclePattern(((16, 1), (24, 2), (50, 4))), {}),
    "grouped_r": ((1, 50, 6, 2, 4), OraclePattern(((16, 3), (50, 6))), {"is_causal": True}),
    "batch": ((3, 48, 4, 2, 4), OraclePattern(((16, 1), (24, 2))), {}),
    "batch_ragged": ((3, 50, 4, 4, 4), OraclePattern(((16, 1), (50, 4))), {}),
    "documents": ((1, 61, 4, 4, 4), OraclePattern(((16, 2),)), {"cu_seqlens": [0, 7, 7, 40, 61]}),
    "torchscale": ((1, 60, 5, 5, 4), OraclePattern(((16, 2), (48, 4)), "torchscale"), {}),
    "groups": ((1, 60, 5, 5, 4), OraclePattern(((16, 2), (48, 4)), "head_groups"), {}),
    "middle": ((1, 20, 9, 3, 2), OraclePattern(((8, 1),), "table", MIDDLE_HEADS), {}),
    "table": ((1, 40, 4, 2, 4), OraclePattern(((16, 2), (40, 2)), "table", SOME_HEADS), {}),
}


def library_pattern(pattern: OraclePattern) -> DilationPattern:
    if pattern.rule == "table":
        branches = [Branch(w, r) for w, r in pattern.branches]
        return DilationPattern.from_branches(branches, pattern.table)
    lengths, rates = zip(*pattern.branches, strict=True)
    return getattr(DilationPattern, pattern.rule)(lengths, rates)  # type: ignore[no-any-return]


def arrays(
    shape: tuple[int, int, int, int, int], dtype: str
) -> tuple[Arrays, np.ndarray[Any, Any]]:
    b, n, heads, kv_heads, d = shape
    rng = np.random.default_rng(list(shape))
    found = [rng.standard_normal((b, n, h, d)) for h in (heads, kv_heads, kv_heads, heads)]
    dlse = round_to(rng.standard_normal((b, n, heads)), lse_dtype(dtype))
    return [round_to(x, dtype) for x in found], dlse


def attend(
    inputs: list[Tensor],
    pattern: DilationPattern,
    dout: Tensor,
    dlse: Tensor | None,
    **options: Any,
) -> Result:
    out, lse = dilated_attention(*inputs, pattern, backend="sdpa", return_lse=True, **options)
    targets = [out] if dlse is None else [out, lse]
    directions = [dout] if dlse is None else [dout, dlse]
    gradients = torch.autograd.grad(targets, inputs, directions)
    found = (x.detach().double().numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


def equals_the_oracle(name: str, dtype: str, *, with_dlse: bool = False) -> None:
    shape, pattern, options = SHAPES[name]
    (query, key, value, dout), dlse = arrays(shape, dtype)
    gradients = {"dout": dout} | ({"dlse": dlse} if with_dlse else {})
    exact = reference(query, key, value, pattern, dtype, **gradients, **options)
    plain = naive(query, key, value, pattern, dtype, **gradients, **options)
    kind = getattr(torch, dtype)
    inputs = [torch.tensor(x, dtype=kind, requires_grad=True) for x in (query, key, value)]
    wide = torch.tensor(dlse, dtype=getattr(torch, lse_dtype(dtype)))
    found = attend(
        inputs,
        library_pattern(pattern),
        torch.tensor(dout, dtype=kind),
        wide if with_dlse else None,
        **options,
    )
    check_result(found, exact, plain, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_oracle(name: str, dtype: str) -> None:
    equals_the_oracle(name, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["ragged", "grouped_r", "batch", "one_token"])
def test_the_gradient_of_lse(name: str, dtype: str) -> None:
    equals_the_oracle(name, dtype, with_dlse=True)


def test_two_columns_carry_the_gradient_of_lse() -> None:
    """16 bits have 8 or more digits each, and these numbers have 14."""
    dlse = 1 + torch.arange(1 << 13).view(1, -1, 2) / (1 << 13)
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.empty(1, dlse.shape[1], 2, 4, dtype=dtype)
        dout, out, value = launch._lse_term(dlse, x, x)
        assert torch.equal((dout.float() * value.float()).sum(-1), dlse)
        assert not out.any()


@pytest.mark.parametrize("name", ["nested", "causal", "grouped", "batch", "documents"])
def test_pieces_are_problems_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (b, n, heads, kv_heads, d), pattern, options = SHAPES[name]
    bounds = options.get("cu_seqlens")
    problem = Problem(
        library_pattern(pattern),
        n,
        heads,
        kv_heads,
        cu_seqlens=None if bounds is None else tuple(bounds),
    )
    whole = plan.pieces(problem, b, heads * d, "cpu", folds=True)
    monkeypatch.setitem(plan.PIECE_ELEMENTS, "cpu", 1)
    cut = plan.pieces(problem, b, heads * d, "cpu", folds=True)
    unit = plan.cut_unit(problem)
    documents = np.diff(bounds) if bounds is not None else np.array([n])
    assert len(cut) == b * sum(-(-int(length) // unit) for length in documents)
    assert len(cut) > len(whole) or unit >= n
    equals_the_oracle(name, "float64", with_dlse=True)


@pytest.mark.parametrize("layout", ["packed", "heads_first", "expanded", "strided_features"])
@pytest.mark.parametrize("name", ["nested", "batch", "batch_ragged"])
def test_any_strides(name: str, layout: str) -> None:
    shape, pattern, _ = SHAPES[name]
    (query, key, value, dout), _ = arrays(shape, "float64")
    tensors = [torch.tensor(x) for x in (query, key, value, dout)]
    if layout == "expanded":
        tensors = [x[:1, :, :1].expand_as(x) for x in tensors]

    def laid(x: Tensor) -> Tensor:
        if layout == "packed":
            return torch.cat([x, x.new_full(x.shape, torch.nan)], 2)[:, :, : x.shape[2]]
        if layout == "heads_first":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == "strided_features":
            return torch.stack([x, x], -1)[..., 0]
        return x

    results = [
        attend(
            [arrange(x).detach().requires_grad_() for x in tensors[:3]],
            library_pattern(pattern),
            arrange(tensors[3]),
            None,
        )
        for arrange in (torch.clone, laid)
    ]
    for expected, found in zip(results[0][:5], results[1][:5], strict=True):
        np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", [x for x in SHAPES if x != "documents"])
def test_calls_meet_every_selected_row_once(name: str, grouped: bool) -> None:
    (b, n, heads, kv_heads, _), pattern, _ = SHAPES[name]
    problem = Problem(library_pattern(pattern), n, heads, kv_heads)
    places = torch.arange(b * n * heads).view(b, n, heads)
    key_places = torch.arange(b * n * kv_heads).view(b, n, kv_heads)
    met: Counter[tuple[int, ...]] = Counter()
    for piece in plan.pieces(problem, b, heads, "cpu", folds=True):
        batch = piece.last - piece.first
        for call in plan.calls(problem, n, single=batch == 1, grouped=grouped):
            rows = view(rows_of(places, piece), call)
            keys = view(rows_of(key_places, piece), call, key=True)
            assert rows.untyped_storage().data_ptr() == places.untyped_storage().data_ptr()
            repeats = rows.shape[1] // keys.shape[1]
            assert grouped or repeats == 1
            keys = keys.repeat_interleave(repeats, 1)
            position = rows // heads % n
            assert torch.equal(position, keys // kv_heads % n)
            assert torch.equal(rows // heads // n, keys // kv_heads // n)
            assert torch.equal(rows % heads // (heads // kv_heads), keys % kv_heads)
            w = problem.pattern.branches[call.branch].segment_length
            # All rows of one (segment, head) attend to one another: one segment, none missing.
            assert (position // w == position[..., :1] // w).all()
            met.update((call.branch, int(place)) for place in rows.reshape(-1))
    expected = Counter(
        (i, (entry * n + p) * heads + h)
        for i, branch in enumerate(problem.pattern.branches)
        for h, offset in enumerate(problem.offsets[i])
        for p in range(n)
        if offset is not None and p % branch.segment_length % branch.dilation_rate == offset
        for entry in range(b)
    )
    assert met == expected


LADDER = DilationPattern.longnet([2048 << i for i in range(5)], [1 << i for i in range(5)])


@pytest.mark.parametrize(
    ("pattern", "n", "count"),
    [
        # 1 + 2 + 4 + 8 offsets, and 16 that share a call since each has one head.
        (LADDER, 1 << 17, 16),
        # The offsets of a branch with one segment share a call: they are its batch.
        (LADDER, 1 << 14, 1 + 2 + 4 + 1 + 1),
        (DilationPattern.preset("gigapath", exact=True), 45_681, 2 + 4 + 3 + 2 + 2),
    ],
)
def test_offsets_share_calls(pattern: DilationPattern, n: int, count: int) -> None:
    problem = Problem(pattern, n, 16, 16)
    assert len(plan.calls(problem, n, single=True, grouped=True)) == count


FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"
MOVING = ("copy", "clone", "contiguous", "gather", "index", "take", "cat", "scatter")


def _outside_the_library(profile: torch.profiler.profile) -> set[str]:
    """Operators that ran, less what the library's own kernels call."""
    found = set()
    for event in profile.events():
        parent = event.cpu_parent
        while parent is not None and not parent.name.startswith(FLASH):
            parent = parent.cpu_parent
        if parent is None and event.name.startswith("aten::"):
            found.add(event.name)
    return found


@pytest.mark.parametrize("heads", [4, 2])
def test_forward_and_backward_run_the_flash_kernel_and_copy_nothing(heads: int) -> None:
    inputs = [torch.randn(2, 60, h, 8, requires_grad=True) for h in (4, heads, heads)]
    dout = torch.randn(2, 60, 4, 8)
    pattern = DilationPattern.longnet([16, 20, 99], [1, 2, 4])
    with torch.profiler.profile(acc_events=True) as profile:
        out = dilated_attention(*inputs, pattern, backend="sdpa")
        torch.autograd.grad(out, inputs, dout)
    found = _outside_the_library(profile)
    assert {FLASH, f"{FLASH}_backward"} <= found
    assert not [name for name in found if any(word in name for word in MOVING)]


def _request(**changes: Any) -> select.Request:
    fields: dict[str, Any] = {
        "problem": Problem(LADDER, 4096, 4, 4),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda"),
        "head_dim": 64,
    }
    return select.Request(**fields | changes)


SWITCHED = DilationPattern.torchscale([16], [2], phantom_keys=True)
SPLIT = DilationPattern.longnet([16, 1 << 20], [1, 16])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ring": True}, "sequence of their own"),
        ({"problem": Problem(SWITCHED, 40, 4, 4)}, "no phantom keys"),
        ({"dropout": True}, "dropout mask of their own"),
        ({"key_mask": True}, "no key mask"),
        ({"deterministic": True}, "not those of a ring"),
    ],
)
def test_refuses(
    changes: dict[str, Any], words: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "_has_triton", lambda: True)
    here = torch.device(device)
    assert select.refusal("sdpa", _request(device=here)) is None
    assert words in str(select.refusal("sdpa", _request(device=here, **changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": torch.float32}, "float16 and bfloat16, not torch.float32"),
        ({"head_dim": 60}, "divisible by 8, not 60"),
        ({"problem": Problem(SPLIT, 1 << 21, 4, 4)}, "65536 segments of 16 rows"),
        ({"device": torch.device("meta")}, "CPU and CUDA"),
    ],
)
def test_refuses_on_cuda(
    changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "_has_triton", lambda: True)
    assert words in str(select.refusal("sdpa", _request(**changes)))


def test_needs_triton_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_has_triton", lambda: False)
    assert "triton" in str(select.refusal("sdpa", _request()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout_p": 0.5, "seed": 1}, "dropout mask"),
        ({"key_mask": torch.ones(1, 8, dtype=torch.bool)}, "key mask"),
        ({"deterministic": True}, "bits"),
    ],
)
def test_a_call_by_name_serves_or_raises(options: dict[str, Any], words: str) -> None:
    x = torch.randn(1, 8, 2, 4)
    pattern = DilationPattern.longnet([4], [1])
    with pytest.raises(BackendError, match=f"'sdpa' cannot serve this call.*{words}"):
        dilated_attention(x, x, x, pattern, backend="sdpa", **options)
    # `auto` takes another backend.
    dilated_attention(x, x, x, pattern, **options)


def test_auto_takes_it_on_a_cpu_and_says_so() -> None:
    text = explain(LADDER, 4096, num_heads=4, head_dim=64)
    assert "backend    sdpa: the first that serves this call" in text
    ring = explain(LADDER, 4096, num_heads=4, head_dim=64, ring_size=2)
    assert "not sdpa: in a ring on a CPU it is no faster than eager" in ring
