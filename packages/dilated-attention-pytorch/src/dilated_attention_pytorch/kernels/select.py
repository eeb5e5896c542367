"""Which backend serves a call, and why not the others."""

from __future__ import annotations

from typing import Final

import torch

from ..errors import BackendError
from ..schedule import Problem
from . import eager
from .options import Backend

# Best first; `auto` takes the first that serves the call.
_BACKENDS: Final[dict[str, Backend]] = {"eager": eager}


def backend_names() -> tuple[str, ...]:
    """Names that `backend=` accepts, apart from `auto`."""
    return tuple(_BACKENDS)


def refusal(name: str, problem: Problem, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why a backend cannot serve a call; None where it can.

    Raises:
        BackendError: there is no backend of this name.
    """
    if name not in _BACKENDS:
        raise BackendError(f"unknown backend {name!r}; expected 'auto' or one of {list(_BACKENDS)}")
    del problem, dtype, device  # eager serves every pattern, dtype and device
    return None


def select(
    name: str, problem: Problem, dtype: torch.dtype, device: torch.device
) -> tuple[str, Backend]:
    """The backend for a call: the named one, or for `auto` the first that serves it.

    Raises:
        BackendError: the named backend does not exist or cannot serve the call.
    """
    if name == "auto":
        for candidate, backend in _BACKENDS.items():
            if refusal(candidate, problem, dtype, device) is None:
                return candidate, backend
    reason = refusal(name, problem, dtype, device)
    if reason is not None:
        raise BackendError(f"backend {name!r} cannot serve this call: {reason}")
    return name, _BACKENDS[name]
