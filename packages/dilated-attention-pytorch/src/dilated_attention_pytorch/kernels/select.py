"""Which backend serves a call, and why not the others."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch

from ..errors import BackendError
from ..schedule import Problem
from ..schedule.classes import count_cells
from ..schedule.streams import shortest_range, views
from . import eager, gluon
from .options import PartBackend, WholeBackend
from .sdpa import launch as sdpa
from .sdpa.plan import cuda_limit

# Beyond this many cells the tables take longer to make than the attention to compute.
_MOST_CELLS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """What a backend must serve.

    Args:
        problem: what is computed.
        dtype: of query, key and value.
        device: where they live.
        head_dim: d.
        ring: the keys come in parts from several ranks, or bits must not depend on how many.
        key_mask: some keys are masked.
        dropout: entries of P are dropped.
        deterministic: results repeat bitwise.
    """

    problem: Problem
    dtype: torch.dtype
    device: torch.device
    head_dim: int
    ring: bool = False
    key_mask: bool = False
    dropout: bool = False
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend by name; `whole` where it computes the whole sequence in one go."""

    name: str
    part: PartBackend
    whole: WholeBackend | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A backend in the registry.

    Args:
        refusal: why it cannot serve a request; None where it can.
        load: its kernels.
        recorded: this version was checked on a GPU; if not, `auto` takes it on CPUs only.
    """

    refusal: Callable[[Request], str | None]
    load: Callable[[], tuple[PartBackend, WholeBackend | None]]
    recorded: bool = True


def _gluon_refusal(request: Request) -> str | None:
    if request.device.type != "cuda":
        return f"it needs a CUDA device, the tensors are on {request.device.type}"
    if _triton_version() != (3, 6):
        return "it is written for triton 3.6, whose Gluon is experimental, and this is another"
    capability = torch.cuda.get_device_capability(request.device)
    if capability != (9, 0):
        return f"it is written for compute capability 9.0 (Hopper), this is {capability}"
    if request.ring:
        return "it computes a whole sequence on one device, not the parts of a ring"
    if not request.problem.pattern.exact:
        return "it has no phantom keys, detached mix or row shift"
    if request.dropout or request.key_mask:
        return "it has no dropout" if request.dropout else "it has no key mask"
    if request.dtype not in (torch.float16, torch.bfloat16):
        return f"it computes in float16 and bfloat16, not {request.dtype}"
    if request.head_dim % 8 or request.head_dim > 128:
        return f"it takes head dimensions up to 128 divisible by 8, not {request.head_dim}"
    return gluon.failures[0] if gluon.failures else _stream_refusal(request.problem)


@lru_cache(maxsize=256)
def _stream_refusal(problem: Problem) -> str | None:
    count = len(views(problem))
    if count > gluon.MOST_VIEWS:
        return f"the dilation rates need {count} views of the tensors, more than {gluon.MOST_VIEWS}"
    shortest, rows = shortest_range(problem), gluon.MOST_ROWS
    if shortest < min(rows, problem.n):
        return f"a segment or document has {shortest} rows of one residue, fewer than {rows}"
    return _cells_refusal(problem)


def _cells_refusal(problem: Problem) -> str | None:
    cells = count_cells(problem)
    if cells > _MOST_CELLS:
        return (
            f"documents and segments that r does not divide cut the sequence into {cells} pieces, "
            f"more than {_MOST_CELLS}"
        )
    return None


def _triton_refusal(request: Request) -> str | None:
    if request.device.type != "cuda":
        return f"it needs a CUDA device, the tensors are on {request.device.type}"
    if not _has_triton():
        return "the package triton is not installed"
    if request.ring:
        return "it computes a whole sequence on one device, not the parts of a ring"
    if request.dtype == torch.float64:
        return "it computes in float32, not float64"
    return _cells_refusal(request.problem)


def _sdpa_refusal(request: Request) -> str | None:
    if request.ring:
        return "it computes a whole sequence on one device, not the parts of a ring"
    if not request.problem.pattern.exact:
        return "it has no phantom keys, detached mix or row shift"
    if request.dropout:
        return "PyTorch's kernels draw a dropout mask of their own"
    if request.key_mask:
        return "PyTorch's kernels that return lse take no key mask"
    if request.deterministic:
        return "its bits are not those of a ring, and on CUDA dq is added up in any order"
    if request.device.type == "cpu":
        return None
    return _sdpa_cuda_refusal(request)


def _sdpa_cuda_refusal(request: Request) -> str | None:
    if request.device.type != "cuda":
        return f"it knows kernels for CPU and CUDA, the tensors are on {request.device.type}"
    if not _has_triton():
        return "the package triton, whose kernels join the branches, is not installed"
    if request.dtype not in (torch.float16, torch.bfloat16):
        return f"PyTorch's CUDA kernels take float16 and bfloat16, not {request.dtype}"
    if request.head_dim % 8:
        return f"PyTorch's CUDA kernels take head dimensions divisible by 8, not {request.head_dim}"
    return cuda_limit(request.problem, request.head_dim)


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=1)
def _triton_version() -> tuple[int, ...]:
    """(major, minor), or () without triton."""
    if not _has_triton():
        return ()
    return tuple(int(x) for x in importlib.metadata.version("triton").split(".")[:2])


def _load_gluon() -> tuple[PartBackend, WholeBackend | None]:
    # Imported late: only here is triton needed.
    from .gluon import launch

    return eager, launch


def _load_triton() -> tuple[PartBackend, WholeBackend | None]:
    # Imported late: only here is triton needed.
    from .triton import launch

    return eager, launch


# Best first; `auto` takes the first that serves the call. A new backend is one line here. On a CPU
# `sdpa` took 0.46 to 0.69 of the time of `eager`, forward and forward + backward, on the ladder
# w = 2048 * 2^i, r = 2^i, i < 5, at n = 2,048 and 16,384 (H = 4, d = 64, float32 and bfloat16, one
# thread, CPU seconds), and 0.18 to 0.22 at n = 128.
_BACKENDS: Final[dict[str, Entry]] = {
    "gluon": Entry(_gluon_refusal, _load_gluon, recorded=False),
    "triton": Entry(_triton_refusal, _load_triton),
    "sdpa": Entry(_sdpa_refusal, lambda: (eager, sdpa), recorded=False),
    "eager": Entry(lambda request: None, lambda: (eager, None)),
}


def backend_names() -> tuple[str, ...]:
    """Names that `backend=` accepts, apart from `auto`; best first."""
    return tuple(_BACKENDS)


def refusal(name: str, request: Request) -> str | None:
    """Why a backend cannot serve a call; None where it can.

    Raises:
        BackendError: there is no backend of this name.
    """
    if name not in _BACKENDS:
        raise BackendError(f"unknown backend {name!r}; expected 'auto' or one of {list(_BACKENDS)}")
    return _BACKENDS[name].refusal(request)


def passed_over(name: str, request: Request) -> str | None:
    """Why `auto` does not take a backend for a call; None where it may."""
    if request.device.type == "cuda" and not _BACKENDS[name].recorded:
        return "its present kernels have no record of a check on a GPU; name it to use it"
    return refusal(name, request)


def select(name: str, request: Request) -> Choice:
    """The backend for a call: the named one, or for `auto` the first that serves it.

    Raises:
        BackendError: the named backend does not exist or cannot serve the call.
    """
    if name == "auto":
        name = next(x for x in _BACKENDS if passed_over(x, request) is None)
    else:
        reason = refusal(name, request)
        if reason is not None:
            raise BackendError(f"backend {name!r} cannot serve this call: {reason}")
    return Choice(name, *_BACKENDS[name].load())
