"""Whether work of a GPU is over, asked while another thread holds the driver: `pytest -m cuda`."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from dilated_attention_pytorch.comm.arrivals import Arrivals

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CYCLES = 4_000_000_000


class Sleep:
    """Work of a stream of its own; CYCLES take about two seconds."""

    def __init__(self, cycles: int) -> None:
        self.stream = torch.cuda.Stream()
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(cycles)

    def wait(self) -> None:
        torch.cuda.current_stream().wait_stream(self.stream)


def test_work_that_is_over_is_told_in_order() -> None:
    arrivals = Arrivals()
    first = arrivals.after([Sleep(CYCLES)])
    second = arrivals.after([Sleep(1)])
    assert not first()
    assert not second(), "not before what was posted before it"
    torch.cuda.synchronize()
    assert first()
    assert second()


def test_who_asks_never_waits() -> None:
    """Another thread copies to pageable memory, for which the driver keeps others waiting."""
    arrivals, number = Arrivals(), torch.ones(1 << 20, device="cuda")
    arrivals.after([])
    work = Sleep(CYCLES)
    over = arrivals.after([work])
    copying = threading.Thread(target=_copy, args=(torch.empty(1 << 20), number, work.stream))
    copying.start()
    time.sleep(0.05)
    start = time.perf_counter()
    assert not any(over() for _ in range(1000))
    assert copying.is_alive()
    assert time.perf_counter() - start < 0.5
    copying.join()
    torch.cuda.synchronize()
    assert over()


def _copy(to: torch.Tensor, number: torch.Tensor, stream: torch.cuda.Stream) -> None:
    with torch.cuda.stream(stream):
        to.copy_(number)
