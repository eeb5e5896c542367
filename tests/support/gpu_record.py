"""The committed record of what was checked on a GPU, and which kernel files it speaks of."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import platform
import re
import tokenize
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "packages/dilated-attention-pytorch/src/dilated_attention_pytorch"
RECORD = ROOT / "benchmarks/results/cuda_correctness.json"
# Backends that may be committed without a record of their present version: hash, and what is known.
PENDING = ROOT / "benchmarks/results/cuda_pending.json"

DTYPES = {
    "eager": ("float64", "float32", "bfloat16", "float16"),
    "triton": ("float32", "bfloat16", "float16"),
    "ring": ("float32", "bfloat16", "float16"),
    "gluon": ("bfloat16", "float16"),
    "gluon_ring": ("bfloat16", "float16"),
    "sdpa": ("bfloat16", "float16"),
}
DIRECTIONS = {"forward": ("lse", "out"), "backward": ("dq", "dk", "dv")}
_HOPPER = (
    "kernels/gluon/blocks.py",
    "kernels/gluon/tile.py",
    "kernels/gluon/forward.py",
    "kernels/gluon/dquery.py",
    "kernels/gluon/dkey_dvalue.py",
    "kernels/gluon/table.py",
    "kernels/gluon/launcher.py",
    "kernels/gluon/launch.py",
)
FILES = {
    "eager": ("kernels/eager.py", "kernels/carry.py", "kernels/philox.py"),
    "triton": (
        "kernels/triton/tile.py",
        "kernels/triton/forward.py",
        "kernels/triton/backward.py",
        "kernels/triton/lanes.py",
        "kernels/triton/prepare.py",
        "kernels/triton/blocks.py",
        "kernels/triton/launcher.py",
        "kernels/triton/launch.py",
        "schedule/classes.py",
        "schedule/tables.py",
    ),
    # Of the triton, gluon and sdpa backends: other ranks' keys, and own rows as a sequence.
    "ring": (
        "kernels/triton/tile.py",
        "kernels/triton/forward.py",
        "kernels/triton/backward.py",
        "kernels/triton/part.py",
        "kernels/triton/part_launch.py",
        "kernels/triton/blocks.py",
        "kernels/triton/launcher.py",
        "kernels/carry.py",
        "schedule/own.py",
        "schedule/parts.py",
        "schedule/runs.py",
        "ring/alone.py",
    ),
    "gluon": (
        "kernels/gluon/__init__.py",
        *_HOPPER,
        "kernels/triton/prepare.py",
        "schedule/classes.py",
        "schedule/halves.py",
        "schedule/sharing.py",
        "schedule/streams.py",
    ),
    # Received rows past tiles of own ones, and own rows past tiles of received ones.
    "gluon_ring": (
        *_HOPPER,
        "kernels/tiles.py",
        "schedule/own.py",
        "schedule/received.py",
        "schedule/entries.py",
        "schedule/ring_streams.py",
        "schedule/ring_key_streams.py",
        "ring/tiled.py",
    ),
    "sdpa": (
        "kernels/triton/merge.py",
        "kernels/sdpa/plan.py",
        "kernels/sdpa/views.py",
        "kernels/sdpa/calls.py",
        "kernels/sdpa/gpu_merge.py",
        "kernels/sdpa/launch.py",
    ),
}


def code_of(text: str) -> str:
    """What a module does: a line for each statement, without comments, docstrings and layout.

    A formatter may wrap a statement anew; Python's versions agree on the result.
    """
    lines = text.splitlines()
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            docstrings.add(first.lineno)
    found, depth, begin = [], 0, None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
        elif token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            assert begin is not None
            statement = re.sub(r"\s", "", "".join(lines[begin - 1 : token.start[0]]))
            if begin not in docstrings:
                found.append(f"{depth}:{re.sub(r',(?=[])}])', '', statement)}")
            begin = None
        elif begin is None and token.type not in (tokenize.NL, tokenize.ENDMARKER):
            begin = token.start[0]
    return "\n".join(found)


def source_hash(backend: str) -> str:
    """Digest of the code that a backend's numbers depend on."""
    digest = hashlib.sha256()
    for name in FILES[backend]:
        digest.update(code_of((SOURCE / name).read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Where a record was made."""
    import torch

    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    try:
        import triton
    except ModuleNotFoundError:
        return found
    return found | {"triton": triton.__version__}


def write(path: Path, shares: dict[str, dict[str, dict[str, float]]]) -> None:
    """Write a record.

    Args:
        path: the file.
        shares: backend -> dtype -> direction -> largest share of the tolerance's budget.
    """
    record = {
        "environment": environment(),
        "backends": {
            backend: {"hash": source_hash(backend), "largest_share_of_budget": found}
            for backend, found in shares.items()
        },
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def stale() -> list[str]:
    """What has no fresh record: one line for each backend x dtype x direction."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    missing = []
    for backend, dtypes in DTYPES.items():
        entry = record.get("backends", {}).get(backend, {})
        fresh = entry.get("hash") == source_hash(backend)
        found = entry.get("largest_share_of_budget", {}) if fresh else {}
        missing += [
            f"{backend} {dtype} {direction}"
            for dtype in dtypes
            for direction in DIRECTIONS
            if not found.get(dtype, {}).get(direction, 2.0) <= 1.0
        ]
    return missing


def pending() -> dict[str, dict[str, str]]:
    """Backends whose present version waits for a record: `hash`, and what was `checked` of it."""
    found: dict[str, dict[str, str]] = json.loads(PENDING.read_text(encoding="utf-8"))
    return {name: entry for name, entry in found.items() if entry["hash"] == source_hash(name)}
