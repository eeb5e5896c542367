"""What is not an old name stays as it is, to the byte, whatever stands around it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

pytest.importorskip("libcst")

from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_compat.migrate.notebook import migrate_notebook
from dilated_attention_compat.migrate.source import Outcome, migrate_source
from dilated_attention_compat.migrate.todo import MARK
from dilated_attention_compat.migrate.vocabulary import Vocabulary

EVERYTHING = Vocabulary()
IMPORT = "from dilated_attention_pytorch import RingDilatedAttention  # keep\n"
NEW_IMPORT = "from dilated_attention_pytorch import RingDilatedAttentionV2  # keep\n"


@dataclass(frozen=True)
class Piece:
    """Lines of a program, before and after."""

    before: str
    after: str


def unchanged(text: str) -> Piece:
    return Piece(text, text)


REWRITTEN = (
    Piece(
        "a = RingDilatedAttention([16, 32], [1, 2])\n",
        "a = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2])\n",
    ),
    Piece(
        "b = RingDilatedAttention(\n    w,\n    r,  # rates\n    use_tf32=True,\n)\n",
        "b = RingDilatedAttentionV2(\n    segment_lengths=w,\n    dilation_rates=r,  # rates\n)\n",
    ),
    Piece(
        "def f(x: RingDilatedAttention = RingDilatedAttention( w,r ))->None: ...\n",
        "def f(x: RingDilatedAttentionV2 = "
        "RingDilatedAttentionV2( segment_lengths=w,dilation_rates=r ))->None: ...\n",
    ),
    Piece(
        "if isinstance(m, (int, RingDilatedAttention)): pass ; c = (m)\n",
        "if isinstance(m, (int, RingDilatedAttentionV2)): pass ; c = (m)\n",
    ),
    Piece(
        "d = [RingDilatedAttention(w, r, ring_size=R, block_size = 4) for R in (1,2)]\n",
        "d = [RingDilatedAttentionV2(segment_lengths=w, dilation_rates=r, ring_size=R) "
        "for R in (1,2)]\n",
    ),
)
FLAGGED = (
    "class A(RingDilatedAttention): pass\n",
    "e = RingDilatedAttention(*pair)\n",
    "g = partial(RingDilatedAttention, w)\n",
    "h = {'ring': RingDilatedAttention}\n",
    "def k():\n\treturn RingDilatedAttention(**config)\n",
)
NOISE = (
    "\n",
    "x=1;y =  2 ;z = x \n",
    "'''RingDilatedAttention(\n  [16], [1])'''\n",
    "s = f\"{x!r:>{y}} RingDilatedAttention\" 'b' if 0 else r'\\d'\n",
    "def  g ( p,*, q = 1 , ** o ) :\n\t# tab\n\treturn p if q else  (\n\n o )\n",
    "class RingDilatedAttentions:\n  RingDilatedAttention_ = 1  ;  pass\n",
    "value = obj.RingDilatedAttention([1], [2], use_tf32=True)\n",
    "call(RingDilatedAttention_v1, use_tf32=True,\n  block_size = 3, # c\n)\n",
    "@ deco\nasync def h(): await x ; yield\n",
    "match x:\n case {'a': [*_, 1]}: pass\n",
    "with (a as b, c as d): x = lambda *a: (yield)\n",
    "if x :\n  pass\nelif y: z\nelse :\n    w = 1 \\\n  + 2\n",
    "# é ü 中\n\n   \n",
    "import os , sys\nfrom dilated_attention_pytorch import DilationPattern as P, explain\n",
    "0x_ff, 1_000., 1e-3j, ..., not x, ~y, x @ y, x if y else z\n",
)
COMMENTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30).map(
    # LibCST loses a backslash at the end of a comment; such files are refused.
    lambda text: f"# {text.rstrip(chr(92))}\n"
)
NOISES = (st.sampled_from(NOISE) | COMMENTS).map(unchanged)
LINE_ENDS = st.sampled_from(["\n", "\r\n"])


def sources(pieces: list[Piece], end: str) -> tuple[bytes, bytes]:
    before, after = "".join(p.before for p in pieces), "".join(p.after for p in pieces)
    return tuple(text.replace("\n", end).encode() for text in (before, after))  # type: ignore[return-value]


@given(
    st.lists(NOISES, max_size=4),
    st.lists(NOISES | st.sampled_from(REWRITTEN), min_size=1, max_size=8),
    LINE_ENDS,
)
def test_only_the_old_names_change(head: list[Piece], body: list[Piece], end: str) -> None:
    before, after = sources([*head, Piece(IMPORT, NEW_IMPORT), *body], end)
    migration = migrate_source(before, EVERYTHING)
    assert migration.source == after
    assert migration.outcome is Outcome.MIGRATED
    again = migrate_source(after, EVERYTHING)
    assert again.source is after
    assert again.findings == ()


@given(
    st.lists(NOISES, max_size=3),
    st.lists(
        NOISES | st.sampled_from(FLAGGED).map(unchanged) | st.sampled_from(REWRITTEN), max_size=6
    ),
    st.sampled_from(FLAGGED),
    LINE_ENDS,
)
def test_a_flagged_name_is_left_everywhere_and_only_comments_are_added(
    head: list[Piece], body: list[Piece], flagged: str, end: str
) -> None:
    pieces = [*head, unchanged(IMPORT), *body, unchanged(flagged)]
    before, _ = sources(pieces, end)
    migration = migrate_source(before, EVERYTHING)
    assert migration.outcome is Outcome.FLAGGED
    lines = migration.source.split(b"\n")
    left = [line for line in lines if not line.lstrip().startswith(MARK.encode())]
    assert b"\n".join(left) == before
    assert len(left) < len(lines)
    again = migrate_source(migration.source, EVERYTHING)
    assert again.source is migration.source
    assert len(again.findings) == len(migration.findings)


@given(st.lists(NOISES, max_size=6), LINE_ENDS)
def test_a_program_without_old_names_is_returned_itself(pieces: list[Piece], end: str) -> None:
    before, _ = sources(pieces, end)
    assert migrate_source(before, EVERYTHING).source is before


@given(
    st.lists(NOISES | st.sampled_from(REWRITTEN), min_size=1, max_size=5),
    st.sampled_from([None, 0, 1, 4]),
    st.booleans(),
    st.booleans(),
)
def test_only_changed_lines_of_a_notebook_are_written_anew(
    pieces: list[Piece], indent: int | None, ascii_only: bool, as_list: bool
) -> None:
    def notebook(cells: list[str]) -> bytes:
        shown = [cell.splitlines(keepends=True) if as_list else cell for cell in cells]
        code = [
            {"cell_type": "code", "source": cell, "outputs": [], "metadata": {"tags": ["é"]}}
            for cell in shown
        ]
        text = {"cell_type": "markdown", "source": [IMPORT, "é"], "metadata": {}}
        book = {"cells": [text, *code], "metadata": {"b": 1.50}, "nbformat": 4}
        return json.dumps(book, indent=indent, ensure_ascii=ascii_only).encode()

    def is_plain(text: str) -> bool:
        # What JSON writes as an escape in one style and not in the other, or cuts at other places.
        return text.isascii() and "\f" not in text

    pieces = [piece for piece in pieces if is_plain(piece.before)]
    before = notebook([IMPORT, *(piece.before for piece in pieces)])
    after = notebook([NEW_IMPORT, *(piece.after for piece in pieces)])
    migration = migrate_notebook(before, EVERYTHING)
    assert migration.source == after
    assert migrate_notebook(after, EVERYTHING).source is after
