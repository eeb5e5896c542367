"""One case: check every implementation, time those that are right, say why others were left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from . import backends
from .candidate import AbsentError, Answer, Candidate, Peer
from .cases import Case
from .inputs import draw
from .machine import Machine
from .power import PowerMonitor
from .timing import Effort, figures
from .verify import Judge, WrongResultError, sample, verify

# Forward + backward does 3.5 times the FLOPs of the forward.
_KINDS = (("forward", 1.0), ("forward_backward", 3.5))


def run_case(
    case: Case,
    machine: Machine,
    monitor: PowerMonitor,
    judge: Judge,
    *,
    backend_names: Sequence[str],
    asked: bool,
    peers: Mapping[str, Peer],
    effort: Effort,
) -> dict[str, Any]:
    """All figures of one case.

    Args:
        case: what to run.
        machine: where.
        monitor: watches the machine.
        judge: the tolerance that every result is held to before it is timed.
        backend_names: this library's backends to time.
        asked: the caller named them, so that the slow reference is timed as well.
        peers: what else there is, by name; a case names which of them it wants.
        effort: how much time to spend.

    Returns:
        The case's description, `auto` (the backend that it takes), and an entry for each backend
        and peer: its figures and `share_of_budget`, or `absent` with the reason, or `wrong` with
        the judge's words, or `failed` with the error. What is wrong is not timed.
    """
    inputs = draw(case, machine.device)
    samples = sample(case, inputs)
    auto = backends.chosen(case, machine.device)
    entries: dict[str, dict[str, Any]] = {}
    ready: dict[str, Candidate] = {}
    answer: Answer | None = None

    def admit(name: str, build: Callable[[], Candidate]) -> None:
        """Build, check and warm an implementation up."""
        nonlocal answer
        try:
            candidate = build()
            entry: dict[str, Any] = {"note": candidate.note} if candidate.note else {}
            if candidate.values is not None:
                values = candidate.values()
                entry["share_of_budget"] = verify(case, samples, values, judge)
                if "lse" in values and (answer is None or name == auto):
                    answer = Answer(values["out"], values["lse"])
            for _ in range(2):
                candidate.forward()
                if candidate.forward_backward is not None:
                    candidate.forward_backward()
            ready[name] = candidate
        except WrongResultError as error:
            entry = {"wrong": str(error)}
        except (AbsentError, ModuleNotFoundError) as error:
            entry = {"absent": str(error)}
        except torch.OutOfMemoryError:
            entry = {"absent": "out of memory"}
        except Exception as error:
            # Hours of other figures must not be lost to it; the report says it, and so does the
            # command's exit status.
            entry = {"failed": f"{type(error).__name__}: {error}"[:500]}
        entries[name] = entry
        machine.clear()

    for name in backend_names:
        admit(name, partial(backends.backend, name, case, inputs, asked=asked))
    for name in case.peers:
        if name not in peers:
            entries[name] = {"absent": "this run was given no such peer"}
        elif answer is None:
            entries[name] = {"absent": "no backend's result to compare with"}
        else:
            admit(name, partial(peers[name], case, inputs, answer))
    _time(case, entries, ready, machine, monitor, effort)
    return {
        **_description(case),
        "auto": auto,
        "backends": {name: entries[name] for name in backend_names},
        "peers": {name: entries[name] for name in case.peers},
    }


def _time(
    case: Case,
    entries: dict[str, dict[str, Any]],
    ready: Mapping[str, Candidate],
    machine: Machine,
    monitor: PowerMonitor,
    effort: Effort,
) -> None:
    for index, (kind, share) in enumerate(_KINDS):
        calls = {
            name: call
            for name, candidate in ready.items()
            if (call := getattr(candidate, kind)) is not None
        }
        for name, figure in figures(calls, machine, monitor, effort).items():
            candidate = ready[name]
            rate = share / figure["ms"] / 1e9
            figure["tflops"] = _digits(candidate.flops * rate)
            if candidate.executed_pairs is not None:
                executed = 4 * case.head_dim * candidate.executed_pairs
                figure["executed_tflops"] = _digits(executed * rate)
            if "peak_mib" in figure:
                results = candidate.result_bytes[index] / 2**20
                figure["extra_mib"] = round(figure["peak_mib"] - results, 2)
            entries[name][kind] = figure


def _digits(value: float) -> float:
    """Four significant digits: rates of a GPU and of a small CPU differ by a million."""
    return float(f"{value:.4g}")


def _description(case: Case) -> dict[str, Any]:
    pattern = case.pattern
    return {
        "case": case.name,
        "group": case.group,
        "n": case.n,
        "heads": case.heads,
        "head_dim": case.head_dim,
        "dtype": case.dtype_name,
        "is_causal": case.is_causal,
        "rule": pattern.rule,
        "segment_lengths": [b.segment_length for b in pattern.branches],
        "dilation_rates": [b.dilation_rate for b in pattern.branches],
        "flops_forward": case.flops,
    }
