"""Each use warns once, of the right class, at the caller's line; other actions are silent."""

from __future__ import annotations

import ast
import copy
import functools
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dilated_attention_compat as compat

NAMES = [record.name for record in compat.RECORDS]
PROMISED = (
    "{name} is deprecated due to incorrect implementation. This version divides queries across "
    "devices, preventing proper memory savings. Please use RingDilatedAttentionV2 or "
    "create_multihead_dilated_attention('ring') instead. This implementation will be removed in "
    "v0.3.0."
)
SIZES = {"RingDilatedAttention": (), "RingMultiheadDilatedAttention": (8, 2)}
INPUTS = {"RingDilatedAttention": (1, 8, 2, 4), "RingMultiheadDilatedAttention": (1, 8, 8)}


def arguments(name: str) -> tuple[object, ...]:
    return (*SIZES[name], [8], [1])


def quiet(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        module: nn.Module = getattr(compat, name)(*arguments(name))
    return module.cpu()


def forward(module: Callable[..., Any], name: str, **options: object) -> torch.Tensor:
    x = torch.ones(INPUTS[name])
    out = module(x, x, x, **options)
    first: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return first


def line_of(marker: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (found,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {marker}")]
    return found


def plain(name: str) -> None:
    getattr(compat, name)(*arguments(name))  # line: plain


def partial(name: str) -> None:
    make = functools.partial(getattr(compat, name), *arguments(name))
    make()  # line: partial


def subclass(name: str) -> None:
    class Mine(getattr(compat, name)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(*arguments(name))  # line: subclass

    Mine()


def inherited(name: str) -> None:
    mine = type("Mine", (getattr(compat, name),), {})
    mine(*arguments(name))  # line: inherited


def nested(name: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = getattr(compat, name)(*arguments(name))  # line: nested

    nn.Sequential(Block())


@pytest.mark.parametrize("use", [plain, partial, subclass, inherited, nested])
@pytest.mark.parametrize("name", NAMES)
def test_construction_warns_once_at_the_callers_line(name: str, use: Callable[[str], None]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        use(name)
    (warning,) = seen
    assert warning.category is compat.RingAttentionDeprecationWarning
    assert issubclass(warning.category, DeprecationWarning)
    assert (warning.filename, warning.lineno) == (__file__, line_of(use.__name__))


@pytest.mark.parametrize("name", NAMES)
def test_message_is_the_promised_one_word_for_word(name: str) -> None:
    with pytest.warns(compat.RingAttentionDeprecationWarning) as seen:
        plain(name)
    message = str(seen[0].message)
    assert message.startswith(PROMISED.format(name=name) + " ")
    rest = message.removeprefix(PROMISED.format(name=name) + " ")
    assert "its tokens never attend to one another" in rest
    assert rest.endswith(f"see docs/guides/ring-attention-migration.md#{name.lower()}.")
    assert rest.count(". ") == 0


@pytest.mark.parametrize("name", NAMES)
def test_as_an_error_it_stops_construction(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", compat.RingAttentionDeprecationWarning)
        with pytest.raises(compat.RingAttentionDeprecationWarning, match=name):
            plain(name)


@pytest.mark.parametrize("name", NAMES)
def test_static_mark_is_the_promised_text(name: str) -> None:
    assert getattr(compat, name).__deprecated__ == PROMISED.format(name=name)


@pytest.mark.parametrize("name", NAMES)
def test_first_forward_says_that_its_numbers_are_wrong(name: str) -> None:
    module = nn.Sequential(quiet(name))[0]
    record = compat.find(name)
    assert record is not None
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        x = torch.ones(INPUTS[name])
        module(x, x, x)  # line: forward
        module(x, x, x)
    (warning,) = seen
    assert warning.category is RuntimeWarning
    assert (warning.filename, warning.lineno) == (__file__, line_of("forward"))
    message = str(warning.message)
    assert f"{record.relative_error[0]:.2f} times" in message
    assert f"{record.relative_error[1]:.2f} times with is_causal" in message
    assert "softmax runs over the heads" in message


@pytest.mark.parametrize("name", NAMES)
def test_copying_saving_and_loading_are_silent_and_exact(name: str) -> None:
    module = quiet(name).eval()
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
            torch.testing.assert_close(forward(other, name), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_forward_says_it_too_and_computes_the_same(name: str) -> None:
    module = quiet(name).eval()
    compiled = torch.compile(module, backend="eager")
    with warnings.catch_warnings():
        # The compiler's note that it stops at the look-up of the caller's frame.
        warnings.filterwarnings("ignore", "Dynamo does not know how to trace", UserWarning)
        with pytest.warns(RuntimeWarning, match=name):
            out = forward(compiled, name)
    torch.testing.assert_close(out, forward(module, name), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "RingDilatedAttention",
            {"attention_mask": torch.ones(8, 8, dtype=torch.bool)},
            "ignores attention_mask",
        ),
        (
            "RingMultiheadDilatedAttention",
            {"key_padding_mask": torch.zeros(1, 8, dtype=torch.bool)},
            "ignores key_padding_mask and attn_mask",
        ),
        (
            "RingMultiheadDilatedAttention",
            {"attn_mask": torch.zeros(8, 8)},
            "ignores key_padding_mask and attn_mask",
        ),
        ("RingMultiheadDilatedAttention", {"need_weights": True}, "no weights to return"),
    ],
)
def test_what_is_ignored_is_said(name: str, options: dict[str, object], message: str) -> None:
    module = quiet(name).eval()
    with pytest.warns(RuntimeWarning):
        expected = forward(module, name)
    with pytest.warns(UserWarning, match=message) as seen:
        out = forward(module, name, **options)
    assert [warning.filename for warning in seen] == [__file__]
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
