"""Each use warns once, of the right class, at the caller's line; other actions are silent."""

from __future__ import annotations

import ast
import copy
import functools
import io
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dilated_attention_compat as compat
from support.legacy_cases import CASES, FUNCTIONS, constructed, forward, historical, quiet
from support.legacy_cases import with_forward as named_with_forward

WARNING = [name for name, case in CASES.items() if case.warns]
CLASSES = [name for name in WARNING if name not in FUNCTIONS]
MADE = [name for name in constructed() if name in WARNING]
COMPUTING = named_with_forward()
MODULES = [name for name in constructed() if isinstance(quiet(name), nn.Module)]
PROMISED = (
    "{name} is deprecated due to incorrect implementation. This version divides queries across "
    "devices, preventing proper memory savings. Please use RingDilatedAttentionV2 or "
    "create_multihead_dilated_attention('ring') instead. This implementation will be removed in "
    "v0.3.0."
)


def line_of(marker: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (found,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {marker}")]
    return found


def plain(name: str) -> None:
    historical(name)(*CASES[name].args, **CASES[name].options)  # line: plain


def partial(name: str) -> None:
    made = functools.partial(historical(name), *CASES[name].args, **CASES[name].options)
    made()  # line: partial


def subclass(name: str) -> None:
    class Mine(historical(name)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(*CASES[name].args, **CASES[name].options)  # line: subclass

    Mine()


def inherited(name: str) -> None:
    mine = type("Mine", (historical(name),), {})
    mine(*CASES[name].args, **CASES[name].options)  # line: inherited


def nested(name: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            make = historical(name)
            self.attention = make(*CASES[name].args, **CASES[name].options)  # line: nested

    nn.Sequential(Block())


USES = [
    *((use, name) for use in (plain, partial, nested) for name in WARNING),
    *((use, name) for use in (subclass, inherited) for name in CLASSES),
]


@pytest.mark.parametrize(("use", "name"), USES)
def test_use_warns_once_at_the_callers_line(use: Callable[[str], None], name: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if name in MADE:
            use(name)
        else:
            with pytest.raises(RuntimeError, match="could never be constructed"):
                use(name)
    (warning,) = seen
    assert warning.category is compat.RingAttentionDeprecationWarning
    assert issubclass(warning.category, DeprecationWarning)
    assert (warning.filename, warning.lineno) == (__file__, line_of(use.__name__))


@pytest.mark.parametrize("name", WARNING)
def test_the_message_says_what_since_when_until_when_and_what_instead(name: str) -> None:
    record = compat.require(name)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if name in MADE:
            plain(name)
        else:
            with pytest.raises(RuntimeError, match=f"^{re.escape(record.refusal)}$"):
                plain(name)
    message = str(seen[0].message)
    if record.promised_reason:
        assert message.startswith(PROMISED.format(name=record.identifier) + " Measured: ")
    else:
        assert message.startswith(f"{name} is deprecated since v{record.since}: ")
        assert f"Please use {record.replacement} instead." in message
        assert f"It will be removed in v{record.removed_in}." in message
    assert record.measured in message
    assert message.endswith(f"see docs/guides/ring-attention-migration.md#{record.guide_anchor}.")


def test_the_promised_text_stands_where_history_promised_it() -> None:
    promised = {r.name for r in compat.RECORDS if r.promised_reason}
    assert promised == {
        "RingDilatedAttention",
        "RingMultiheadDilatedAttention",
        "RingDistributedDilatedAttention",
        "BlockSparseRingDilatedAttention",
        "BlockSparseRingMultiheadDilatedAttention",
        "BlockSparseRingDistributedDilatedAttention",
        "UnfoldRingDilatedAttention",
        "OptimizedUnfoldRingDilatedAttention",
        "ring_dilated_attention_unfold.UnfoldRingDilatedAttention",
    }
    assert promised <= set(WARNING)


@pytest.mark.parametrize("name", WARNING)
def test_as_an_error_it_stops_construction(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", compat.RingAttentionDeprecationWarning)
        with pytest.raises(compat.RingAttentionDeprecationWarning, match=name.split(".")[-1]):
            plain(name)


@pytest.mark.parametrize("name", [r.name for r in compat.RECORDS if r.fate == "compat"])
def test_the_static_mark_is_the_first_part_of_the_message(name: str) -> None:
    said, _, _ = compat.require(name).deprecation_message.partition(" Measured: ")
    assert historical(name).__dict__["__deprecated__"] == said


@pytest.mark.parametrize("name", COMPUTING)
def test_first_forward_says_that_its_numbers_are_wrong(name: str) -> None:
    module = nn.Sequential(quiet(name))[0]
    record = compat.require(name)
    shape = CASES[name].shape
    assert shape is not None
    x = torch.ones(shape)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module(x, x, x)  # line: forward
        module(x, x, x)
    (warning,) = seen
    assert warning.category is RuntimeWarning
    assert (warning.filename, warning.lineno) == (__file__, line_of("forward"))
    message = str(warning.message)
    assert record.relative_error is not None
    assert message == record.numbers_message
    assert f" {record.relative_error[0]:.2f} times the norm" in message
    assert record.defect in message


@pytest.mark.parametrize("name", MODULES)
def test_copying_saving_and_loading_are_silent_and_exact(name: str) -> None:
    module = quiet(name).eval()
    if name in COMPUTING:
        with pytest.warns(RuntimeWarning):
            expected = forward(module, name)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copies = [
            copy.deepcopy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(file, weights_only=False),
        ]
        module.load_state_dict(copies[0].state_dict())
        for other in copies:
            assert type(other) is type(module)
            if name in COMPUTING:
                torch.testing.assert_close(forward(other, name), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", COMPUTING)
def test_a_compiled_forward_says_it_too_and_computes_the_same(name: str) -> None:
    module = quiet(name).eval()
    compiled = torch.compile(module, backend="eager")
    with warnings.catch_warnings():
        # The compiler's note that it stops at the look-up of the caller's frame.
        warnings.filterwarnings("ignore", "Dynamo does not know how to trace", UserWarning)
        with pytest.warns(RuntimeWarning, match=name.split(".")[-1]):
            out = forward(compiled, name)
    torch.testing.assert_close(out, forward(module, name), rtol=0, atol=0)


MASK = torch.ones(8, 8, dtype=torch.bool)
IGNORED: list[tuple[str, dict[str, Any], str]] = [
    *(
        (name, {"attention_mask": MASK}, "ignores attention_mask")
        for name in (
            "RingDilatedAttention",
            "UnfoldRingDilatedAttention",
            "OptimizedUnfoldRingDilatedAttention",
            "ring_dilated_attention_unfold.UnfoldRingDilatedAttention",
            "DistributedImprovedDilatedAttention",
            "ImprovedDilatedAttention",
        )
    ),
    *(
        (name, options, message)
        for name in ("RingMultiheadDilatedAttention", "ImprovedMultiheadDilatedAttention")
        for options, message in (
            ({"key_padding_mask": MASK[:1]}, "ignores key_padding_mask and attn_mask"),
            ({"attn_mask": MASK}, "ignores key_padding_mask and attn_mask"),
            ({"need_weights": True}, "no weights to return"),
        )
    ),
    *(
        (name, {"attn_mask": MASK}, "ignores attn_mask")
        for name in ("BlockSparseRingMultiheadDilatedAttention", "create_block_sparse_attention")
    ),
]


@pytest.mark.parametrize(("name", "options", "message"), IGNORED)
def test_what_is_ignored_is_said(name: str, options: dict[str, Any], message: str) -> None:
    module = quiet(name).eval()
    with pytest.warns(RuntimeWarning):
        expected = forward(module, name)
    shape = CASES[name].shape
    assert shape is not None
    x = torch.ones(shape)
    with pytest.warns(UserWarning, match=f"^{name.split('.')[-1]} .*{message}") as seen:
        out = module(x, x, x, **options)
    assert [warning.filename for warning in seen] == [__file__]
    out = out[0] if isinstance(out, tuple) else out
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_every_warning_goes_through_the_helper() -> None:
    source = Path(compat.__file__).parent
    calls = [
        file.name
        for file in sorted(source.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "warnings"
    ]
    assert calls == ["_warn.py"]


def test_a_stack_without_user_code_still_warns() -> None:
    code = compile(
        "from dilated_attention_compat._warn import warn_at_caller\n"
        "warn_at_caller('said', UserWarning)\n",
        "inside.py",
        "exec",
    )
    with pytest.warns(UserWarning, match="said") as seen:
        exec(code, {"__name__": "dilated_attention_pytorch.inside"})
    assert seen[0].filename == __file__
