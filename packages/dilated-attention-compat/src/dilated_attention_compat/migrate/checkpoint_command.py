"""The command line `dilated-attention-migrate checkpoint`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .._record import GUIDE

CLEAN, TOLD, FAILED = 0, 1, 2


def checkpoint(arguments: Sequence[str]) -> int:
    """Convert one checkpoint.

    Args:
        arguments: The command line after the word `checkpoint`.

    Returns:
        0 where there is nothing to say about the weights, 1 where they were, or may have been,
        trained under wrong attention, 2 for an error.
    """
    options = _parser().parse_args(arguments)
    try:
        from ..checkpoint import told
        from ..checkpoint_files import (
            convert,
            read_checkpoint,
            read_metadata,
            write_checkpoint,
        )

        if options.output.exists():
            raise ValueError(f"{options.output} exists; name a new file")
        conversion = convert(read_checkpoint(options.input))
        if not conversion.layers:
            raise ValueError(f"{options.input} has no layer of the historical package")
        write_checkpoint(options.output, conversion.content, read_metadata(options.input))
    except ImportError as error:
        return _fail(f"{error}: install dilated-attention-compat[checkpoint]")
    except (ValueError, OSError) as error:
        return _fail(str(error))
    doubtful = [layer for layer in conversion.layers if layer.lesson]
    warning = told(doubtful) if doubtful else ""
    if options.report == "json":
        layers = [{"prefix": x.prefix, "keys": str(x.family)} for x in conversion.layers]
        report = {"layers": layers, "renamed": conversion.renamed, "notes": conversion.notes}
        print(json.dumps(report | {"warning": warning}, indent=2))
    else:
        lines = [f"{x.prefix[:-1] or 'the whole'}: {x.family}" for x in conversion.layers]
        lines += [*conversion.notes, f"{conversion.renamed} keys renamed", warning]
        print("\n".join(filter(None, lines)), file=sys.stderr)
    return TOLD if warning else CLEAN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dilated-attention-migrate checkpoint",
        description="Give a historical checkpoint the keys of the present modules.",
        epilog=(
            "exit status: 0 nothing to say, 1 the weights were or may have been trained under "
            f"wrong attention, 2 an error. The guide is {GUIDE}#checkpoints in the repository."
        ),
    )
    parser.add_argument("input", type=Path, metavar="IN", help=".safetensors, or from torch.save")
    parser.add_argument("output", type=Path, metavar="OUT", help="a new file; its name says which")
    parser.add_argument("--report", choices=("text", "json"), default="text")
    return parser


def _fail(message: str) -> int:
    print(f"dilated-attention-migrate checkpoint: {message}", file=sys.stderr)
    return FAILED
