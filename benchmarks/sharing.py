"""Several ranks of one NCCL group on one GPU: for checks, never for timings."""

from __future__ import annotations

import ctypes
from typing import Final

# What it takes, with NCCL from 2.30 on. NVLink multicast serves no sends, receives or pulls.
SHARING: Final = {
    "NCCL_MULTI_RANK_GPU_ENABLE": "1",
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
}


def nccl_version() -> str:
    """Of the library that is loaded, which may not be the one that PyTorch was built with."""
    number = ctypes.c_int()
    ctypes.CDLL("libnccl.so.2").ncclGetVersion(ctypes.byref(number))
    major, rest = divmod(number.value, 10_000)
    return f"{major}.{rest // 100}.{rest % 100}"
