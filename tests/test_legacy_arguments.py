"""What the records say of changed arguments is so: each is given, and the answer is looked at."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import dilated_attention_compat as compat
import dilated_attention_pytorch as package
from dilated_attention_compat import Fate, Kind

CHANGED = [r for r in compat.RECORDS if r.kind in (Kind.ARGUMENT, Kind.DEFAULT)]
MASK = torch.ones(8, 8, dtype=torch.bool)
GIVEN: dict[str, Any] = {
    "op": "cutlass",
    "use_tf32": True,
    "device": "cpu",
    "dtype": torch.float32,
    "chunk_size_kv": 4,
    "attention_mask": MASK,
    "attn_mask": MASK,
    "need_weights": True,
    "return_memory_stats": True,
    "multihead_config": object(),
    "attention_config": object(),
    "block_size": 64,
    "use_checkpointing": True,
    "use_memory_pool": True,
    "max_cached_buffers": 2,
    "sparsity_ratio": 0.5,
    "pattern_type": "dilated_sparse",
    "enable_adaptive": True,
    "min_sparsity": 0.1,
    "max_sparsity": 0.9,
}
LISTS = {"segment_lengths": [4, 8], "dilation_rates": [1, 2]}
WIDTHS = {"embed_dim": 8, "num_heads": 2}


def make(name: str, **options: Any) -> nn.Module:
    widths = WIDTHS if "ultihead" in name else {}
    lists = {} if name == "RingAttentionCorrectV2" else LISTS
    made: nn.Module = getattr(package, name)(**{**lists, **widths, **options})
    return made


def call(module: nn.Module, *inputs: torch.Tensor, **options: Any) -> torch.Tensor:
    out = module(*inputs, **options)
    first: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return first


def inputs(name: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shape = (1, 8, 8) if "ultihead" in name else (1, 8, 2, 4)
    return list(torch.randn(3, *shape))


def parts(name: str) -> tuple[str, str, str]:
    """Class or function, method or nothing, argument."""
    match = re.fullmatch(r"(\w+)(?:\.(\w+))?\((.*)\)", name)
    assert match
    return match[1], match[2] or "", match[3]


GONE = [record for record in CHANGED if record.fate is Fate.GONE]


@pytest.mark.parametrize("record", GONE, ids=lambda record: record.name)
def test_a_gone_argument_raises_or_says_that_it_has_no_effect(record: compat.LegacyRecord) -> None:
    owner, method, option = parts(record.name)
    given = {option: GIVEN[option]}
    if "without effect: a FutureWarning" in record.why:
        with pytest.warns(FutureWarning, match=rf"{owner}: {option} no longer has an effect"):
            make(owner, **given)
        return
    assert "raises" in record.why
    said = rf"\b{option}\b"
    if not method:
        with pytest.raises((TypeError, ValueError), match=said):
            make(owner, **given)
        return
    module = make(owner)
    with pytest.raises(ValueError, match=said):
        getattr(module, method)(*inputs(owner), **given)


def honours_softmax_scale() -> None:
    given = inputs("DilatedAttention")
    plain, scaled = (make("DilatedAttention", softmax_scale=s) for s in (None, 2.0))
    assert not torch.equal(call(plain, *given), call(scaled, *given))


def drops_weights_once(name: str, option: str) -> None:
    # Values of 1 and a dropout of 0.5: an output is a share of kept weights, doubled. A second
    # dropout, on the output, would set whole outputs to 0 where some weight was kept.
    module = make(name, **{option: 0.5}, **({"layer_norm": False} if "ultihead" in name else {}))
    given = inputs(name)
    torch.manual_seed(0)
    drawn = [call(module, *given) for _ in range(2)]
    assert not torch.equal(*drawn)
    torch.testing.assert_close(
        call(module.eval(), *given), call(module, *given), rtol=0, atol=0
    )  # fmt: skip
    if "ultihead" in name:
        return
    ones = torch.ones(1, 8, 2, 4)
    out = call(module.train(), given[0], given[1], ones)
    assert bool((out.eq(0).all(-1) | out.ne(0).all(-1)).all())


def honours_the_lists() -> None:
    given = inputs("RingDilatedAttentionV2")
    dense = make("RingAttentionCorrectV2")
    dilated = make("RingDilatedAttentionV2")
    assert not torch.allclose(call(dense, *given), call(dilated, *given))


def honours_padding(name: str) -> None:
    module, given = make(name), inputs(name)
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[:, 4:] = True
    changed = [given[0], *(x.index_fill(1, torch.arange(4, 8), 7.0) for x in given[1:])]
    kept = [call(module, *x, key_padding_mask=mask) for x in (given, changed)]
    torch.testing.assert_close(*kept, rtol=0, atol=0)
    assert not torch.equal(call(module, *given), call(module, *changed))


def value_stands_for_key(name: str) -> None:
    module, (query, key, _) = make(name), inputs(name)
    out = call(module, query, key)
    torch.testing.assert_close(out, call(module, query, key, key), rtol=0, atol=0)
    assert not torch.equal(out, call(module, query, key, query))


def mixes_all_branches(name: str) -> None:
    assert make(name).pattern.rule == "longnet"
    given = inputs(name)
    grouped = make(name, rule="head_groups")
    grouped.load_state_dict(make(name).state_dict())
    assert not torch.allclose(call(make(name), *given), call(grouped, *given))


def refuses_unknown_options(name: str) -> None:
    with pytest.raises(TypeError, match=r"has no option \['foo'\]; its options: \["):
        make(name, foo=1)


def takes_both_spellings() -> None:
    class Mine(nn.Module):
        def __init__(self, **options: Any) -> None:
            super().__init__()

    for number, name in enumerate(("multihead_mine", "mine")):
        cls = type(f"Mine{number}", (Mine,), {})
        package.register_multihead_attention(name, cls)
        assert type(package.create_multihead_dilated_attention("mine")) is cls
        assert type(package.create_multihead_dilated_attention("multihead_mine")) is cls


CORRECTED: dict[str, Callable[[], None]] = {
    "DilatedAttention(softmax_scale)": honours_softmax_scale,
    "RingDilatedAttentionV2(segment_lengths, dilation_rates)": honours_the_lists,
    "register_multihead_attention(name)": takes_both_spellings,
    **{
        f"{name}({option})": lambda name=name, option=option: drops_weights_once(name, option)  # type: ignore[misc]
        for name, option in (
            ("DilatedAttention", "attention_dropout"),
            ("MultiheadDilatedAttention", "dropout"),
            ("ImprovedDilatedAttention", "dropout"),
            ("ImprovedMultiheadDilatedAttention", "dropout"),
            ("RingDilatedAttentionV2", "dropout"),
            ("RingAttentionCorrectV2", "dropout"),
        )
    },
    **{
        f"{name}{what}": lambda check=check, name=name: check(name)  # type: ignore[misc]
        for name in ("MultiheadDilatedAttention", "ImprovedMultiheadDilatedAttention")
        for what, check in (
            (".forward(key_padding_mask)", honours_padding),
            (".forward(value=None)", value_stands_for_key),
        )
    },
    **{
        f"{name}(rule=None)": lambda name=name: mixes_all_branches(name)  # type: ignore[misc]
        for name in ("ImprovedDilatedAttention", "ImprovedMultiheadDilatedAttention")
    },
    **{
        f"{name}(**kwargs)": lambda name=name: refuses_unknown_options(name)  # type: ignore[misc]
        for name in ("create_dilated_attention", "create_multihead_dilated_attention")
    },
}


def test_every_corrected_argument_is_looked_at() -> None:
    assert set(CORRECTED) == {r.name for r in CHANGED if r.fate is Fate.CORRECTED}


@pytest.mark.parametrize("name", sorted(CORRECTED))
def test_a_corrected_argument_does_what_its_record_says(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CORRECTED[name]()
