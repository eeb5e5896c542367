"""Message buffers: made once, never given to two, and never more than were in use at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dilated_attention_pytorch.comm import Workspace
from dilated_attention_pytorch.comm import workspace as module

CPU = torch.device("cpu")


def take(workspace: Workspace, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return workspace.empty(count, dtype, CPU)


def test_a_buffer_serves_again_once_nobody_holds_it() -> None:
    workspace = Workspace(keep=True)
    first = take(workspace, 100)
    address = first.data_ptr()
    part = first[20:30].view(2, 5)
    del first
    assert take(workspace, 100).data_ptr() != address, "a view of it is still there"
    del part
    assert {take(workspace, 100).data_ptr() for _ in range(3)} == {address} | {
        take(workspace, 100).data_ptr()
    }
    assert workspace.made == 2


def test_a_buffer_that_is_given_to_two_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: everything counts as free."""
    monkeypatch.setattr(module, "_is_free", lambda buffer: True)
    workspace = Workspace(keep=True)
    one, other = take(workspace, 8).fill_(1), take(workspace, 8).fill_(2)
    assert one.data_ptr() == other.data_ptr()
    assert one.tolist() == [2.0] * 8


def test_steps_of_one_kind_make_no_buffer_after_the_first() -> None:
    workspace = Workspace(keep=True)

    def step() -> None:
        held = [take(workspace, 1000, torch.bfloat16) for _ in range(4)]
        joined = take(workspace, 2000, torch.bfloat16)
        del held
        wide = take(workspace, 2000)
        home = [take(workspace, 1000) for _ in range(2)]
        assert len({x.data_ptr() for x in (joined, wide, *home)}) == 4

    made = []
    for _ in range(6):
        step()
        made.append(workspace.made)
    assert made[-1] == made[1], "the second step may still find buffers of other sizes"


# Buffers in use at once and their lengths: 800 elements at most, and no phase finds another's.
PHASES = ((8, 100), (1, 800), (2, 300))


def kept_after_phases() -> int:
    workspace = Workspace(keep=True)
    for number, count in PHASES:
        held = [take(workspace, count) for _ in range(number)]
        del held
    return workspace.nbytes // 4


def test_at_most_twice_is_kept_what_was_in_use_at_once() -> None:
    assert 800 < kept_after_phases() <= 2 * 800


def test_what_is_kept_beyond_that_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: nothing makes room."""
    monkeypatch.setattr(module._Shelf, "make_room", lambda shelf, limit: None)
    assert kept_after_phases() == 800 + 800 + 600


def test_dtypes_share_and_a_small_one_takes_no_large_one() -> None:
    workspace = Workspace(keep=True)
    address = take(workspace, 100, torch.float64).data_ptr()
    halves = take(workspace, 400, torch.bfloat16)
    assert (halves.data_ptr(), halves.shape, halves.dtype) == (address, (400,), torch.bfloat16)
    del halves
    assert take(workspace, 10).data_ptr() != address
    assert take(workspace, 0).numel() == 0


@pytest.mark.parametrize(("dtype", "count"), [(torch.uint8, 11), (torch.float32, 2)])
def test_a_buffer_of_inference_mode_serves_training(dtype: torch.dtype, count: int) -> None:
    workspace = Workspace(keep=True)
    with torch.inference_mode():
        take(workspace, 11, torch.uint8)
    again = take(workspace, count, dtype)
    assert again.shape == (count,)
    # As rows are packed: a tensor of inference mode would be refused here.
    torch.index_select(
        torch.ones(1, dtype=dtype), 0, torch.zeros(count, dtype=torch.int64), out=again
    )
    assert again.tolist() == [1] * count
    assert workspace.made == 1


def test_release_forgets_what_nobody_uses() -> None:
    workspace = Workspace(keep=True)
    held, gone = take(workspace, 100), take(workspace, 50)
    del gone
    workspace.release()
    assert workspace.nbytes == 400
    assert held.numel() == 100


def test_over_gloo_nothing_is_kept() -> None:
    workspace = Workspace(keep=False)
    held = [take(workspace, 100) for _ in range(2)]
    del held
    take(workspace, 100)
    assert (workspace.made, workspace.nbytes) == (3, 0)
