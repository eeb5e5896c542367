"""The ring's Triton kernels compile for Hopper, which needs no GPU: `nox -s interpret`.

The interpreter is lenient where the compiler is not, with a variable that changes its type in a
loop, say.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

TRITON = importlib.util.find_spec("triton") is not None and importlib.metadata.version(
    "triton"
).startswith("3.6.")
pytestmark = pytest.mark.skipif(not TRITON, reason="needs triton 3.6; nox -s interpret has it")

FLOATS = ("maximum", "total", "weighted", "lse", "delta", "dquery", "dkey", "dvalue")
INTEGERS = {"mask": "*u8", "seed": "*i64", "programs": "*i32", "tiles": "*i32", "entries": "*i32"}
INTEGERS |= {"parts": "*i64"}
NUMBERS = {"log2_scale": "fp32", "scale": "fp32", "kept_scale": "fp32"}


@pytest.mark.parametrize("options", [False, True], ids=["plain", "all options"])
@pytest.mark.parametrize("name", ["part_forward", "part_dquery", "part_dkey_dvalue"])
def test_it_compiles(name: str, options: bool) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dilated_attention_pytorch.kernels.triton import part

    kernel: Any = getattr(part, f"{name}_kernel")
    constants = {
        **dict.fromkeys(("KEY_MASK", "DROPOUT", "LANES"), options),
        **{"CAUSAL": True, "HEAD": 64, "BLOCK_D": 64, "BLOCK_M": 64, "BLOCK_N": 32},
        **{"PRECISION": "ieee", "ALIGN": 8},
    }
    signature, known, aligned = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        pointer = argument.removesuffix("_ptr")
        if argument in constants:
            signature[argument], known[(i,)] = "constexpr", constants[argument]
        elif pointer != argument:
            signature[argument] = "*fp32" if pointer in FLOATS else INTEGERS.get(pointer, "*bf16")
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = NUMBERS.get(argument, "i32")
            if argument.endswith(("_batch", "_row", "_head")):
                aligned[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=known, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    binary = Path(made.metadata_group[f"{kernel.__name__}.cubin"])
    code = subprocess.run(
        [tools / "cuobjdump", "-sass", binary], capture_output=True, text=True, check=True
    ).stdout
    assert "HGMMA" in code
    # Copies of 16 bytes: the compiler was told what divides the strides.
    assert "LDGSTS.E.BYPASS.128" in code
