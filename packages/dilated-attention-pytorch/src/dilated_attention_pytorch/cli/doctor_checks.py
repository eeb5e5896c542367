"""What `dilated-attention doctor` looks at: versions, devices, back-ends, process groups."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from .. import __version__
from ..bench.environment import environment
from ..functional import dilated_attention
from ..kernels.select import Request, backend_names, passed_over, refusal
from ..pattern import DilationPattern
from ..schedule import Problem

_SISTERS: Final = (
    "dilated-attention-pytorch",
    "dilated-attention-oracle",
    "dilated-attention-compat",
)
_OTHERS: Final = ("numpy", "triton", "transformers")
_SETTINGS: Final = ("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "OMP_NUM_THREADS")
_SETTINGS_OF: Final = ("GLOO_", "NCCL_", "PYTORCH_", "TORCH_", "TRITON_")
# So long that a segment has the 128 rows of a residue that the Hopper kernels take at a time.
_SEGMENTS, _RATES = (128, 512), (1, 4)
_SHAPE: Final = (1, 512, 4, 64)
_NAMES: Final = ("out", "dq", "dk", "dv")


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report.

    Args:
        topic: what it is about.
        text: what was found.
        works: whether it may be used; None where nothing is to be used.
        broken: whether it should work here and does not.
    """

    topic: str
    text: str
    works: bool | None = None
    broken: bool = False


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _absent(name: str) -> str:
    found = importlib.util.find_spec(name.replace("-", "_")) is not None
    return f"{__version__} of a checkout" if found else "not installed"


def packages() -> Finding:
    """The three packages require each other at exactly one version."""
    found = {name: _version(name) for name in _SISTERS}
    text = ", ".join(f"{name} {version or _absent(name)}" for name, version in found.items())
    if len({version for version in found.values() if version is not None}) > 1:
        return Finding("packages", f"{text}: they must share one version", broken=True)
    return Finding("packages", text)


def software() -> list[Finding]:
    """Versions, the machine, and settings of the environment that change what is below."""
    versions = [f"Python {platform.python_version()}", f"PyTorch {torch.__version__}"]
    versions += [f"{name} {_version(name) or 'not installed'}" for name in _OTHERS]
    here = environment(torch.device("cpu"))
    set_here = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name in _SETTINGS or name.startswith(_SETTINGS_OF)
    ]
    return [
        Finding("versions", ", ".join(versions)),
        Finding("system", platform.platform()),
        Finding(
            "cpu",
            f"{here['device']}, cores: {os.cpu_count()}, threads of PyTorch: {here['threads']}",
        ),
        Finding("settings", ", ".join(set_here) or "none that matter here"),
    ]


def gpus() -> list[Finding]:
    """Every CUDA device, or why there is none."""
    if torch.version.cuda is None:
        return [Finding("GPU", "none: this PyTorch is built without CUDA")]
    if not torch.cuda.is_available():
        text = f"none: PyTorch is built for CUDA {torch.version.cuda} and finds no usable device"
        return [Finding("GPU", text)]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            f"cuda:{index}, {properties.name}, compute capability "
            f"{properties.major}.{properties.minor}, {properties.total_memory / 2**30:.1f} GiB"
        )
    try:
        here = environment(torch.device("cuda", 0))
        driver = here.get("driver_version", "unknown")
    except (OSError, subprocess.CalledProcessError) as error:
        driver = f"unknown, for nvidia-smi failed: {error}"
    found.append(f"CUDA {torch.version.cuda}, driver {driver}")
    return [Finding("GPU", text) for text in found]


def devices() -> list[torch.device]:
    """The CPU, and of every kind of GPU the first."""
    kinds: dict[str, torch.device] = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        kinds.setdefault(torch.cuda.get_device_name(index), torch.device("cuda", index))
    return [torch.device("cpu"), *kinds.values()]


def dtype_on(device: torch.device) -> torch.dtype:
    """What back-ends are tried in: 16 bits where the fast kernels need them."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _attend(backend: str, device: torch.device) -> list[npt.NDArray[Any]]:
    """out, dq, dk, dv of a small causal call."""
    arrays = np.random.default_rng(0).standard_normal((4, *_SHAPE), dtype=np.float32)
    query, key, value, dout = (torch.from_numpy(x).to(device, dtype_on(device)) for x in arrays)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    pattern = DilationPattern.longnet(_SEGMENTS, _RATES)
    out = dilated_attention(query, key, value, pattern, is_causal=True, backend=backend)
    gradients = torch.autograd.grad(out, leaves, dout)
    return [x.detach().double().cpu().numpy() for x in (out, *gradients)]


def budget_shares(found: list[npt.NDArray[Any]], dtype: torch.dtype) -> dict[str, float]:
    """Errors against the definition in float64, as shares of the tolerance; above 1 is wrong."""
    from dilated_attention_oracle import Pattern
    from dilated_attention_oracle.adapters.naive import naive
    from dilated_attention_oracle.adapters.numpy_adapter import reference
    from dilated_attention_oracle.tolerance import measure

    name = str(dtype).removeprefix("torch.")
    arrays = np.random.default_rng(0).standard_normal((4, *_SHAPE), dtype=np.float32)
    query, key, value, dout = arrays
    call = query, key, value, Pattern(tuple(zip(_SEGMENTS, _RATES, strict=True))), name
    exact, plain = (judge(*call, dout=dout, is_causal=True) for judge in (reference, naive))
    assert exact.terms is not None
    return {
        array: measure(
            array,
            got,
            getattr(exact, array),
            getattr(plain, array),
            name,
            getattr(exact.terms, array),
        ).share
        for array, got in zip(_NAMES, found, strict=True)
    }


def backends(device: torch.device) -> list[Finding]:
    """Of every backend why it does not serve a small call, or whether its numbers are right."""
    pattern = DilationPattern.longnet(_SEGMENTS, _RATES)
    _, n, heads, head_dim = _SHAPE
    problem = Problem(pattern, n, heads, heads, is_causal=True)
    request = Request(problem, dtype_on(device), device, head_dim)
    chosen = next(name for name in backend_names() if passed_over(name, request) is None)
    found = []
    for name in backend_names():
        topic = f"{name} on {device}"
        reason = refusal(name, request)
        if reason is not None:
            found.append(Finding(topic, f"no: {reason}", works=False))
            continue
        finding = _tried(topic, partial(_numbers, name, device))
        unchosen = passed_over(name, request)
        if finding.works and name == chosen:
            note = "; auto takes it"
        elif finding.works and unchosen is not None:
            note = f"; auto does not take it: {unchosen}"
        else:
            note = ""
        found.append(Finding(topic, finding.text + note, finding.works, finding.broken))
    return found


def _numbers(name: str, device: torch.device) -> str:
    shares = budget_shares(_attend(name, device), dtype_on(device))
    worst = max(shares, key=lambda array: shares[array])
    if not all(share <= 1 for share in shares.values()):
        raise ArithmeticError(
            f"wrong numbers: the error of {worst} is {shares[worst]:.3g} times "
            "what its dtype allows"
        )
    return "works, forward and backward"


def _tried(topic: str, attempt: Callable[[], str]) -> Finding:
    """What the attempt returns, or the error that it raised: whatever it is, it is the finding."""
    try:
        return Finding(topic, attempt(), works=True)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        text = f"BROKEN: {type(error).__name__}: {first}"
        return Finding(topic, text, works=False, broken=True)


def process_groups() -> list[Finding]:
    """Whether a group of one process can be made and used over Gloo and over NCCL."""
    if not dist.is_available():
        return [Finding("gloo", "no: this PyTorch is built without torch.distributed", False)]
    return [_gloo(), _nccl()]


def _gloo() -> Finding:
    if not dist.is_gloo_available():
        return Finding("gloo", "no: this PyTorch is built without it", works=False)
    return _tried("gloo", lambda: _sum_of_one("gloo", torch.device("cpu")))


def _nccl() -> Finding:
    if not dist.is_nccl_available():
        return Finding("nccl", "no: this PyTorch is built without it", works=False)
    if not torch.cuda.is_available():
        return Finding("nccl", "no: there is no GPU", works=False)
    version = ".".join(str(part) for part in torch.cuda.nccl.version())
    return _tried("nccl", lambda: f"{_sum_of_one('nccl', torch.device('cuda', 0))}, {version}")


def _sum_of_one(backend: str, device: torch.device) -> str:
    with tempfile.TemporaryDirectory(prefix="dilated-attention-") as folder:
        meeting = (Path(folder) / "group").as_uri()
        dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
        try:
            number = torch.ones(1, device=device)
            dist.all_reduce(number)
            assert number.item() == 1
        finally:
            dist.destroy_process_group()
    return "works in one process"
