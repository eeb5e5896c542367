"""The memory meter counts what is alive: views, saved tensors, gradients, resizes, frees."""

from __future__ import annotations

import torch

from support.memory_meter import MemoryMeter

KIB = 1024


def test_views_add_nothing_and_frees_subtract() -> None:
    with MemoryMeter() as meter:
        x = torch.zeros(256)
        view = x[10:].view(2, -1)
        assert meter.live == KIB
        del x
        assert meter.live == KIB
        del view
        assert (meter.live, meter.peak) == (0, KIB)


def test_what_autograd_saves_counts_until_backward() -> None:
    x = torch.zeros(256, requires_grad=True)
    with MemoryMeter() as meter:
        meter.track(x)
        y = x.exp().sin().sum()
        # x, exp for sin's backward, the sum; sin's own result is not saved.
        assert meter.live == 2 * KIB + 4
        y.backward()
        assert x.grad is not None
        assert meter.live == 2 * KIB + 4
        del y, x.grad
        assert meter.live == KIB
    assert meter.peak >= 3 * KIB


def test_peak_is_of_one_moment_and_can_start_anew() -> None:
    with MemoryMeter() as meter:
        for _ in range(3):
            torch.zeros(256)
        assert (meter.live, meter.peak) == (0, KIB)
        held = torch.zeros(512)
        meter.reset_peak()
        assert meter.peak == 2 * KIB
        held.resize_(1024)
        assert (meter.live, meter.peak) == (4 * KIB, 4 * KIB)


def test_an_old_tensor_counts_once_however_often_it_is_seen() -> None:
    x = torch.zeros(256)
    with MemoryMeter() as meter:
        meter.track(x, x[5:])
        x.add_(1.0)
        assert meter.live == KIB


def test_a_freed_address_used_again_counts_again() -> None:
    with MemoryMeter() as meter:
        for _ in range(50):
            held = torch.empty(256)
            del held
        kept = [torch.empty(256) for _ in range(4)]
        assert meter.live == 4 * KIB
        kept.clear()
    assert meter.live == 0
