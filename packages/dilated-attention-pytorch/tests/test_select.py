"""Which backend serves a call, on devices that this machine need not have."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from dilated_attention_pytorch import BackendError, DilationPattern
from dilated_attention_pytorch.kernels import gluon, select
from dilated_attention_pytorch.kernels.select import Request
from dilated_attention_pytorch.ring import ops
from dilated_attention_pytorch.schedule import Problem

LADDER = DilationPattern.longnet([256, 512], [1, 2])
HOPPER = Request(Problem(LADDER, 2048, 4, 4), torch.bfloat16, torch.device("cuda"), 64)


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an H100, as far as the choice of a backend can tell."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(select, "_triton_version", lambda: (3, 6))
    monkeypatch.setattr(select, "_has_triton", lambda: True)


def test_the_hopper_kernels_serve_a_ladder() -> None:
    assert select.refusal("gluon", HOPPER) is None


def with_problem(**changes: Any) -> Request:
    return dataclasses.replace(HOPPER, problem=dataclasses.replace(HOPPER.problem, **changes))


# Shards of a ring.
SHORT = dataclasses.replace(HOPPER.problem, n=512)
BROKEN = dataclasses.replace(SHORT, cu_seqlens=(0, 100, 512))
MANY_RATES = DilationPattern.longnet([4096] * 8, [1, 2, 3, 4, 5, 6, 7, 8])
FAR_APART = DilationPattern.longnet([512, 4096, 30000], [3, 5, 7])
SWITCHED = DilationPattern.torchscale([256], [2], phantom_keys=True)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (dataclasses.replace(HOPPER, device=torch.device("cpu")), "CUDA device"),
        (dataclasses.replace(HOPPER, dtype=torch.float32), "float16 and bfloat16"),
        (dataclasses.replace(HOPPER, head_dim=136), "up to 128"),
        (dataclasses.replace(HOPPER, head_dim=36), "divisible by 8"),
        (dataclasses.replace(HOPPER, key_mask=True), "key mask"),
        (dataclasses.replace(HOPPER, dropout=True), "dropout"),
        (dataclasses.replace(HOPPER, ring=True), "sequence of their own"),
        (dataclasses.replace(HOPPER, ring=True, own=(SHORT, BROKEN)), "50 rows of one residue"),
        (dataclasses.replace(HOPPER, ring_bits=True), "where a ring is cut"),
        (with_problem(pattern=SWITCHED), "phantom keys"),
        (with_problem(pattern=DilationPattern.longnet([255], [2])), "127 rows of one residue"),
        (with_problem(cu_seqlens=(0, 100, 2048)), "50 rows of one residue"),
        (with_problem(pattern=MANY_RATES, n=2051), "views of the tensors"),
        (with_problem(pattern=FAR_APART, n=30000), "too far apart"),
    ],
)
def test_why_the_hopper_kernels_do_not_serve(request_: Request, reason: str) -> None:
    assert reason in (select.refusal("gluon", request_) or "")
    with pytest.raises(BackendError, match=reason):
        select.select("gluon", request_)


@pytest.mark.parametrize("capability", [(8, 0), (9, 1), (10, 0)])
def test_other_gpus_are_refused(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert "compute capability 9.0" in (select.refusal("gluon", HOPPER) or "")


def test_another_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_triton_version", lambda: (3, 7))
    assert "triton 3.6" in (select.refusal("gluon", HOPPER) or "")


def test_a_kernel_that_did_not_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gluon, "failures", ["its kernels did not compile here: a planted reason"])
    assert select.refusal("gluon", HOPPER) == gluon.failures[0]


def test_whole_kernels_take_own_rows_in_a_ring_if_they_may() -> None:
    ring = dataclasses.replace(HOPPER, device=torch.device("cpu"), ring=True, own=(SHORT,))
    assert select.select("sdpa", ring).whole is not None
    # The masks of dropout count in global positions.
    assert select._alone(ring)
    assert not select._alone(dataclasses.replace(ring, dropout=True))
    many = dataclasses.replace(SHORT, cu_seqlens=(0, *range(1, 513)))
    assert not select._alone(dataclasses.replace(ring, own=()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "_MOST_CELLS", 100)
        assert not select._alone(dataclasses.replace(ring, own=(SHORT, many)))


def test_auto_takes_the_first_that_serves() -> None:
    serving = [x for x in select.backend_names() if select.passed_over(x, HOPPER) is None]
    assert serving == ["gluon", "triton", "sdpa", "eager"]
    masked = dataclasses.replace(HOPPER, key_mask=True)
    assert select.passed_over("gluon", masked) is not None
    assert select.passed_over("triton", masked) is None


def test_rings_take_the_kernels_of_one_device() -> None:
    ring = dataclasses.replace(HOPPER, ring=True, own=(SHORT,))
    assert select.passed_over("gluon", ring) is None
    shifted = dataclasses.replace(ring, own=())
    assert "sequence of their own" in (select.passed_over("gluon", shifted) or "")
    assert select.passed_over("triton", shifted) is None


def test_tiles_that_would_be_nearly_empty_go_to_librarys_kernels() -> None:
    far = with_problem(pattern=FAR_APART, n=30000)
    assert select.refusal("triton", far) is None
    assert "room for 13.3 times" in (select.passed_over("triton", far) or "")
    assert select.passed_over("sdpa", far) is None
    assert select.passed_over("triton", dataclasses.replace(far, dtype=torch.float32)) is None


def test_a_period_that_nobody_can_list_goes_to_librarys_kernels_or_to_eager() -> None:
    endless = with_problem(pattern=DilationPattern.longnet([1000] * 4, [97, 89, 83, 79]))
    assert "repeat after 56606581 rows" in (select.refusal("triton", endless) or "")
    assert select.refusal("gluon", endless) is not None
    for dtype, name in ((torch.bfloat16, "sdpa"), (torch.float32, "eager")):
        asked = dataclasses.replace(endless, dtype=dtype)
        serving = (x for x in select.backend_names() if select.passed_over(x, asked) is None)
        assert next(serving) == name


def _text(backend: str) -> str:
    """A call's options as its op takes them."""
    pattern = DilationPattern.longnet([64], [1])
    return ops.describe(
        pattern,
        2,
        is_causal=False,
        cu_seqlens=None,
        backend=backend,
        deterministic=False,
        ring_bits=False,
    )


def test_a_kernel_that_fails_is_passed_over_by_the_next_like_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gluon, "failures", [])
    failing = select.Entry(
        lambda request: gluon.failures[0] if gluon.failures else None,
        select._BACKENDS["sdpa"].load,
    )
    registry = {"failing": failing, "eager": select._BACKENDS["eager"]}
    monkeypatch.setattr(select, "_BACKENDS", registry)
    tensor = torch.zeros(1, 64, 2, 8)
    # What is kept of a call with this scale is of this test alone.
    given = (tensor, tensor, None, None, 0.123456, 0.0, _text("auto"))
    call = ops._call(*given)
    assert call.whole is not None
    assert ops._call(*given) is call
    gluon.failures.append("a planted reason")
    assert ops._call(*given).whole is None


def test_mask_and_seed_are_those_of_the_call() -> None:
    tensor = torch.zeros(1, 64, 2, 8)
    masks = (None, *(torch.zeros(1, 64, dtype=torch.bool) for _ in range(2)))
    seeds = (None, *(torch.tensor(i) for i in range(2)))
    for mask, seed in itertools.product(masks, seeds):
        call = ops._call(tensor, tensor, mask, seed, 1.0, 0.1, _text("eager"))
        assert call.key_mask is mask
        assert call.options.seed is seed
