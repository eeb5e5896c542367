"""Unknown names and options, third-party classes, and torch without distributed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.factory import (
    _registry,
    create_dilated_attention,
    create_multihead_dilated_attention,
    register_attention,
    register_multihead_attention,
)
from dilated_attention_pytorch.pattern import DilationPattern

SHORT: dict[str, Any] = {"segment_lengths": [8], "dilation_rates": [2]}
CREATE = [create_dilated_attention, create_multihead_dilated_attention]
BUILT_IN = [
    "distributed",
    "improved",
    "improved_distributed",
    "ring",
    "ring_distributed",
    "standard",
]


@pytest.fixture(autouse=True)
def _clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_CORES", dict(_registry._CORES))
    monkeypatch.setattr(_registry, "_MULTIHEADS", dict(_registry._MULTIHEADS))


class TakesPattern(nn.Module):
    def __init__(self, *, pattern: DilationPattern, colour: str = "red", **sizes: int) -> None:
        super().__init__()
        self.given = {"pattern": pattern, "colour": colour, **sizes}


class TakesLengths(nn.Module):
    def __init__(
        self,
        segment_lengths: list[int],
        dilation_rates: list[int],
        embed_dim: int | None = None,
        num_heads: int | None = None,
        colour: str = "red",
    ) -> None:
        super().__init__()
        self.given = (segment_lengths, dilation_rates, embed_dim, num_heads, colour)


@pytest.mark.parametrize("create", CREATE)
@pytest.mark.parametrize("name", ["block_sparse", "", "Ring", "multihead_nothing"])
def test_an_unknown_type_lists_what_exists(create: Callable[..., nn.Module], name: str) -> None:
    with pytest.raises(ValueError, match="Unknown attention type") as error:
        create(name)
    assert str(["auto", *BUILT_IN]) in str(error.value)


@pytest.mark.parametrize("create", CREATE)
@pytest.mark.parametrize("name", ["auto", *BUILT_IN])
def test_an_unknown_option_lists_what_exists(create: Callable[..., nn.Module], name: str) -> None:
    with pytest.raises(TypeError, match=r"has no option \['foo'\]; its options: \[") as error:
        create(name, **SHORT, foo=1)
    assert "'softmax_scale'" in str(error.value)
    assert ("'group'" in str(error.value)) is (name not in ("auto", "standard", "improved"))


@pytest.mark.parametrize("create", CREATE)
@pytest.mark.parametrize("name", ["standard", "improved"])
def test_one_device_has_no_ring_options(create: Callable[..., nn.Module], name: str) -> None:
    with pytest.raises(TypeError, match=r"has no option \['layout', 'ring_size'\]"):
        create(name, **SHORT, ring_size=2, layout="sharded")


def test_an_option_given_twice_under_two_names() -> None:
    with pytest.raises(TypeError, match="attention_dropout was given twice"):
        create_dilated_attention("standard", dropout=0.1, attention_dropout=0.2)


@pytest.mark.parametrize("create", CREATE)
def test_an_unknown_rule(create: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="unknown rule 'nearest'"):
        create("standard", **SHORT, rule="nearest")


def test_a_third_party_class_gets_the_whole_pattern() -> None:
    register_attention("mine", TakesPattern)
    module = create_dilated_attention("mine", **SHORT, rule="torchscale", colour="blue")
    pattern = DilationPattern.torchscale([8], [2])
    assert module.given == {"pattern": pattern, "colour": "blue"}
    with pytest.raises(ValueError, match="Unknown attention type 'mine'"):
        create_multihead_dilated_attention("mine")


def test_a_third_party_class_of_lengths_and_rates() -> None:
    register_attention("mine", TakesLengths)
    assert create_dilated_attention("mine", **SHORT).given == ([8], [2], None, None, "red")
    with pytest.raises(TypeError, match=r"has no option \['foo'\]; its options: \['colour'\]"):
        create_dilated_attention("mine", foo=1)
    for options in (
        {"pattern": DilationPattern.longnet([8], [2])},
        {**SHORT, "rule": "torchscale"},
    ):
        with pytest.raises(TypeError, match="takes no pattern="):
            create_dilated_attention("mine", **options)


@pytest.mark.parametrize("registered", ["mine", "multihead_mine"])
@pytest.mark.parametrize("asked", ["mine", "multihead_mine"])
def test_multihead_names_with_and_without_prefix(registered: str, asked: str) -> None:
    register_multihead_attention(registered, TakesLengths)
    module = create_multihead_dilated_attention(asked, 16, 4, [8], [2], colour="blue")
    assert module.given == ([8], [2], 16, 4, "blue")


def test_ones_own_name_can_be_registered_again() -> None:
    register_attention("mine", TakesLengths)
    register_attention("mine", TakesPattern)
    assert type(create_dilated_attention("mine", **SHORT)) is TakesPattern


@pytest.mark.parametrize("register", [register_attention, register_multihead_attention])
@pytest.mark.parametrize(
    ("name", "cls", "error", "message"),
    [
        ("ring", TakesPattern, ValueError, "'ring' cannot be registered"),
        ("auto", TakesPattern, ValueError, "'auto' cannot be registered"),
        ("", TakesPattern, ValueError, "'' cannot be registered"),
        (3, TakesPattern, TypeError, "name must be a str, got int"),
        ("mine", dict, TypeError, "cls must be a subclass of torch.nn.Module"),
        ("mine", TakesPattern(pattern=None), TypeError, "cls must be a subclass"),
    ],
)
def test_bad_registrations(
    register: Callable[..., None], name: Any, cls: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        register(name, cls)


FALLBACKS = {
    "ring": ("ImprovedDilatedAttention", "ImprovedMultiheadDilatedAttention"),
    "distributed": ("DilatedAttention", "MultiheadDilatedAttention"),
    "improved_distributed": ("ImprovedDilatedAttention", "ImprovedMultiheadDilatedAttention"),
    "ring_distributed": ("ImprovedDilatedAttention", "ImprovedMultiheadDilatedAttention"),
}


@pytest.mark.parametrize("kind", [0, 1], ids=["core", "multihead"])
@pytest.mark.parametrize("name", FALLBACKS)
def test_without_torch_distributed_the_ring_is_replaced_visibly(
    name: str, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = CREATE[kind](name, **SHORT)
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    substitute = FALLBACKS[name][kind]
    with pytest.warns(RuntimeWarning, match="lacks; using") as caught:
        module = CREATE[kind](name, **SHORT, ring_size=2)
    text = str(caught[0].message)
    assert type(module) is getattr(modules, substitute)
    assert name in text
    assert substitute in text
    assert "['ring_size']" in text
    assert caught[0].filename == __file__
    # The same function with the same parameters.
    assert (module.pattern, module.attention.output_scale) == (usual.pattern, 1.0)
    assert list(module.state_dict()) == list(usual.state_dict())
    with pytest.raises(TypeError, match="has no option"), pytest.warns(RuntimeWarning):
        CREATE[kind](name, **SHORT, foo=1)
