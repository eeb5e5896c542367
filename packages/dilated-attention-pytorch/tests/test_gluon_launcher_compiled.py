"""What the Hopper kernels' launcher hands to Triton's C function, which is a fake one here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dilated_attention_pytorch import BackendError
from dilated_attention_pytorch.kernels import gluon
from dilated_attention_pytorch.schedule.streams import View

TRITON = importlib.util.find_spec("triton") is not None and importlib.metadata.version(
    "triton"
).startswith("3.6.")
pytestmark = pytest.mark.skipif(not TRITON, reason="needs triton 3.6; nox -s interpret has it")

GRID = (6, 2, 1)
STREAM, FUNCTION, PACKED = 77, 88, (4, 1, 999)
CONSTANTS = (3, 64, True)
# Of the sequence itself two views, one of a tensor of rows that lie elsewhere.
SOURCES = ((0, View(1, 1, 40)), (0, View(2, 2, 20)), (1, View(1, 1, 8)))


class Driver:
    """Triton's driver: its encoder returns what it was asked for, and counts."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(fill_tma_descriptor=self._encode)
        self.encoded = 0

    def _encode(self, address: int, *rest: Any) -> tuple[Any, ...]:
        self.encoded += 1
        return (address, *(tuple(x) if isinstance(x, list) else x for x in rest))

    def get_current_stream(self, device: int) -> int:
        """A stream's handle."""
        return STREAM


class Kernel:
    """A kernel, and what compiling it gives, around Triton's own expansion of descriptors."""

    def __init__(self, scratch: int = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.ordinary: list[tuple[Any, ...]] = []
        self.metadata = SimpleNamespace(tensordesc_meta=[])
        self.function, self.packed_metadata = FUNCTION, PACKED
        self.run = SimpleNamespace(
            global_scratch_size=0,
            profile_scratch_size=scratch,
            launch_cooperative_grid=False,
            launch_pdl=False,
        )

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        """A function that launches as Triton does."""

        def launch(*arguments: Any, num_warps: int = 4) -> Kernel:
            self._compile(arguments)
            flags = (self.run.launch_cooperative_grid, self.run.launch_pdl)
            fixed = (STREAM, FUNCTION, *flags, None, None, PACKED, None, None, None)
            self.ordinary.append(arguments)
            self.run.launch(*grid, *fixed, *arguments)
            return self

        return launch

    def _compile(self, arguments: tuple[Any, ...]) -> None:
        from triton.backends.nvidia.driver import wrap_handle_tensordesc

        boxes = [x.block_shape for x in arguments if hasattr(x, "block_shape")]
        about = {"swizzle": 3, "elem_size": 2, "elem_type": 10, "fp4_padded": False}
        self.metadata.tensordesc_meta = [about | {"block_size": box} for box in boxes]
        signature = {
            i: "tensordesc<bf16[1,1,1,8,16]>" if hasattr(x, "block_shape") else "i32"
            for i, x in enumerate(arguments)
        }
        self.run.launch = wrap_handle_tensordesc(
            lambda *given: self.calls.append(given), signature, self.metadata.tensordesc_meta
        )


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Triton's driver for the test; failures that it records are forgotten after it."""
    from triton.runtime import driver as config

    fake = Driver()
    monkeypatch.setattr(config, "_active", fake)
    monkeypatch.setattr("dilated_attention_pytorch.kernels.gluon.launcher.failures", [])
    return fake


def _launcher(kernel: Any, grid: tuple[int, int, int] = GRID) -> Any:
    from dilated_attention_pytorch.kernels.gluon.launcher import Launcher

    table = torch.zeros(16, dtype=torch.int32)
    sides = (SOURCES, SOURCES)
    return Launcher(kernel, grid, table, (40, 0.5), sides, CONSTANTS, block=8, columns=16)


def _side() -> tuple[Tensor, Tensor]:
    """A sequence's rows, and others of one head."""
    return (
        torch.zeros(2, 40, 4, 16, dtype=torch.bfloat16),
        torch.zeros(2, 8, 1, 16, dtype=torch.bfloat16),
    )


def _addresses(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.data_ptr() if isinstance(x, Tensor) else x for x in arguments)


def _descriptors(arguments: tuple[Any, ...]) -> list[int]:
    """Addresses in the descriptors, in the kernel's order."""
    return [x[0] for x in arguments if isinstance(x, tuple) and x is not PACKED]


def test_the_c_function_gets_what_triton_gives_it(driver: Driver) -> None:
    kernel, streamed, tensors = Kernel(), (_side(), _side()), _side()
    launch = _launcher(kernel)
    launch(streamed, *tensors)
    launch(streamed, *tensors)
    assert len(kernel.ordinary) == 1, "the second launch goes below Triton's launcher"
    first, second = kernel.calls
    assert _addresses(first) == second
    assert sum(x is None for x in second) == 5 + 2 * (gluon.MOST_VIEWS - len(SOURCES))


def _several(number: int) -> list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Both sides several times; all live at once, so no address comes twice."""
    return [(_side(), _side()) for _ in range(number)]


def test_a_descriptor_is_of_the_tensor_that_its_view_reads(driver: Driver) -> None:
    kernel, tensors = Kernel(), _side()
    launch = _launcher(kernel)
    for streamed in _several(3):
        launch(streamed, *tensors)
        wanted = [side[i].data_ptr() for side in streamed for i, _ in SOURCES]
        assert _descriptors(kernel.calls[-1]) == wanted


def test_an_address_is_encoded_once(driver: Driver) -> None:
    kernel, tensors = Kernel(), _side()
    launch = _launcher(kernel)
    one, other = _several(2)
    counts = []
    for streamed in (one, one, one, other, one, other, (one[0], other[1])):
        before = driver.encoded
        launch(streamed, *tensors)
        counts.append(driver.encoded - before)
    views = 2 * len(SOURCES)
    # The first two: by Triton, and for what is kept.
    assert counts == [views, views, 0, views, 0, 0, views]


def test_the_least_recent_addresses_are_forgotten(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dilated_attention_pytorch.kernels.gluon import launcher

    monkeypatch.setattr(launcher, "MOST_ADDRESSES", 2)
    kernel, tensors = Kernel(), _side()
    launch = _launcher(kernel)
    one, two, three = _several(3)
    launch(one, *tensors)
    for streamed in (one, two, one, three):
        launch(streamed, *tensors)
    before = driver.encoded
    launch(one, *tensors)
    assert driver.encoded == before
    launch(two, *tensors)
    assert driver.encoded == before + 2 * len(SOURCES)
    assert _descriptors(kernel.calls[-1])[0] == two[0][0].data_ptr()


@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
@pytest.mark.parametrize("chain", [False, True], ids=["function", "chain"])
def test_who_listens_to_launches_hears_of_all(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, hook: str, chain: bool
) -> None:
    from triton import knobs

    kernel, streamed, tensors = Kernel(), (_side(), _side()), _side()
    launch = _launcher(kernel)
    launch(streamed, *tensors)
    with monkeypatch.context() as patch:
        calls = knobs.HookChain()
        calls.add(print)
        patch.setattr(knobs.runtime, hook, calls if chain else print)
        launch(streamed, *tensors)
    assert len(kernel.ordinary) == 2
    launch(streamed, *tensors)
    assert len(kernel.ordinary) == 2
    assert _addresses(kernel.calls[1]) == kernel.calls[2]


def test_memory_for_a_profiler_is_left_to_triton(driver: Driver) -> None:
    kernel, streamed, tensors = Kernel(scratch=128), (_side(), _side()), _side()
    launch = _launcher(kernel)
    for _ in range(3):
        launch(streamed, *tensors)
    assert len(kernel.ordinary) == 3


def test_nothing_to_do(driver: Driver) -> None:
    kernel = Kernel()
    _launcher(kernel, (0, 2, 1))((_side(), _side()), *_side())
    assert not kernel.calls


def test_another_launcher_of_triton_is_a_reason(driver: Driver) -> None:
    from dilated_attention_pytorch.kernels.gluon import launcher

    class Other(Kernel):
        def _compile(self, arguments: tuple[Any, ...]) -> None:
            super()._compile(arguments)
            self.run.launch = lambda *given: None

    with pytest.raises(BackendError, match="backend='triton' serves this call"):
        _launcher(Other())((_side(), _side()), *_side())
    assert "has another launcher" in launcher.failures[0]


def test_a_kernel_that_does_not_compile_is_a_reason(driver: Driver) -> None:
    import triton

    from dilated_attention_pytorch.kernels.gluon import launcher

    class Broken(Kernel):
        def _compile(self, arguments: tuple[Any, ...]) -> None:
            raise triton.CompilationError("", None, "a planted reason")

    with pytest.raises(BackendError, match="did not compile"):
        _launcher(Broken())((_side(), _side()), *_side())
    assert "a planted reason" in launcher.failures[0]
