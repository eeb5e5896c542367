"""The records of several processes become one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.gpu_record import ROOT


@pytest.fixture(scope="module")
def check_gpu() -> ModuleType:
    path = Path(ROOT) / "tools/check_gpu.py"
    spec = importlib.util.spec_from_file_location("check_gpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(name: str, dtype: str, shares: dict[str, float], **changes: str) -> dict[str, Any]:
    entry = {"hash": "1", "largest_share_of_budget": {dtype: shares}} | changes
    return {"environment": {"device": "a"}, "backends": {name: entry}}


def test_the_largest_share_of_each_is_kept(check_gpu: ModuleType) -> None:
    merged = check_gpu.merge(
        [
            record("triton", "float16", {"forward": 0.25, "backward": 0.5}),
            record("triton", "float16", {"forward": 0.75}),
            record("gluon", "bfloat16", {"forward": 0.125}),
        ]
    )
    shares = {k: x["largest_share_of_budget"] for k, x in merged["backends"].items()}
    assert shares == {
        "triton": {"float16": {"forward": 0.75, "backward": 0.5}},
        "gluon": {"bfloat16": {"forward": 0.125}},
    }


def test_records_of_different_kernels_are_not_merged(check_gpu: ModuleType) -> None:
    one = record("triton", "float16", {"forward": 0.25})
    with pytest.raises(ValueError, match="versions of triton"):
        check_gpu.merge([one, record("triton", "float16", {"forward": 0.25}, hash="2")])
    with pytest.raises(ValueError, match="machines"):
        check_gpu.merge([one, one | {"environment": {"device": "b"}}])


def test_no_test_is_left_out(check_gpu: ModuleType) -> None:
    names = [str(i) for i in range(25)]
    pieces = check_gpu.cut(names, 8)
    assert [name for piece in pieces for name in piece] == names
    assert max(map(len, pieces)) == 4


def test_a_test_that_failed_is_named(check_gpu: ModuleType) -> None:
    output = "1 passed\nFAILED tests/a.py::b[c] - assert 1 == 2\nERROR tests/d.py\n"
    assert check_gpu.failed(output) == ["tests/a.py::b[c]", "tests/d.py"]
