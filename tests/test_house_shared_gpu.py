"""Every transport over NCCL, two ranks on one GPU: the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import shared_gpu

PATH = Path(__file__).parents[1] / "benchmarks/results/shared_gpu.json"
RINGS: dict[str, Any] = {
    ring["transport"]: ring for ring in json.loads(PATH.read_text(encoding="utf-8"))["rings"]
}


@pytest.mark.parametrize("transport", shared_gpu.TRANSPORTS)
def test_every_case_was_right_repeated_and_made_no_new_buffer(transport: str) -> None:
    wanted = [(x.name, dtype) for x in shared_gpu.cases(1024) for dtype in x.dtypes]
    rows = RINGS[transport]["rows"]
    assert [(row["case"], row["dtype"]) for row in rows] == wanted
    for row in rows:
        assert row["wrong"] == []
        assert set(row["shares"]) == set(shared_gpu.ARRAYS)
        assert max(row["shares"].values()) <= 1
        assert row["repeats"]
        assert row["buffers_made_by_third_step"] == 0


def test_results_do_not_depend_on_the_transport() -> None:
    """No transport computes, so the bits are the same."""
    sums = [[row["sums"] for row in RINGS[way]["rows"]] for way in shared_gpu.TRANSPORTS]
    assert sums[0] == sums[1] == sums[2]
