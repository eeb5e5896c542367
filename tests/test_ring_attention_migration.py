"""What the migration guide promises, checked: warnings, factory, memory, examples.

Runs under pytest, and as `python tests/test_ring_attention_migration.py`, which prints a line per
check and exits with 1 if one failed.
"""

from __future__ import annotations

import copy
import functools
import pickle
import re
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dilated_attention_compat as compat
import dilated_attention_pytorch as package
from support import ring_memory
from support.pages import run_page

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / compat.GUIDE
PROMISED = (
    "{name} is deprecated due to incorrect implementation. This version divides queries across "
    "devices, preventing proper memory savings. Please use RingDilatedAttentionV2 or "
    "create_multihead_dilated_attention('ring') instead. This implementation will be removed in "
    "v0.3.0."
)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "RingDilatedAttention": ([4, 8], [1, 2]),
    "RingMultiheadDilatedAttention": (8, 2, [4, 8], [1, 2]),
}
SHARES = 12
"""The guide's bound: a rank's peak over its share of q."""


def plain(name: str) -> nn.Module:
    return getattr(package, name)(*ARGUMENTS[name])  # line: plain


def partial(name: str) -> nn.Module:
    make = functools.partial(getattr(package, name), *ARGUMENTS[name])
    return make()  # line: partial


def subclass(name: str) -> nn.Module:
    class Mine(getattr(package, name)):
        def __init__(self) -> None:
            super().__init__(*ARGUMENTS[name])  # line: subclass

    return Mine()


def quiet(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        return plain(name).cpu()


def who_notices(attend: Callable[[torch.Tensor], Any], x: torch.Tensor, token: int) -> list[int]:
    """Return the positions whose output moves when one token changes."""
    y = x.clone()
    y[:, token] += torch.linspace(0.5, 1.5, x[0, 0].numel()).reshape(x[0, 0].shape)
    with torch.no_grad():
        was, now = (out[0] if isinstance(out, tuple) else out for out in (attend(x), attend(y)))
    moved = (now - was).flatten(2).abs().amax((0, 2)) > 0
    return moved.nonzero().flatten().tolist()


def test_importing_the_old_names_is_silent() -> None:
    code = (
        "from dilated_attention_pytorch import RingDilatedAttention as A\n"
        "from dilated_attention_pytorch import RingMultiheadDilatedAttention as B\n"
        "from dilated_attention_pytorch.ring_dilated_attention import RingDilatedAttention as C\n"
        "from dilated_attention_pytorch.ring_multihead_dilated_attention import *\n"
        "assert A is C and B is RingMultiheadDilatedAttention\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_construction_warns_once_at_the_callers_line() -> None:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    for name in ARGUMENTS:
        for use in (plain, partial, subclass):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                use(name)
            (warning,) = seen
            assert warning.category is package.RingAttentionDeprecationWarning
            assert issubclass(warning.category, DeprecationWarning)
            assert str(warning.message).startswith(PROMISED.format(name=name) + " Measured: ")
            assert "its tokens never attend to one another" in str(warning.message)
            assert compat.GUIDE in str(warning.message)
            assert Path(warning.filename).resolve() == Path(__file__).resolve()
            assert lines[warning.lineno - 1].endswith(f"# line: {use.__name__}")


def test_copying_and_pickling_are_silent() -> None:
    for name in ARGUMENTS:
        module = quiet(name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
                assert type(other) is type(module)
                module.load_state_dict(other.state_dict())


def test_the_old_classes_warn_that_their_numbers_are_wrong_and_they_are() -> None:
    for name, shape in (
        ("RingDilatedAttention", (1, 8, 2, 4)),
        ("RingMultiheadDilatedAttention", (1, 8, 8)),
    ):
        module = quiet(name).eval()
        attend = functools.partial(lambda m, x: m(x, x, x), module)
        torch.manual_seed(0)
        with pytest.warns(RuntimeWarning, match=name) as seen:
            assert who_notices(attend, torch.randn(shape), 4) == [4]
        assert [Path(warning.filename).name for warning in seen] == [Path(__file__).name]


def test_the_factory_gives_the_corrected_classes() -> None:
    core = package.create_dilated_attention("ring", [4, 8], [1, 2], ring_size=2)
    multi = package.create_multihead_dilated_attention("ring", 8, 2, [4, 8], [1, 2], ring_size=2)
    assert type(core).__name__ == "RingDilatedAttentionV2"
    assert type(multi).__name__ == "RingMultiheadDilatedAttentionV2"
    torch.manual_seed(0)
    # Segments of 4 and 8; residues mod 2 of 8: head 0 takes the even tokens, head 1 the odd.
    seen = {0, 2, 4, 5, 6, 7}
    for module, shape in ((core, (1, 16, 2, 4)), (multi.eval(), (1, 16, 8))):
        for part in module.modules():
            assert not type(part).__module__.startswith("dilated_attention_compat")
        attend = functools.partial(lambda m, x: m(x, x, x), module)
        assert set(who_notices(attend, torch.randn(shape), 4)) == seen


@pytest.mark.gloo
def test_measured_memory_falls_with_the_ring_size() -> None:
    found = {size: ring_memory.peaks(size) for size in ring_memory.SIZES}
    print(ring_memory.table(found))
    for size, kinds in found.items():
        assert max(kinds["sharded"]) <= SHARES * ring_memory.share_bytes(size), size
        # What the deprecated class needs does not depend on how many ranks there are.
        assert set(kinds["historical"]) == {found[1]["historical"][0]}
    # A rank that kept any one array whole would stay above this line.
    whole = ring_memory.share_bytes(1)
    assert max(found[4]["sharded"]) - whole < max(found[1]["sharded"]) / 4


def test_the_guide_states_what_is_measured() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    assert f"at most {SHARES} arrays of the size of its share of q" in page
    sharded, historical = (
        [float(cell) for cell in re.findall(r"\d+\.\d", row)]
        for row in re.findall(r"^\| (?:sharded|historical) \|.*$", page, re.M)
    )
    for size, mib in zip(ring_memory.SIZES, sharded, strict=True):
        assert mib * 2**20 <= SHARES * ring_memory.share_bytes(size)
    assert len(set(historical)) == 1
    for record in compat.RECORDS:
        full, causal = record.relative_error
        assert f"| `{record.name}` | {full:.2f} | {causal:.2f} |" in page


def test_the_guide_has_a_section_for_each_record() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.M)}
    for record in compat.RECORDS:
        assert record.guide_anchor in anchors
        assert f"Before:\n\n```python\n{record.before}```\n" in page
        assert f"After:\n\n```python\n{record.after}```\n" in page
        assert f"| {record.removed_in} | removed" in page


def test_the_snippets_after_are_free_of_warnings() -> None:
    for record in compat.RECORDS:
        with pytest.warns(package.RingAttentionDeprecationWarning, match=record.name):
            exec(record.before, {"__name__": "before"})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(record.after, {"__name__": "after"})


def test_the_guides_examples_run() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_page(GUIDE) > 10


def main() -> int:
    """Run every check, print a line for each, return the exit status."""
    failed = 0
    for name, check in list(globals().items()):
        if not name.startswith("test_"):
            continue
        start = time.perf_counter()
        outcome = "ok"
        try:
            with warnings.catch_warnings():
                check()
        except Exception:
            failed += 1
            outcome = "FAILED"
            traceback.print_exc()
        print(f"{outcome:6} {time.perf_counter() - start:6.1f} s  {name.removeprefix('test_')}")
    print(f"{failed} failed" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
