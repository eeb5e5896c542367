"""Where figures come from; figures of different origins are not put beside each other."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

import torch

_SOURCES: Final = Path(__file__).parents[1]
# The rooms that a call runs through.
_ROOMS: Final = ("functional", "kernels", "ring", "schedule")


def environment(device: torch.device) -> dict[str, str]:
    """Device, versions, and a digest of the sources that compute."""
    found = {
        "device": _cpu_name(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "sources": _digest(),
    }
    if device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "host": _cpu_name(),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            **_driver(device),
        }
    if importlib.util.find_spec("triton") is not None:
        found["triton"] = importlib.metadata.version("triton")
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver(device: torch.device) -> dict[str, str]:
    if shutil.which("nvidia-smi") is None:
        return {}
    uuid = torch.cuda.get_device_properties(device).uuid
    names = ("driver_version", "power.limit", "clocks.max.sm")
    done = subprocess.run(
        [
            *("nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(names)}"),
            "--format=csv,noheader",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    values = (value.strip() for value in done.stdout.strip().split(","))
    return dict(zip(names, values, strict=True))


def _digest() -> str:
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted(_SOURCES.joinpath(room).rglob("*.py")):
            digest.update(path.relative_to(_SOURCES).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """`name: a, b` of every entry that differs."""
    return [
        f"{name}: {one.get(name)!r}, {other.get(name)!r}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
