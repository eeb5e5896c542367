"""Which backend serves a call, and why not the others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch

from ..errors import BackendError
from ..schedule import Problem
from ..schedule.tables import count_cells
from . import eager
from .options import PartBackend, WholeBackend

# Beyond this many cells the tables take longer to make than the attention to compute.
_MOST_CELLS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """What a backend must serve.

    Args:
        problem: what is computed.
        dtype: of query, key and value.
        device: where they live.
        ring: the keys come in parts from several ranks, or bits must not depend on how many.
    """

    problem: Problem
    dtype: torch.dtype
    device: torch.device
    ring: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend by name; `whole` where it computes the whole sequence in one go."""

    name: str
    part: PartBackend
    whole: WholeBackend | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A backend in the registry: why it cannot serve a request (None: it can), and its kernels."""

    refusal: Callable[[Request], str | None]
    load: Callable[[], tuple[PartBackend, WholeBackend | None]]


def _triton_refusal(request: Request) -> str | None:
    if request.device.type != "cuda":
        return f"it needs a CUDA device, the tensors are on {request.device.type}"
    if not _has_triton():
        return "the package triton is not installed"
    if request.ring:
        return "it computes a whole sequence on one device, not the parts of a ring"
    if request.dtype == torch.float64:
        return "it computes in float32, not float64"
    if not request.problem.pattern.exact:
        return "it has no phantom keys, detached mix or row shift"
    cells = count_cells(request.problem)
    if cells > _MOST_CELLS:
        return (
            f"documents and segments that r does not divide cut the sequence into {cells} pieces, "
            f"more than {_MOST_CELLS}"
        )
    return None


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _load_triton() -> tuple[PartBackend, WholeBackend | None]:
    # Imported late: only here is triton needed.
    from .triton import launch

    return eager, launch


# Best first; `auto` takes the first that serves the call. A new backend is one line here.
_BACKENDS: Final[dict[str, Entry]] = {
    "triton": Entry(_triton_refusal, _load_triton),
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


def select(name: str, request: Request) -> Choice:
    """The backend for a call: the named one, or for `auto` the first that serves it.

    Raises:
        BackendError: the named backend does not exist or cannot serve the call.
    """
    if name == "auto":
        name = next(x for x in _BACKENDS if refusal(x, request) is None)
    reason = refusal(name, request)
    if reason is not None:
        raise BackendError(f"backend {name!r} cannot serve this call: {reason}")
    return Choice(name, *_BACKENDS[name].load())
