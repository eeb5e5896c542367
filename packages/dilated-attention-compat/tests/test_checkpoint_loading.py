"""Historical weights in present modules: all four families of keys, and what is said of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import dilated_attention_compat as compat
from dilated_attention_compat import WrongAttentionError, load_legacy_state_dict
from dilated_attention_compat.checkpoint_layers import Family, find_layers
from dilated_attention_pytorch import (
    ImprovedMultiheadDilatedAttention,
    MultiheadDilatedAttention,
    RingMultiheadDilatedAttentionV2,
)

E, H = 8, 2
SIZES = {"segment_lengths": [4, 8], "dilation_rates": [1, 2]}
Tensors = dict[str, torch.Tensor]


def drawn(*shapes: tuple[str, tuple[int, ...]]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes}


def linears(*names: str, rows: int = E) -> list[tuple[str, tuple[int, ...]]]:
    return [
        pair
        for name in names
        for pair in ((f"{name}.weight", (rows, E)), (f"{name}.bias", (rows,)))
    ]


def norms(*names: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.{kind}", (E,)) for name in names for kind in ("weight", "bias")]


FUSED = drawn(*linears("qkv_proj", rows=3 * E), *linears("out_proj"), *norms("q_ln", "k_ln"))
FUSED_BARE = drawn(*linears("qkv_proj", rows=3 * E), *linears("out_proj"))
SEPARATE = linears("q_proj", "k_proj", "v_proj", "out_proj")
NORMED = drawn(*SEPARATE, *norms("q_ln", "k_ln"))
BARE = drawn(*SEPARATE)
FKODOM = drawn(*SEPARATE, *norms("norm"))
FAMILIES = {
    Family.FUSED: FUSED,
    Family.NORMED: NORMED,
    Family.BARE: BARE,
    Family.FKODOM: FKODOM,
}


def ring(layer_norm: bool = True) -> nn.Module:
    return RingMultiheadDilatedAttentionV2(E, H, layer_norm=layer_norm, **SIZES)  # type: ignore[arg-type]


def improved(layer_norm: bool = True) -> nn.Module:
    return ImprovedMultiheadDilatedAttention(E, H, layer_norm=layer_norm, **SIZES)  # type: ignore[arg-type]


def standard(layer_norm: bool = True) -> nn.Module:
    return MultiheadDilatedAttention(E, H, layer_norm=layer_norm, **SIZES)  # type: ignore[arg-type]


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def joined(tensors: Tensors, kind: str) -> torch.Tensor:
    return torch.cat([tensors[f"{name}.{kind}"] for name in ("q_proj", "k_proj", "v_proj")])


def has_loaded(module: nn.Module, expected: Tensors) -> bool:
    now = module.state_dict()
    return now.keys() >= expected.keys() and all(
        torch.equal(now[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["", "_impl.", "attention_core.", "layers.0.attn._impl."])
def test_layers_are_found_by_their_keys(family: Family, prefix: str) -> None:
    (layer,) = find_layers({"other": 1, **prefixed(prefix, FAMILIES[family])})
    assert (layer.prefix, layer.family) == (prefix, family)
    bare = prefix.removesuffix("_impl.").removesuffix("attention_core.")
    assert layer.bare_prefix == bare
    assert bool(layer.lesson) == (family is not Family.NORMED or prefix.endswith("_impl."))


@pytest.mark.parametrize("make", [ring, improved])
@pytest.mark.parametrize("prefix", ["", "attention_core."])
def test_fused_weights_load_once_it_is_known_what_they_learned(
    make: Callable[[], nn.Module], prefix: str
) -> None:
    module = make()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(WrongAttentionError) as refused:
        load_legacy_state_dict(module, prefixed(prefix, FUSED))
    assert has_loaded(module, before)
    said = str(refused.value)
    for part in (
        "trained under wrong attention: the softmax ran over the heads",
        "load them into ImprovedMultiheadDilatedAttention or RingMultiheadDilatedAttention of "
        "dilated_attention_compat",
        "will not reproduce their outputs",
        "fine-tune",
        f"{compat.GUIDE}#checkpoints",
        "pass acknowledged=True",
    ):
        assert part in said
    notes = load_legacy_state_dict(module, prefixed(prefix, FUSED), acknowledged=True)
    assert has_loaded(module, FUSED)
    assert notes[0] in said
    assert "k_ln is carried along; it was never used" in notes[1]


def test_a_missing_k_ln_stays_as_it_was() -> None:
    module = ring()
    stripped = {name: tensor for name, tensor in FUSED.items() if not name.startswith("k_ln")}
    notes = load_legacy_state_dict(module, stripped, acknowledged=True)
    assert has_loaded(module, stripped)
    assert has_loaded(module, {"k_ln.weight": torch.ones(E), "k_ln.bias": torch.zeros(E)})
    assert "k_ln is not in the state dict" in notes[1]


def test_the_standard_layer_was_right_and_loads_without_a_word() -> None:
    module = standard()
    assert load_legacy_state_dict(module, NORMED) == []
    assert has_loaded(module, NORMED)


def test_keys_that_do_not_tell_need_a_word() -> None:
    module = standard(layer_norm=False)
    with pytest.raises(WrongAttentionError, match="do not tell which"):
        load_legacy_state_dict(module, BARE)
    load_legacy_state_dict(module, BARE, acknowledged=True)
    assert has_loaded(module, BARE)


def test_the_factorys_wrapper_says_that_it_was_block_sparse() -> None:
    module = standard(layer_norm=False)
    with pytest.raises(WrongAttentionError, match="every block of keys had a softmax of its own"):
        load_legacy_state_dict(module, prefixed("_impl.", BARE))
    load_legacy_state_dict(module, prefixed("_impl.", BARE), acknowledged=True)
    assert has_loaded(module, BARE)


def test_norm_becomes_q_ln_of_a_fused_layer() -> None:
    module = improved()
    with pytest.raises(WrongAttentionError, match="divided by its own sum"):
        load_legacy_state_dict(module, FKODOM)
    notes = load_legacy_state_dict(module, FKODOM, acknowledged=True)
    expected = {f"qkv_proj.{kind}": joined(FKODOM, kind) for kind in ("weight", "bias")}
    expected |= {f"q_ln.{kind}": FKODOM[f"norm.{kind}"] for kind in ("weight", "bias")}
    expected |= {f"out_proj.{kind}": FKODOM[f"out_proj.{kind}"] for kind in ("weight", "bias")}
    assert has_loaded(module, expected)
    assert "the layer: norm is q_ln now" in notes


def test_projections_are_fused_and_split_where_the_module_wants_it() -> None:
    fused, separate = improved(layer_norm=False), standard(layer_norm=False)
    load_legacy_state_dict(fused, BARE, acknowledged=True)
    assert has_loaded(fused, {f"qkv_proj.{k}": joined(BARE, k) for k in ("weight", "bias")})
    load_legacy_state_dict(separate, FUSED_BARE, acknowledged=True)
    now = separate.state_dict()
    for kind in ("weight", "bias"):
        assert torch.equal(joined(now, kind), FUSED_BARE[f"qkv_proj.{kind}"])


@pytest.mark.parametrize(
    ("module", "weights", "message"),
    [
        (ring, NORMED, "normalise q and k before the attention"),
        (standard, FUSED, "its norm follows the attention and nothing else"),
        (standard, FKODOM, "its norm follows the attention and nothing else"),
    ],
)
def test_what_the_module_would_not_compute_is_refused(
    module: Callable[[], nn.Module], weights: Tensors, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_legacy_state_dict(module(), weights, acknowledged=True)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("RingMultiheadDilatedAttention", FUSED),
        ("ImprovedMultiheadDilatedAttention", FUSED),
        ("BlockSparseRingMultiheadDilatedAttention", BARE),
    ],
)
def test_the_old_classes_keep_the_old_numbers_and_need_no_word(name: str, weights: Tensors) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        module = getattr(compat, name)(E, H, **SIZES)
    notes = load_legacy_state_dict(module.cpu(), weights)
    assert has_loaded(module, weights)
    assert all("k_ln" in note for note in notes)


class Model(nn.Module):
    """A model with two layers of ours and one of somebody else's with the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, E)
        self.blocks = nn.ModuleList([ring(), ring()])
        self.local = standard()
        self.other = nn.ModuleDict(
            {name: nn.Linear(E, E) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        )
        self.norm = nn.BatchNorm1d(E)


def test_a_whole_model_loads_strictly_and_the_rest_is_passed_on() -> None:
    source, target = Model(), Model()
    state = source.state_dict()
    for index in range(2):
        state |= prefixed(f"blocks.{index}.", FUSED)
    # As history saved it: its classes had no version, and other modules' versions are kept.
    for key in [key for key in state._metadata if key.startswith("blocks")]:
        state._metadata[key] = {"version": 1}
    with pytest.raises(WrongAttentionError, match=r"^blocks\.0 and 1 more: "):
        load_legacy_state_dict(target, state)
    load_legacy_state_dict(target, state, acknowledged=True)
    assert has_loaded(target, dict(state))
    missing = {name: tensor for name, tensor in state.items() if name != "embed.weight"}
    with pytest.raises(RuntimeError, match=r"embed\.weight"):
        load_legacy_state_dict(target, missing, acknowledged=True)


def test_the_present_classes_checkpoints_are_not_legacy() -> None:
    with pytest.raises(ValueError, match=r"saved by a present class; use module\.load_state_dict"):
        load_legacy_state_dict(ring(), ring().state_dict(), acknowledged=True)


@pytest.mark.parametrize(
    ("module", "weights"),
    [
        (ring(), {"state_dict": FUSED}),
        (ring(), {}),
        (nn.Linear(2, 2), FUSED),
        (ring(), prefixed("x.", FUSED)),
    ],
)
def test_what_has_no_fitting_layer_is_refused(module: nn.Module, weights: Tensors) -> None:
    with pytest.raises(ValueError, match="no attention layer that fits the module"):
        load_legacy_state_dict(module, weights, acknowledged=True)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_a_prefix_of_all_keys_is_named_with_its_cure(prefix: str) -> None:
    with pytest.raises(ValueError, match="has no attention layer that fits") as refused:
        load_legacy_state_dict(ring(), prefixed(prefix, FUSED), acknowledged=True)
    cure = f"consume_prefix_in_state_dict_if_present(state_dict, {prefix!r})"
    assert cure in str(refused.value)
    weights = prefixed(prefix, FUSED)
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(weights, prefix)
    load_legacy_state_dict(ring(), weights, acknowledged=True)


@pytest.mark.parametrize("wrong", [None, "old.pt", [FUSED]])
def test_what_is_no_state_dict_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected a state dict"):
        load_legacy_state_dict(ring(), wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "weights",
    [
        {**FUSED, "extra": torch.ones(1)},
        {name: tensor for name, tensor in FUSED.items() if name != "out_proj.bias"},
        {**FUSED, "qkv_proj.bias": torch.ones(3)},
    ],
    ids=["unknown key", "missing key", "wrong shape"],
)
def test_nothing_is_loaded_where_an_error_is_raised(weights: Tensors) -> None:
    module = ring()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RuntimeError, match="Error\\(s\\) in loading state_dict"):
        load_legacy_state_dict(module, weights, acknowledged=True)
    assert has_loaded(module, before)


def test_wrong_widths_are_load_state_dicts_own_error() -> None:
    module = RingMultiheadDilatedAttentionV2(2 * E, H, **SIZES)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_legacy_state_dict(module, FUSED, acknowledged=True)


def test_the_old_outputs_are_not_reproduced_and_compat_has_them() -> None:
    """What the message says: other outputs here, the old ones there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        old = compat.RingMultiheadDilatedAttention(E, H, [4, 8], [1, 2], device="cpu").eval()
        kept = compat.RingMultiheadDilatedAttention(E, H, [4, 8], [1, 2], device="cpu").eval()
        x = torch.randn(1, 8, E, generator=torch.Generator().manual_seed(1))
        load_legacy_state_dict(kept, old.state_dict())
        new = ring().eval()
        load_legacy_state_dict(new, old.state_dict(), acknowledged=True)
        with torch.no_grad():
            was, same, now = old(x)[0], kept(x)[0], new(x)[0]
    assert torch.equal(was, same)
    assert (was - now).norm() > 0.1 * was.norm()
