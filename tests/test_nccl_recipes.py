"""The guide's recipes over NCCL, two ranks on two GPUs or on a shared one: `pytest -m multigpu`."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from benchmarks.memory_per_rank import free_port
from benchmarks.sharing import SHARING

from dilated_attention_oracle.tolerance import check
from support import gloo_recipes
from support.gloo_pool import Member

GPUS = torch.cuda.device_count()
SHARED = GPUS == 1 and os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
RUNS = [(name, shape) for name in ("with_ddp", "with_fsdp") for shape in ((1, 2), (2, 1))]


def _rank(rank: int, port: int, folder: str) -> None:
    torch.cuda.set_device(rank % GPUS)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    assert dist.group.WORLD is not None
    member = Member(rank, 2, dist.group.WORLD)
    found = [gloo_recipes.recipe_step(member, *run) for run in RUNS]
    Path(folder, str(rank)).write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


@pytest.mark.multigpu
@pytest.mark.skipif(GPUS < 2 and not SHARED, reason="needs two CUDA devices, or ranks that share")
def test_a_recipe_gives_one_process_loss_and_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SHARED:
        for name, value in SHARING.items():
            monkeypatch.setenv(name, value)
    torch.multiprocessing.spawn(_rank, args=(free_port(), str(tmp_path)), nprocs=2)
    exact = gloo_recipes.one_process_step(torch.float64)
    plain = gloo_recipes.one_process_step(torch.float32)
    for rank in range(2):
        for found in pickle.loads((tmp_path / str(rank)).read_bytes()):
            assert found.keys() == exact.keys()
            for name, array in found.items():
                check(name, array, exact[name], plain[name], "float32")
