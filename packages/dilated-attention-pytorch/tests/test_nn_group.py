"""Multihead modules over two real processes: outputs and parameter gradients of one device."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

RANKS, N, EMBED, HEADS = 2, 13, 12, 3
SHORT: dict[str, Any] = {
    "segment_lengths": [5, 13],
    "dilation_rates": [1, 2],
    "dtype": torch.float64,
}


def whole_sequence() -> tuple[torch.Tensor, torch.Tensor]:
    """Input and target, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, N, EMBED)
    x, target = torch.randn(shape, generator=generator, dtype=torch.float64).unbind()
    return x, target


def build(name: str, **options: Any) -> torch.nn.Module:
    """The module of the factory, with the same parameters in every process."""
    from dilated_attention_pytorch.factory import create_multihead_dilated_attention

    torch.manual_seed(1)
    return create_multihead_dilated_attention(name, EMBED, HEADS, **SHORT, **options)


def run(module: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Forward, and backward of the summed squared error."""
    out = module(x, is_causal=True)
    out = out[0] if isinstance(out, tuple) else out
    (out - target).square().sum().backward()
    return out.detach()


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: p.grad for k, p in module.named_parameters() if p.grad is not None}


def rank_main(rank: int, folder: Path) -> None:
    """One process of the ring: save what every type computes."""
    from dilated_attention_pytorch import shard

    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    x, target = whole_sequence()
    saved: dict[str, np.ndarray[Any, Any]] = {}
    group = dist.group.WORLD
    for name in ("ring", "distributed", "improved_distributed"):
        # A copy shares the group, which cannot be copied.
        module = copy.deepcopy(build(name, group=group))
        if name == "ring":
            out = run(module, x, target)
            found = gradients(module)
        else:
            mine = [shard(value, group=group) for value in (x, target)]
            out = run(module, *mine)
            found = gradients(module)
            for value in found.values():
                dist.all_reduce(value)
        saved[f"{name}/out"] = out.numpy()
        saved |= {f"{name}/{key}": value.numpy() for key, value in found.items()}
    np.savez(folder / f"rank{rank}.npz", **saved)
    dist.destroy_process_group()


@pytest.mark.gloo
@pytest.mark.timeout(120)
@pytest.mark.xdist_group("gloo")
def test_two_processes_equal_one_device(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(RANKS)]
    try:
        codes = [process.wait(100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * RANKS
    ranks = []
    for rank in range(RANKS):
        with np.load(tmp_path / f"rank{rank}.npz") as archive:
            ranks.append(dict(archive))
    x, target = whole_sequence()
    for name, local in (
        ("ring", "improved"),
        ("distributed", "standard"),
        ("improved_distributed", "improved"),
    ):
        module = build(local)
        whole = run(module, x, target).numpy()
        outs = [rank[f"{name}/out"] for rank in ranks]
        if name == "ring":
            assert np.array_equal(outs[0], outs[1])
            ours = outs[0]
        else:
            assert [out.shape[1] for out in outs] == [7, 6]
            ours = np.concatenate(outs, axis=1)
        compare(f"{name} out", ours, whole)
        found = gradients(module)
        # Some entries are zero but for rounding (softmax ignores a shift of the keys), so the
        # gradient is judged as the one vector that it is.
        exact = np.concatenate([value.numpy().ravel() for value in found.values()])
        for rank in ranks:
            flat = np.concatenate([rank[f"{name}/{key}"].ravel() for key in found])
            compare(f"{name} gradient", flat, exact)


def compare(name: str, ours: np.ndarray[Any, Any], one_device: np.ndarray[Any, Any]) -> None:
    from dilated_attention_oracle import check

    # One device stands for the reference: its own error is that of the naive run.
    check(name, ours, one_device, one_device, "float64")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    rank_main(int(sys.argv[2]), Path(sys.argv[1]))
