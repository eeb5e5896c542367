"""The Hopper kernels compile as they should, which needs no GPU: `nox -s interpret`.

What is looked for in the machine code: tensor core products of a warpgroup (HGMMA), TMA loads
(UTMALDG), no register spills in the loop over pieces, waits for products where they were written
and nowhere else (a compiler that serializes products adds one to each), and shared memory within
the 227 KiB of a Hopper SM.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

TRITON = importlib.util.find_spec("triton") is not None and importlib.metadata.version(
    "triton"
).startswith("3.6.")
pytestmark = pytest.mark.skipif(not TRITON, reason="needs triton 3.6; nox -s interpret has it")

SHARED_MEMORY = 227 * 1024
# Waits for products that each kernel states, for both of its consumers.
WAITS = {"forward": 16, "dquery": 24, "dkey_dvalue": 26}
# Waits in a step of the loop over pieces.
STEP_WAITS = {"forward": 2, "dquery": 3, "dkey_dvalue": 3}


def _compile(name: str, dtype: str, head_dim: int, views: int, **flags: bool) -> tuple[str, int]:
    """(machine code, bytes of shared memory)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon._runtime import GluonASTSource

    from dilated_attention_pytorch.kernels.gluon import blocks as sizes
    from dilated_attention_pytorch.kernels.gluon import launch

    kernel: Any = getattr(launch, f"{name}_kernel")
    blocks = (sizes.forward_blocks if name == "forward" else sizes.backward_blocks)(head_dim)
    shape = [1, 1, 1, blocks.block, blocks.columns]
    element = {"bf16": gl.bfloat16, "fp16": gl.float16}[dtype]
    layout = gl.NVMMASharedLayout.get_default_for(shape, element)
    constants: dict[str, Any] = {
        "VIEWS": views,
        "BLOCK": blocks.block,
        "HALF": sizes.HALF,
        "D": blocks.columns,
        "HEAD": head_dim,
        "STAGES": blocks.stages,
        **flags,
    }
    floats = ["lse_ptr", "delta_ptr"]
    if flags.get("RESUME"):
        floats += ["out_ptr", "dquery_ptr"]
    signature, known, aligned = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        view = re.fullmatch(r"[kvqo](\d+)", argument)
        if view and int(view[1]) < views:
            box = str(shape).replace(" ", "")
            signature[argument] = f"tensordesc<{dtype}{box},{layout}>"
        elif view or argument in constants:
            signature[argument], known[(i,)] = "constexpr", constants.get(argument)
        elif argument.endswith("_ptr") or argument == "table":
            kind = "i32" if argument == "table" else "fp32" if argument in floats else dtype
            signature[argument] = f"*{kind}"
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "fp32" if argument == "log2_scale" else "i32"
            if argument.endswith(("_row", "_head")):
                aligned[(i,)] = [["tt.divisibility", 16]]
    source = GluonASTSource(kernel, signature, constexprs=known, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    binary = Path(made.metadata_group[f"{kernel.__name__}.cubin"])
    found = subprocess.run(
        [tools / "cuobjdump", "-sass", binary], capture_output=True, text=True, check=True
    )
    return found.stdout, made.metadata.shared


def _count(pattern: str, code: str) -> int:
    return len(re.findall(pattern, code))


def _loops_over_pieces(code: str, waits: int) -> list[str]:
    """From the first product to the last wait of the loop over pieces, for either consumer.

    No other stretch between two waits has as many products as a step of this loop has, but a step
    of the loop over own edges, which follows it.
    """
    lines = [line for line in code.splitlines() if re.search(r"HGMMA|DEPBAR|STL", line)]
    steps: list[list[int]] = [[]]
    for i, line in enumerate(lines):
        if "WARPGROUP.DEPBAR" in line:
            steps.append([])
        elif "HGMMA" in line:
            steps[-1].append(i)
    most = max(len(step) for step in steps)
    begins = [step[0] for step in steps if len(step) == most]
    assert len(begins) == 4, "pieces and edges, for two consumers"
    found = []
    for begin in (begins[0], begins[2]):
        ends = [i for i in range(begin, len(lines)) if "WARPGROUP.DEPBAR" in lines[i]]
        found.append("\n".join(lines[begin : ends[waits - 1]]))
    return found


@pytest.mark.parametrize(
    ("name", "dtype", "head_dim", "views", "flags"),
    [
        ("forward", "bf16", 128, 5, {"CAUSAL": False, "RESUME": False}),
        ("forward", "fp16", 48, 9, {"CAUSAL": True, "RESUME": False}),
        ("forward", "bf16", 128, 2, {"CAUSAL": False, "RESUME": True}),
        ("dquery", "bf16", 128, 5, {"CAUSAL": False, "RESUME": False}),
        ("dquery", "fp16", 64, 7, {"CAUSAL": True, "RESUME": False}),
        ("dquery", "fp16", 64, 2, {"CAUSAL": False, "RESUME": True}),
        ("dkey_dvalue", "bf16", 128, 5, {"CAUSAL": False}),
        ("dkey_dvalue", "fp16", 48, 9, {"CAUSAL": True}),
    ],
    ids=str,
)
def test_machine_code(
    name: str, dtype: str, head_dim: int, views: int, flags: dict[str, bool]
) -> None:
    code, shared = _compile(name, dtype, head_dim, views, **flags)
    assert _count("HGMMA", code) > 0
    assert _count("UTMALDG", code) == 4 * views
    assert _count(r"WARPGROUP\.DEPBAR", code) == WAITS[name]
    assert shared <= SHARED_MEMORY
    for loop in _loops_over_pieces(code, STEP_WAITS[name]):
        assert "STL" not in loop
