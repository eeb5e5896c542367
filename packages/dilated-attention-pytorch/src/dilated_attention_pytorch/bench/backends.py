"""This library's own implementations of a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..functional import dilated_attention
from ..kernels.select import Choice, Request, backend_names, refusal, select
from .candidate import AbsentError, Candidate
from .cases import Case
from .inputs import Inputs


def names() -> tuple[str, ...]:
    """Backends by name, best first."""
    return backend_names()


def chosen(case: Case, device: torch.device) -> str:
    """The backend that `auto` takes."""
    return select("auto", _request(case, device)).name


def backend(name: str, case: Case, inputs: Inputs, *, asked: bool) -> Candidate:
    """A backend's calls, through the public function.

    Args:
        name: of the backend.
        case: what is computed.
        inputs: of what.
        asked: the backend was named, not met among all.

    Raises:
        AbsentError: the backend refuses the case, or is the reference, which walks tiles in Python
            and takes seconds on a GPU, and nobody asked for it.
        BackendError: there is no such backend.
    """
    request = _request(case, inputs.query.device)
    reason = refusal(name, request)
    if reason is not None:
        raise AbsentError(reason)
    if name == "eager" and request.device.type == "cuda" and not asked:
        raise AbsentError("the reference; on a GPU it is timed only where it is named")
    query, key, value, dout = inputs.query, inputs.key, inputs.value, inputs.dout
    leaves = inputs.leaves

    def forward() -> Tensor:
        with torch.no_grad():
            return dilated_attention(
                query, key, value, case.pattern, is_causal=case.is_causal, backend=name
            )

    def forward_backward() -> tuple[Tensor, ...]:
        out = dilated_attention(*leaves, case.pattern, is_causal=case.is_causal, backend=name)
        return torch.autograd.grad(out, leaves, dout)

    def values() -> Mapping[str, Tensor]:
        used = leaves if case.backward else (query, key, value)
        out, lse = dilated_attention(
            *used, case.pattern, is_causal=case.is_causal, backend=name, return_lse=True
        )
        found = {"out": out.detach(), "lse": lse.detach()}
        if case.backward:
            gradients = torch.autograd.grad(out, leaves, dout)
            found |= dict(zip(("dq", "dk", "dv"), gradients, strict=True))
        return found

    return Candidate(
        forward,
        forward_backward if case.backward else None,
        case.flops,
        inputs.result_bytes,
        values,
        _executed_pairs(select(name, request), case),
    )


def _request(case: Case, device: torch.device) -> Request:
    return Request(case.problem, case.dtype, device, case.head_dim)


def _executed_pairs(choice: Choice, case: Case) -> int | None:
    """What a backend says of itself: those that score a shared key once offer `executed_pairs`."""
    count: Callable[..., int] | None = getattr(choice.whole, "executed_pairs", None)
    return None if count is None else count(case.problem)
