"""The command line `dilated-attention-migrate`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from .._record import GUIDE

CLEAN, FOUND, FAILED = 0, 1, 2
_EPILOG = f"""\
exit status: 0 nothing to do, 1 something changes or is flagged, 2 an error.

What cannot be rewritten without knowing more gets a comment TODO(dilated-attention-migrate) with
the reason. Once looked at, replace it by a comment with the words "dilated-attention-migrate:
checked": the place is not flagged again.

dilated-attention-migrate checkpoint --help tells how to convert checkpoints.
The guide is {GUIDE} in the repository.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line, without the program's name; that of the process where None.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["checkpoint"]:
        from .checkpoint_command import checkpoint

        return checkpoint(words[1:])
    options = _parser().parse_args(words)
    if importlib.util.find_spec("libcst") is None:
        return _fail("LibCST is not installed: install dilated-attention-compat[migrate]")
    try:
        status = _migrate(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would be written, and fail again, when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail("nobody reads the output")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dilated-attention-migrate",
        description="Rewrite programs and notebooks written for the historical package.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a file or a folder")
    parser.add_argument("--write", action="store_true", help="write the files; else show a diff")
    parser.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="NAME",
        help="only this old name; may have * and be given again",
    )
    parser.add_argument(
        "--star",
        action="store_true",
        help="names that nothing else defines come from `from dilated_attention_pytorch import *`",
    )
    parser.add_argument("--report", choices=("text", "json"), default="text")
    parser.add_argument("--list", action="store_true", help="show all old names and what is done")
    return parser


def _migrate(options: argparse.Namespace) -> int:
    from .files import find_files, migrate_files, written
    from .report import diff, json_report, listing, text_report
    from .vocabulary import Vocabulary

    try:
        vocabulary = Vocabulary(options.select)
        if options.list:
            print(listing(vocabulary))
            return CLEAN
        if not options.paths:
            return _fail("no PATH given; see --help")
        files = list(find_files(options.paths))
    except (ValueError, OSError) as error:
        return _fail(str(error))
    results = migrate_files(files, vocabulary, star=options.star)
    if options.write:
        results = [written(result) for result in results]
    elif options.report == "text":
        _show("".join(diff(result) for result in results if result.changes), sys.stdout)
    if options.report == "json":
        print(json_report(results, written=options.write))
    else:
        _show(f"{text_report(results)}\n", sys.stderr)
    if any(result.error for result in results):
        return FAILED
    return FOUND if any(result.migration.findings for result in results) else CLEAN


def _show(text: str, stream: TextIO) -> None:
    """Write a text, with question marks for what the stream's encoding does not have."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))


def _fail(message: str) -> int:
    print(f"dilated-attention-migrate: {message}", file=sys.stderr)
    return FAILED
