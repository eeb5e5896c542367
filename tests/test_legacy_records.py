"""The snippets of the records run: the old one warns, the new one does not, and they differ."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import dilated_attention_compat as compat
from dilated_attention_compat import Fate, Kind, Ran
from support.legacy_cases import CASES, forward, quiet, with_forward

SERVED = [record for record in compat.RECORDS if record.fate is Fate.COMPAT]
SILENT = {"PatternType", "DistributedSparsePattern"}
"""Enumerations: a member is not made where it is used."""
COMPARED = [record for record in SERVED if record.relative_error is not None]
WITH_PARAMETERS = [
    name for name in with_forward() if any(True for _ in quiet(name).parameters())
]  # fmt: skip


def run(snippet: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "snippet.py", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("record", SERVED, ids=lambda record: record.name)
def test_the_old_snippet_warns_once_at_its_own_line(record: compat.LegacyRecord) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if record.ran is Ran.NOTHING:
            with pytest.raises(RuntimeError, match="could never be constructed"):
                run(record.before)
        else:
            run(record.before)
    if record.name in SILENT:
        assert not seen
        return
    (warning,) = seen
    assert warning.category is compat.RingAttentionDeprecationWarning
    lines = record.before.splitlines()
    assert warning.filename == "snippet.py"
    assert "= " in lines[warning.lineno - 1]


@pytest.mark.parametrize("record", SERVED, ids=lambda record: record.name)
def test_the_new_snippet_is_silent(record: compat.LegacyRecord) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(record.after)


@pytest.mark.filterwarnings(
    "ignore::dilated_attention_compat.RingAttentionDeprecationWarning",
    "ignore::RuntimeWarning",
    "ignore:.*was saved with no version:FutureWarning",
)
@pytest.mark.parametrize("record", COMPARED, ids=lambda record: record.name)
def test_where_a_record_says_that_numbers_change_they_do(record: compat.LegacyRecord) -> None:
    """How much is measured against the right result of the same pattern, in the compat's tests."""
    assert record.result_change
    torch.manual_seed(0)
    old, new = (run(snippet)["attention"].cpu().eval() for snippet in (record.before, record.after))
    shared = {k.removeprefix("_impl."): v for k, v in old.state_dict().items()}
    new.load_state_dict(shared, strict=False)
    wide = record.name in ("create_block_sparse_attention",) or "Multihead" in record.name
    # Blocks of 128 and more than one of them; d = 16 where the first unfold class can run.
    n = 256 if "lock" in record.name else 64
    x = torch.randn((1, n, 48) if wide else (1, n, 3, 16))
    with torch.no_grad():
        outs = [module(x, x, x) for module in (old, new)]
    was, now = (out[0] if isinstance(out, tuple) else out for out in outs)
    assert was.shape == now.shape
    assert not torch.allclose(was, now, equal_nan=True)


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.gloo
@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_wrapping_for_data_parallel_training_is_silent(name: str) -> None:
    module = quiet(name)
    # k_ln takes no part in the fused layers.
    module = DistributedDataParallel(module, find_unused_parameters=True)
    with pytest.warns(RuntimeWarning, match=name) as seen:
        forward(module, name).sum().backward()
    assert len(seen) == 1


def fresh_output(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    module = quiet(name).eval()
    with pytest.warns(RuntimeWarning):
        return module, forward(module, name)


@pytest.mark.gloo
@pytest.mark.parametrize("name", with_forward())
def test_a_process_group_changes_no_number(name: str, request: pytest.FixtureRequest) -> None:
    _, alone = fresh_output(name)
    request.getfixturevalue("one_rank")
    module, grouped = fresh_output(name)
    torch.testing.assert_close(grouped, alone, rtol=0, atol=0)
    assert getattr(module, "world_size", 1) == 1


def test_kinds_of_all_served_names() -> None:
    assert {record.kind for record in SERVED} == {Kind.CLASS, Kind.FUNCTION}
    assert {record.name for record in SERVED} <= set(CASES)
