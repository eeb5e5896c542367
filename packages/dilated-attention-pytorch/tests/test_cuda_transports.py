"""Every transport on GPUs, one for each rank or, with NCCL 2.30 and later, shared: `multigpu`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch
from benchmarks import shared_gpu
from benchmarks.sharing import SHARING

from dilated_attention_pytorch.comm.transports import VARIABLE


def _gpus() -> int:
    """GPUs, or as many as ranks where ranks may share one."""
    count = torch.cuda.device_count()
    return 2 if count and os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1" else count


@pytest.mark.multigpu
@pytest.mark.skipif(_gpus() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("transport", shared_gpu.TRANSPORTS)
def test_rings_over_every_transport_equal_one_process(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers within the tolerance, bits that repeat, and no buffer made by a repeated step."""
    for name in (VARIABLE, *SHARING):
        monkeypatch.setenv(name, SHARING.get(name, ""))
    ring = shared_gpu.run_ring(2, transport, argparse.Namespace(gloo=False), tmp_path / "ranks")
    assert [row for row in ring["rows"] if row["wrong"]] == []
    assert len(ring["rows"]) == sum(len(case.dtypes) for case in shared_gpu.cases(1024))
    for row in ring["rows"]:
        assert row["repeats"]
        assert row["buffers_made_by_third_step"] == 0
    assert (ring["links"] is not None) == (transport == "auto")
