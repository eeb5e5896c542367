"""Which state dicts warn: those of the historical classes that computed something else."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dilated_attention_pytorch import nn as modules

with np.load(Path(__file__).parent / "data" / "legacy_modules.npz") as archive:
    LEGACY = dict(archive)
PREFIX = "ImprovedMultiheadDilatedAttention/full/state/"
SHORT = {"segment_lengths": [16], "dilation_rates": [2]}
CORRECTED_CORES = [
    modules.ImprovedDilatedAttention,
    modules.RingDilatedAttentionV2,
    modules.TrueRingDilatedAttention,
]
CORRECTED_MULTIHEADS = [
    modules.ImprovedMultiheadDilatedAttention,
    modules.RingMultiheadDilatedAttentionV2,
]


def historical_state(version: int | None) -> OrderedDict[str, torch.Tensor]:
    """A state dict as the historical fused classes saved it; None: saved without metadata."""
    state: OrderedDict[str, torch.Tensor] = OrderedDict(
        (name.removeprefix(PREFIX), torch.from_numpy(LEGACY[name]))
        for name in LEGACY
        if name.startswith(PREFIX)
    )
    if version is not None:
        state._metadata = OrderedDict({"": {"version": version}})  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize("build", CORRECTED_MULTIHEADS)
@pytest.mark.parametrize("version", [None, 1])
def test_historical_weights_load_with_one_warning(
    build: Callable[..., nn.Module], version: int | None
) -> None:
    module = build(48, 6, **SHORT)
    with pytest.warns(FutureWarning, match="trained under wrong attention") as caught:
        module.load_state_dict(historical_state(version))
    assert len(caught) == 1
    assert "docs/guides/ring-attention-migration.md" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert torch.equal(module.qkv_proj.weight, historical_state(None)["qkv_proj.weight"])


@pytest.mark.parametrize("build", CORRECTED_MULTIHEADS)
def test_each_of_two_layers_is_named(build: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(build(48, 6, **SHORT), build(48, 6, **SHORT))
    state = {f"{i}.{name}": value for i in (0, 1) for name, value in historical_state(None).items()}
    with pytest.warns(FutureWarning) as caught:
        model.load_state_dict(state)
    assert [str(warning.message)[:2] for warning in caught] == ["0 ", "1 "]


@pytest.mark.parametrize("build", CORRECTED_MULTIHEADS)
def test_the_module_of_today_loads_its_own_silently(build: Callable[..., nn.Module]) -> None:
    buffer = io.BytesIO()
    torch.save(build(48, 6, **SHORT).state_dict(), buffer)
    buffer.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(48, 6, **SHORT).load_state_dict(torch.load(buffer, weights_only=True))


@pytest.mark.parametrize("build", CORRECTED_CORES)
def test_cores_have_no_weights_and_go_by_the_version(build: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(build(**SHORT))
    state = model.state_dict()
    assert list(state) == []
    state._metadata["0"]["version"] = 1
    with pytest.warns(FutureWarning, match=rf"0 \({build.__name__}\) was saved with version 1"):
        model.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict({})
        model.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    "build", [modules.MultiheadDilatedAttention, modules.DistributedMultiheadDilatedAttention]
)
def test_classes_that_were_right_or_are_new_never_warn(build: Callable[..., nn.Module]) -> None:
    module = build(48, 6, **SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.load_state_dict(dict(module.state_dict()))


@pytest.mark.parametrize("build", CORRECTED_MULTIHEADS)
def test_a_partial_load_that_skips_the_module_is_silent(build: Callable[..., nn.Module]) -> None:
    model = nn.ModuleDict({"attention": build(48, 6, **SHORT), "head": nn.Linear(2, 2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict({"head.bias": torch.zeros(2)}, strict=False)
