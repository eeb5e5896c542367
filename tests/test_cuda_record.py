"""Kernels that only a GPU can run were run on one since they last changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import gpu_record


def test_every_kernel_has_a_fresh_record() -> None:
    assert gpu_record.stale() == [], (
        "no fresh GPU record; on a machine with a GPU run pytest -m cuda with "
        "DILATED_ATTENTION_RECORD=benchmarks/results/cuda_correctness.json and commit the file"
    )


def test_a_changed_kernel_makes_its_record_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads(gpu_record.RECORD.read_text(encoding="utf-8"))
    record["backends"]["triton"]["hash"] = "another"
    del record["backends"]["eager"]["largest_share_of_budget"]["float16"]["backward"]
    monkeypatch.setattr(gpu_record, "RECORD", tmp_path / "record.json")
    gpu_record.RECORD.write_text(json.dumps(record), encoding="utf-8")
    assert gpu_record.stale() == [
        "eager float16 backward",
        *(f"triton {d} {x}" for d in gpu_record.DTYPES["triton"] for x in gpu_record.DIRECTIONS),
    ]
