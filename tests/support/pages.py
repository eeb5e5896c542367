"""The Python blocks of a Markdown page, and how to run them.

All ```` ```python ```` blocks of a page share one namespace, from top to bottom. A block with
``title="name.py"`` is a program of its own, meant for torchrun.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.M | re.S
)
TITLE = re.compile(r'title="([^"]+\.py)"')


@dataclass(frozen=True)
class Block:
    """One block: its code, the line of the page at which the code begins, its title if any."""

    code: str
    line: int
    title: str | None


def blocks(page: Path) -> list[Block]:
    """Return the Python blocks of ``page``, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        title = TITLE.search(match["info"])
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(textwrap.dedent(match["code"]), line, title[1] if title else None))
    return found


def page_namespace(page: Path) -> dict[str, Any]:
    """What the untitled blocks of ``page`` define, run in one namespace.

    An error carries the page's name and line in its traceback.
    """
    namespace: dict[str, Any] = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    for block in blocks(page):
        if block.title is None:
            source = "\n" * (block.line - 1) + block.code
            exec(compile(source, str(page), "exec"), namespace)
    return namespace


def run_page(page: Path) -> int:
    """Run the untitled blocks of ``page`` in one namespace; return how many there were."""
    page_namespace(page)
    return sum(block.title is None for block in blocks(page))
