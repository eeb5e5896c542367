"""The registry is complete, its records agree with the code, and imports stay light."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch

import dilated_attention_compat as compat

HISTORICAL_SIGNATURES = {
    "RingDilatedAttention": (
        "segment_lengths, dilation_rates, dropout=0.0, use_tf32=True, block_size=1024, "
        "ring_size=None, use_checkpointing=True, device=None, dtype=None",
        "query, key, value, is_causal=False, attention_mask=None",
    ),
    "RingMultiheadDilatedAttention": (
        "embed_dim, num_heads, segment_lengths, dilation_rates, dropout=0.0, bias=True, "
        "layer_norm=True, layer_norm_eps=1e-05, gamma_init=1.0, block_size=1024, ring_size=None, "
        "use_checkpointing=True, use_tf32=True, use_flash_attention=True, compile_model=False, "
        "device=None, dtype=None",
        "query, key=None, value=None, key_padding_mask=None, need_weights=False, attn_mask=None, "
        "is_causal=False, average_attn_weights=True",
    ),
}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def run_fresh(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def names_and_defaults(function: object) -> str:
    parameters = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]
    shown = (
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in parameters
        if p.name != "self"
    )
    return ", ".join(shown)


@pytest.mark.parametrize("record", compat.RECORDS, ids=lambda record: record.name)
def test_a_deprecated_name_does_not_outlive_its_version(record: compat.LegacyRecord) -> None:
    assert version(record.since) < version(compat.__version__) < version(record.removed_in)
    assert version(record.removed_in)[2] == 0


@pytest.mark.parametrize("record", compat.RECORDS, ids=lambda record: record.name)
def test_a_record_says_everything(record: compat.LegacyRecord) -> None:
    for field in dataclasses.fields(record):
        assert getattr(record, field.name), field.name
    for snippet in (record.before, record.after):
        compile(snippet, record.name, "exec")
        assert snippet.endswith("\n")
    assert record.name in record.before
    assert not re.search(rf"\b{record.name}\b", record.after)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "other"  # type: ignore[misc]


def test_names_and_modules_are_unique() -> None:
    names = [record.name for record in compat.RECORDS]
    assert len(set(names)) == len(names)
    assert set(compat.old_modules()) == {
        "dilated_attention_pytorch.ring_dilated_attention",
        "dilated_attention_pytorch.ring_multihead_dilated_attention",
    }
    assert sorted(r.name for group in compat.old_modules().values() for r in group) == names


@pytest.mark.parametrize("record", compat.RECORDS, ids=lambda record: record.name)
def test_the_target_exists_and_loading_is_silent(record: compat.LegacyRecord) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = compat.load(record)
    assert loaded.__name__ == record.name
    assert loaded is getattr(compat, record.name)
    assert record.name in dir(compat)


@pytest.mark.parametrize("record", compat.RECORDS, ids=lambda record: record.name)
def test_signatures_are_the_historical_ones(record: compat.LegacyRecord) -> None:
    cls = compat.load(record)
    constructor, forward = HISTORICAL_SIGNATURES[record.name]
    assert names_and_defaults(cls.__init__) == constructor
    assert names_and_defaults(cls.forward) == forward


def test_unknown_names_are_ordinary_attribute_errors() -> None:
    assert compat.find("nothing") is None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        compat.nothing  # noqa: B018


def test_records_and_warnings_need_no_torch() -> None:
    run_fresh(
        "import sys; sys.modules['torch'] = None\n"
        "import dilated_attention_compat as c\n"
        "assert all(r.deprecation_message and r.numbers_message for r in c.RECORDS)\n"
        "assert c.RingAttentionDeprecationWarning and dir(c)\n"
        "assert 'numpy' not in sys.modules and 'typing_extensions' not in sys.modules\n"
    )


def construct(name: str, *args: object, **options: object) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        return getattr(compat, name)(*args, **options)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (([], []), {}, ValueError, "segment_lengths cannot be empty"),
        (([8], [1, 2]), {}, ValueError, "must have the same length: 1 != 2"),
        (([8, 0], [1, 2]), {}, ValueError, r"segment_lengths\[1\] must be positive, got 0"),
        (([8], [-1]), {}, ValueError, r"dilation_rates\[0\] must be positive, got -1"),
        (([1.5], [1]), {}, TypeError, r"segment_lengths\[0\] must be an int, got 1.5"),
        (([8], [True]), {}, TypeError, r"dilation_rates\[0\] must be an int, got True"),
        (([8], [1]), {"dropout": 1.5}, ValueError, "dropout must be between 0.0 and 1.0, got 1.5"),
        (([8], [1]), {"block_size": 0}, ValueError, "block_size must be positive, got 0"),
        (([8], [1]), {"ring_size": 0}, ValueError, "ring_size must be positive, got 0"),
    ],
)
def test_bad_options_are_refused(
    args: tuple[object, ...], options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        construct("RingDilatedAttention", *args, **options)
    with pytest.raises(error, match=message):
        construct("RingMultiheadDilatedAttention", 8, 2, *args, **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((0, 2), {}, "embed_dim must be positive, got 0"),
        ((8, 0), {}, "num_heads must be positive, got 0"),
        ((8, 3), {}, r"embed_dim \(8\) must be divisible by num_heads \(3\)"),
        ((8, 2), {"layer_norm_eps": 0.0}, "layer_norm_eps must be positive, got 0.0"),
        ((8, 2), {"gamma_init": float("nan")}, "gamma_init must be positive, got nan"),
    ],
)
def test_bad_multihead_options_are_refused(
    args: tuple[int, int], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        construct("RingMultiheadDilatedAttention", *args, [8], [1], **options)


X, WIDE = torch.zeros(1, 8, 2, 4), torch.zeros(1, 8, 8)


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ((X[0], X, X), ValueError, "query must be a 4D tensor .* got 3D"),
        ((X, X[:, :4], X), ValueError, "key must have the shape of query"),
        ((X, X, X.double()), TypeError, "value must have the dtype of query, torch.float32"),
        ((X, X.to("meta"), X), ValueError, "key must be on the device of query, cpu, got meta"),
        ((X[:, :6],) * 3, ValueError, r"Sequence length \(6\) must be divisible .* got 4; .* to 8"),
        ((X[:, :, :1],) * 3, ValueError, r"num_heads \(1\) must be >= num_groups \(2\)"),
    ],
)
def test_bad_inputs_are_refused(
    tensors: tuple[torch.Tensor, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        construct("RingDilatedAttention", [2, 4], [1, 2])(*tensors)


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ((WIDE[0],), ValueError, "query must be a 3D tensor .* got 2D"),
        ((WIDE, WIDE[:, :4]), ValueError, "key must have the shape of query"),
        ((WIDE[..., :6],), ValueError, r"last axis of query must be embed_dim \(8\), got 6"),
        ((WIDE[:, :6],), ValueError, "Sequence length"),
    ],
)
def test_bad_multihead_inputs_are_refused(
    tensors: tuple[torch.Tensor, ...], error: type[Exception], message: str
) -> None:
    module = construct("RingMultiheadDilatedAttention", 8, 2, [2, 4], [1, 2], device="cpu")
    with pytest.raises(error, match=message):
        module(*tensors)


def test_options_without_effect_are_kept_as_attributes() -> None:
    core = construct("RingDilatedAttention", [8], [1], 0.1, False, 7, 3, False, "cpu")
    assert core.state_dict() == {}
    shown = ("dropout", "use_tf32", "block_size", "ring_size", "use_checkpointing", "world_size")
    assert [getattr(core, name) for name in shown] == [0.1, False, 7, 3, False, 1]
    assert repr(core) == (
        "RingDilatedAttention(segment_lengths=[8], dilation_rates=[1], dropout=0.1)"
    )
    multi = construct(
        "RingMultiheadDilatedAttention", 8, 2, [8], [1], bias=False, layer_norm=False,
        compile_model=True, use_flash_attention=False, device="cpu", dtype=torch.float64,
    )  # fmt: skip
    assert list(multi.state_dict()) == ["qkv_proj.weight", "out_proj.weight"]
    assert {p.dtype for p in multi.parameters()} == {torch.float64}
    assert (multi.compile_model, multi.use_flash_attention) == (True, False)
    assert "layer_norm=False, ring_size=1" in repr(multi)
    assert multi.get_memory_info() == {"memory_complexity": "O(n)", "ring_size": 1}
    assert core.clear_cache(force=True) is None
    assert multi.clear_cache() is None
