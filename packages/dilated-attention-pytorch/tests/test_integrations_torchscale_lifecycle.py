"""Replaced models copied, pickled, compiled, frozen; what would be lost; torchscale's cache."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dilated_attention_oracle import check
from dilated_attention_pytorch.integrations import (
    attention_maps,
    compare,
    layers_of,
    padding,
    replace_dilated_attention,
)
from support.torchscale_modules import Model, bare, built, lengths_mask, pinned


def rows(n: int = 23, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(pinned("encoder")["x"])[:, :n].to(dtype)


def masked(n: int = 23) -> Tensor:
    return lengths_mask([n, 14], n)


def test_a_copy_has_its_own_weights_operator_and_padding() -> None:
    model, x = built("encoder"), rows()
    model(x, masked())
    twin = copy.deepcopy(model)
    expected = model(x)
    assert torch.equal(twin(x), expected)
    layers_of(twin)["self_attn"].exact = True
    with padding(twin, masked()):
        assert torch.equal(model(x), expected)
        inside = copy.deepcopy(twin)
    assert not torch.equal(twin(x), expected)
    # A copy made inside the context is not told of its end, and so begins without a mask.
    assert torch.equal(inside(x), twin(x))


def test_a_context_inside_another_gives_back_the_outer_mask() -> None:
    model, x = built("encoder"), rows()
    with padding(model, masked()):
        outer = model(x)
        with padding(model, lengths_mask([9, 9], 23)):
            assert not torch.equal(model(x), outer)
        assert torch.equal(model(x), outer)
    assert not torch.equal(model(x), outer)


@pytest.mark.parametrize("exact", [False, True])
def test_a_model_is_pickled_and_saved_whole(exact: bool) -> None:
    model, x = built("decoder", exact=exact), rows()
    model(x, masked(), is_causal=True)
    with padding(model, masked()):
        again = pickle.loads(pickle.dumps(model))
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for other in (again, torch.load(stored, weights_only=False)):
        assert torch.equal(other(x, is_causal=True), model(x, is_causal=True))


def test_the_state_goes_both_ways() -> None:
    theirs, ours = bare(), replace_dilated_attention(bare())
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]


def test_a_model_on_the_meta_device_is_replaced_and_filled_later() -> None:
    with torch.device("meta"):
        model = bare()
    replace_dilated_attention(model).to_empty(device="cpu")
    filled = built("encoder", torch.float32)
    model.load_state_dict(filled.state_dict())
    x = rows(dtype=torch.float32)
    assert torch.equal(model(x), filled(x))


def test_frozen_parameters_stay_frozen_and_get_no_gradient() -> None:
    model = bare()
    model.requires_grad_(False)
    replace_dilated_attention(model)
    x = rows(dtype=torch.float32)
    assert not model(x).requires_grad
    model.self_attn.get_submodule("v_proj").requires_grad_()
    model(x).sum().backward()
    found = {name for name, p in model.named_parameters() if p.grad is not None}
    assert found == {"self_attn.v_proj.weight", "self_attn.v_proj.bias"}


@pytest.mark.parametrize("n", [1, 2, 4, 5])
@pytest.mark.parametrize("exact", [False, True])
def test_sequences_shorter_than_every_segment(exact: bool, n: int) -> None:
    """Of one row and up; padded to more rows they are the same."""
    model, x = built("encoder", exact=exact), rows()
    alone = model(x[:, :n])
    alone.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    together = model(x, lengths_mask([n, n], 23))[:, :n].detach().numpy()
    expected = alone.detach().numpy()
    check("short", together, expected, expected, "float64")


def test_a_compiled_model_follows_the_operator_that_is_chosen() -> None:
    model, x = built("encoder", torch.float32), rows(dtype=torch.float32)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for exact in (False, True):
        layers_of(model)["self_attn"].exact = exact
        found, expected = (run(x).detach().numpy() for run in (compiled, model))
        check("compiled", found, expected, expected, "float32")


def compiled_inside(model: Any) -> None:
    model.self_attn = torch.compile(model.self_attn, backend="eager")


def own_forward(model: Any) -> None:
    model.self_attn.forward = lambda *args: None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda model: model.self_attn.register_forward_hook(print), "has _forward_hooks, which"),
        (
            lambda model: model.self_attn.register_full_backward_hook(print),
            "has _backward_hooks, which",
        ),
        (own_forward, "has a forward of its own"),
        (compiled_inside, "is compiled, which would be lost"),
        (lambda model: model.self_attn.compile(backend="eager"), "is compiled, which"),
    ],
)
def test_what_would_be_lost_in_silence_is_refused(
    spoil: Callable[[nn.Module], None], words: str
) -> None:
    model = bare()
    spoil(model)
    with pytest.raises(ValueError, match=words):
        replace_dilated_attention(model)


def test_dropout_in_training_says_how_to_mend_it() -> None:
    model = replace_dilated_attention(bare(attention_dropout=0.1))
    x = rows(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"attention_dropout=0.1 in training needs exact=True"):
        model(x)
    with pytest.raises(ValueError, match=r"layers_of\(model\)"):
        model(x, masked())
    layers_of(model)["self_attn"].dropout = 0.0
    model(x)


def steps(model: Model, x: Tensor, sizes: list[int]) -> Tensor:
    """The rows of x in pieces, through torchscale's cache."""
    state: dict[str, Any] = {}
    layer = layers_of(model)["self_attn"]
    return torch.cat(
        [
            layer(piece, piece, piece, state, is_first_step=not state, is_causal=True)[0]
            for piece in x.split(sizes, dim=1)
        ],
        dim=1,
    )


@pytest.mark.parametrize("n", [1, 7, 23])
@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_the_cache_gives_the_rows_of_the_whole_sequence(name: str, n: int) -> None:
    """With and without xPos, beyond the first segment, where torchscale's own code fails."""
    model, x = built(name, exact=True).eval(), rows(n)
    expected = model(x, is_causal=True).detach().numpy()
    for sizes in ([1] * n, [n - n // 2, n // 2], [n]):
        found = steps(model, x, sizes).detach().numpy()
        check("cached", found, expected, expected, "float64")


def test_the_cache_can_be_reordered_as_torchscales() -> None:
    model, x = built("decoder", exact=True), rows()
    layer, state = layers_of(model)["self_attn"], {}
    layer(x[:, :9], x[:, :9], x[:, :9], state, is_causal=True)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "prev_key": (2, 4, 9, 6),
        "prev_value": (2, 4, 9, 6),
    }
    turned = {key: value.flip(0) for key, value in state.items()}
    found = layer(x.flip(0)[:, 9:], x.flip(0)[:, 9:], x.flip(0)[:, 9:], turned, is_causal=True)[0]
    expected = model(x, is_causal=True).flip(0)[:, 9:].detach().numpy()
    check("turned", found.detach().numpy(), expected, expected, "float64")


@pytest.mark.parametrize(
    ("exact", "options", "words"),
    [
        (False, {}, "without exact=True a row's numbers depend on the length"),
        (True, {"is_causal": False}, "rows can only be appended to causal attention"),
        (True, {"key_padding_mask": masked()}, "it holds no padding"),
        (True, {"incremental_state": None, "is_first_step": True}, "belongs to an empty"),
    ],
)
def test_a_cache_that_cannot_be_served_is_refused(
    exact: bool, options: dict[str, Any], words: str
) -> None:
    layer, x = layers_of(built("decoder", exact=exact))["self_attn"], rows()
    given: dict[str, Any] = {"incremental_state": {}, "is_causal": True} | options
    with pytest.raises(ValueError, match=words):
        layer(x, x, x, **given)


def test_a_cache_that_does_not_fit_is_refused() -> None:
    model, x = built("decoder", exact=True), rows()
    layer, state = layers_of(model)["self_attn"], {}
    layer(x, x, x, state, is_causal=True)
    with pytest.raises(ValueError, match="belongs to an empty incremental_state"):
        layer(x, x, x, state, is_causal=True, is_first_step=True)
    with pytest.raises(ValueError, match="do not continue; begin with an empty dict"):
        layer(x[:1], x[:1], x[:1], state, is_causal=True)
    dropping = replace_dilated_attention(bare(attention_dropout=0.1), exact=True)
    x = x.float()
    with pytest.raises(ValueError, match=r"would be dropped; call model.eval\(\)"):
        dropping.self_attn(x, x, x, {}, is_causal=True)


@pytest.mark.parametrize("look", [attention_maps, lambda model, rows, x: compare(model, x)])
def test_maps_and_comparisons_need_the_whole_sequence_in_one_call(look: Callable[..., Any]) -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.state = built("decoder", exact=True), {}

        def forward(self, x: Tensor) -> Tensor:
            layer = layers_of(self.model)["self_attn"]
            found: Tensor = layer(x, x, x, incremental_state=self.state, is_causal=True)[0]
            return found

    with pytest.raises(ValueError, match="the whole sequence"):
        look(Cached(), [0], rows())
