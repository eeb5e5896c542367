"""Which backend serves a call, and why not the others."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch

from ..errors import BackendError
from ..schedule import Problem
from ..schedule.classes import count_cells
from ..schedule.filling import room_for_a_row
from ..schedule.streams import shortest_range, views
from . import eager, gluon
from .gluon.blocks import HALF
from .options import PartBackend, WholeBackend
from .sdpa import launch as sdpa
from .sdpa.plan import cuda_limit
from .tiles import TileBackend

_RING_BITS: Final = "its bits depend on where a ring is cut"
_NOT_ALONE: Final = (
    "in a ring it takes a rank's own rows only where they are a sequence of their own: sharded, "
    "contiguous or zigzag, with shards that begin where segments do or lie within one"
)
_LONGEST: Final = 2**31 - 1
# Beyond this many cells the tables take longer to make than the attention to compute.
_MOST_CELLS: Final = 1 << 16
_LONGEST_PERIOD: Final = 1 << 20
# Emptier tiles compute more than twice what the call asks for.
_MOST_ROOM: Final = 2.0
_MOST_WASTE: Final = 4.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a backend must serve.

    Args:
        problem: what is computed.
        dtype: of query, key and value.
        device: where they live.
        head_dim: d.
        ring: the keys come in parts, from several ranks.
        own: in a ring, each rank's own rows as a sequence; none where some rank's are no sequence.
        ring_bits: bits must not depend on the number of ranks.
        key_mask: some keys are masked.
        dropout: entries of P are dropped.
        deterministic: results repeat bitwise.
    """

    problem: Problem
    dtype: torch.dtype
    device: torch.device
    head_dim: int
    ring: bool = False
    own: tuple[Problem, ...] = ()
    ring_bits: bool = False
    key_mask: bool = False
    dropout: bool = False
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend by name.

    Args:
        name: its name.
        part: kernels for a part of the keys.
        whole: kernels for a whole sequence: that of the call, or in a ring the rank's own rows.
        tiles: in a ring, kernels that stream own and received rows past tiles of own ones.
    """

    name: str
    part: PartBackend
    whole: WholeBackend | None = None
    tiles: TileBackend | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A backend in the registry.

    Args:
        refusal: why it cannot serve a request; None where it can.
        load: its kernels, for a device.
        slower: why `auto` does better with another backend; None where it does not.
    """

    refusal: Callable[[Request], str | None]
    load: Callable[[torch.device], tuple[PartBackend, WholeBackend | None]]
    slower: Callable[[Request], str | None] = lambda request: None


def _gluon_refusal(request: Request) -> str | None:
    if request.device.type != "cuda":
        return f"it needs a CUDA device, the tensors are on {request.device.type}"
    if _triton_version() != (3, 6):
        return "it is written for triton 3.6, whose Gluon is experimental, and this is another"
    capability = torch.cuda.get_device_capability(request.device)
    if capability != (9, 0):
        return f"it is written for compute capability 9.0 (Hopper), this is {capability}"
    return gluon.failures[0] if gluon.failures else hopper_refusal(request)


def hopper_refusal(request: Request) -> str | None:
    """Why `gluon` cannot serve a request on a Hopper GPU, whatever this machine has."""
    if request.ring_bits:
        return _RING_BITS
    if not request.problem.pattern.exact:
        return "it has no phantom keys, detached mix or row shift"
    if request.dropout or request.key_mask:
        return "it has no dropout" if request.dropout else "it has no key mask"
    if request.dtype not in (torch.float16, torch.bfloat16):
        return f"it computes in float16 and bfloat16, not {request.dtype}"
    if request.head_dim % 8 or request.head_dim > 128:
        return f"it takes head dimensions up to 128 divisible by 8, not {request.head_dim}"
    whole = request.own if request.ring else (request.problem,)
    if not whole:
        return _NOT_ALONE
    return next((reason for x in whole if (reason := _stream_refusal(x)) is not None), None)


@lru_cache(maxsize=256)
def _stream_refusal(problem: Problem) -> str | None:
    count = len(views(problem))
    if count > gluon.MOST_VIEWS:
        return f"the dilation rates need {count} views of the tensors, more than {gluon.MOST_VIEWS}"
    room = room_for_a_row(problem, HALF)
    if room > _MOST_ROOM:
        return (
            "rows that the same branches cover lie too far apart for its tiles: they would have "
            f"room for {room:.3g} times the rows that they hold"
        )
    shortest, rows = shortest_range(problem), gluon.MOST_ROWS
    if shortest < min(rows, problem.n):
        return f"a segment or document has {shortest} rows of one residue, fewer than {rows}"
    return _cells_refusal(problem)


def _cells_refusal(problem: Problem) -> str | None:
    period = math.lcm(*(branch.dilation_rate for branch in problem.pattern.branches))
    if period > _LONGEST_PERIOD:
        return f"the dilation rates repeat after {period} rows only, more than {_LONGEST_PERIOD}"
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
    if request.ring_bits:
        return _RING_BITS
    if request.dtype == torch.float64:
        return "it computes in float32, not float64"
    if request.problem.n > _LONGEST:
        return f"its tables count rows in 32 bits, n = {request.problem.n} is too long"
    return None if request.ring else _cells_refusal(request.problem)


def _sdpa_refusal(request: Request) -> str | None:
    if request.ring_bits:
        return _RING_BITS
    if not request.problem.pattern.exact:
        return "it has no phantom keys, detached mix or row shift"
    if request.ring and not request.own:
        return _NOT_ALONE
    if request.dropout:
        return "PyTorch's kernels draw a dropout mask of their own"
    if request.key_mask:
        return "PyTorch's kernels that return lse take no key mask"
    if request.deterministic:
        return "its bits are not those of a ring, and on CUDA dq is added up in any order"
    if request.device.type == "cpu":
        return None
    return _sdpa_cuda_refusal(request)


def _triton_slower(request: Request) -> str | None:
    # Of 128 rows in a tile so few share their segments that it computes this many times the pairs;
    # and by docs/performance.md `sdpa` takes half to all of its GPU time where tiles are full.
    if request.ring or _sdpa_refusal(request) is not None:
        return None
    room = room_for_a_row(request.problem, 2 * HALF)
    if room > _MOST_WASTE:
        return f"its tiles would have room for {room:.3g} times the rows that they hold"
    return None


def _sdpa_slower(request: Request) -> str | None:
    # 0.9 to 1.1 of the time of `eager`, forward + backward, on the causal ladder w = 512 * 2^i,
    # r = 2^i, i < 5, w_4 = n, at n = 4,096 and 16,384, R = 2 and 4, float32 and bfloat16.
    if request.ring and request.device.type == "cpu":
        return "in a ring on a CPU it is no faster than eager"
    return None


def _sdpa_cuda_refusal(request: Request) -> str | None:
    if request.device.type != "cuda":
        return f"it knows kernels for CPU and CUDA, the tensors are on {request.device.type}"
    if not _has_triton():
        return "the package triton, whose kernels join the branches, is not installed"
    if request.dtype not in (torch.float16, torch.bfloat16):
        return f"PyTorch's CUDA kernels take float16 and bfloat16, not {request.dtype}"
    if request.head_dim % 8:
        return f"PyTorch's CUDA kernels take head dimensions divisible by 8, not {request.head_dim}"
    limits = (cuda_limit(x, request.head_dim) for x in request.own or (request.problem,))
    return next((limit for limit in limits if limit is not None), None)


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=1)
def _triton_version() -> tuple[int, ...]:
    """(major, minor), or () without triton."""
    if not _has_triton():
        return ()
    return tuple(int(x) for x in importlib.metadata.version("triton").split(".")[:2])


def _load_gluon(device: torch.device) -> tuple[PartBackend, WholeBackend | None]:
    from .gluon import launch

    return _parts(device), launch


def _load_triton(device: torch.device) -> tuple[PartBackend, WholeBackend | None]:
    from .triton import launch

    return _parts(device), launch


def _load_sdpa(device: torch.device) -> tuple[PartBackend, WholeBackend | None]:
    return _parts(device), sdpa


def _tiles() -> TileBackend:
    from .gluon import launch

    return launch


def _parts(device: torch.device) -> PartBackend:
    """Kernels for the keys of other ranks where a backend has none of its own for them."""
    if device.type != "cuda":
        return eager
    # Imported late: only here is triton needed.
    from .triton import part_launch

    return part_launch


# Best first; `auto` takes the first that serves the call. A new backend is one line here. On a CPU
# `sdpa` took 0.46 to 0.69 of the time of `eager`, forward and forward + backward, on the ladder
# w = 2048 * 2^i, r = 2^i, i < 5, at n = 2,048 and 16,384 (H = 4, d = 64, float32 and bfloat16, one
# thread, CPU seconds), and 0.18 to 0.22 at n = 128.
_BACKENDS: Final[dict[str, Entry]] = {
    "gluon": Entry(_gluon_refusal, _load_gluon),
    "triton": Entry(_triton_refusal, _load_triton, slower=_triton_slower),
    "sdpa": Entry(_sdpa_refusal, _load_sdpa, slower=_sdpa_slower),
    "eager": Entry(lambda request: None, lambda device: (eager, None)),
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
    entry = _BACKENDS[name]
    return refusal(name, request) or entry.slower(request)


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
    part, whole = _BACKENDS[name].load(request.device)
    if not request.ring:
        return Choice(name, part, whole)
    if not _alone(request):
        return Choice(name, part)
    return Choice(name, part, whole, _tiles() if name == "gluon" else None)


def _alone(request: Request) -> bool:
    """Whether kernels for whole sequences may compute a rank's own rows in a ring.

    Not with dropout: its Philox counts in global positions.
    """
    cells = (_cells_refusal(problem) for problem in request.own)
    return bool(request.own) and not request.dropout and all(x is None for x in cells)
