"""Notebooks: cells, magics, and the bytes around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("libcst")

from dilated_attention_compat.migrate.notebook import code_cells, migrate_notebook
from dilated_attention_compat.migrate.source import Outcome
from dilated_attention_compat.migrate.vocabulary import Vocabulary

EVERYTHING = Vocabulary()
IMPORT = "from dilated_attention_pytorch import RingDilatedAttention"
CALL = "a = RingDilatedAttention([1], [1])"


def notebook(*cells: str, **more: Any) -> bytes:
    code = [
        {"cell_type": "code", "source": cell.splitlines(keepends=True), "outputs": [], **more}
        for cell in cells
    ]
    return json.dumps({"cells": code, "nbformat": 4}, indent=1).encode()


def sources(data: bytes) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(data)["cells"]]


@pytest.mark.parametrize(
    "own",
    [
        "!pip install x",
        "%matplotlib inline",
        "files = !ls",
        "x = %time f()",
        "a?",
        "f.g??",
        "  !ls",
    ],
)
def test_lines_in_the_notebooks_own_language_stay(own: str) -> None:
    cell = f"if 1:\n  pass\n{own}\n{CALL}" if own[0] == " " else f"{own}\n{CALL}\n{own}"
    new = migrate_notebook(notebook(IMPORT, cell), EVERYTHING)
    assert new.outcome is Outcome.MIGRATED
    expected = cell.replace(
        CALL, "a = RingDilatedAttentionV2(segment_lengths=[1], dilation_rates=[1])"
    )
    assert sources(new.source)[1] == expected


def test_a_line_that_only_looks_like_a_magic_is_python() -> None:
    cell = f'{CALL}\ntext = ("%s"\n%a )\ndoc = """\n!keep {IMPORT}\n"""'
    new = migrate_notebook(notebook(IMPORT, cell), EVERYTHING)
    assert sources(new.source)[1].endswith(cell.removeprefix(CALL))
    assert "V2" in sources(new.source)[1]


@pytest.mark.parametrize("magic", ["%%bash", "%%writefile a.py", "%%html", "%%javascript"])
def test_cells_in_another_language_are_not_read(magic: str) -> None:
    cell = f"{magic}\n{IMPORT}\n{CALL}"
    new = migrate_notebook(notebook(IMPORT, cell), EVERYTHING)
    assert sources(new.source)[1] == cell
    # `%%writefile` makes a program of its own, which nothing else would tell of.
    (flagged,) = [finding for finding in new.findings if str(finding.outcome) == "flagged"]
    assert (flagged.cell, flagged.reason) == (2, "in another language, so nothing is rewritten")
    silent = migrate_notebook(
        notebook(IMPORT, f"{magic}\nls dilated_attention_pytorch"), EVERYTHING
    )
    assert silent.outcome is Outcome.MIGRATED


@pytest.mark.parametrize("magic", ["%%time", "%%timeit -n 1", "%%capture out"])
def test_cells_that_are_timed_are_python(magic: str) -> None:
    new = migrate_notebook(notebook(IMPORT, f"{magic}\n{CALL}"), EVERYTHING)
    assert sources(new.source)[1].startswith(f"{magic}\na = RingDilatedAttentionV2(")


def test_a_place_is_given_by_cell_and_line() -> None:
    cells = ["x = 1", IMPORT, f"\n\nclass B(RingDilatedAttention):\n    {CALL}"]
    new = migrate_notebook(notebook(*cells), EVERYTHING)
    assert [(f.cell, f.line, str(f.outcome)) for f in new.findings] == [(3, 3, "flagged")]
    markdown = json.dumps({"cells": [{"cell_type": "markdown", "source": []}]})[11:-2]
    shifted = notebook(*cells).replace(b'"cells": [', f'"cells": [{markdown},'.encode())
    assert migrate_notebook(shifted, EVERYTHING).findings[0].cell == 4


def test_a_cell_that_does_not_parse_is_flagged_and_left() -> None:
    broken = f"def (:\n{IMPORT}"
    new = migrate_notebook(notebook(IMPORT, broken, CALL, "also broken ("), EVERYTHING)
    assert sources(new.source)[1] == broken
    assert "V2" in sources(new.source)[2]
    assert (new.findings[0].cell, str(new.findings[0].outcome)) == (2, "flagged")
    assert {f.cell for f in new.findings} == {1, 2, 3}


def test_a_cell_that_does_not_parse_is_flagged_for_the_old_name_alone() -> None:
    cell = f"!pip install \\\n    einops\n{CALL}"
    new = migrate_notebook(notebook(IMPORT, cell), EVERYTHING)
    assert sources(new.source)[1] == cell
    assert {(f.cell, str(f.outcome)) for f in new.findings} == {(1, "migrated"), (2, "flagged")}
    package = migrate_notebook(notebook("!a \\\n b\nimport dilated_attention_pytorch"), EVERYTHING)
    assert package.outcome is Outcome.FLAGGED


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"cells": 1}', '{"cells": [1]}', '{"cells": [{}]}', '{"cells": [', "x"]
)
def test_what_is_no_notebook_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a notebook of format 4"):
        list(code_cells(text))


def test_lines_beside_a_changed_one_keep_their_json() -> None:
    """Escapes and spaces that another writer would write otherwise."""
    text = (
        '{"cells": [{"cell_type": "code", "source": [ "%s\\n",\n\n  "x = 1 # caf\\u00e9 \\/\\n" ,'
        '"%s"\t]}] ,"nbformat":4}\n'
    )
    before, after = (
        text % (IMPORT, CALL),
        text
        % (
            f"{IMPORT}V2",
            "a = RingDilatedAttentionV2(segment_lengths=[1], dilation_rates=[1])",
        ),
    )
    assert migrate_notebook(before.encode(), EVERYTHING).source == after.encode()


def test_an_empty_notebook_is_left() -> None:
    source = b'{"cells": [], "metadata": {"title": "dilated_attention_pytorch"}, "nbformat": 4}'
    assert migrate_notebook(source, EVERYTHING).source is source
    one = notebook("")
    assert [cell.lines for cell in code_cells(one.decode())] == [()]
