"""Programs as users wrote them: what becomes of each, byte for byte.

`data/migrate/migrated` and `flagged` hold each program before and after; `left` holds those that
nothing happens to. The folder is the expected outcome. Part of the programs are the odd ones: other
encodings, line ends, byte order marks, notebooks as different editors write them.
"""

from __future__ import annotations

import ast
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from dilated_attention_compat.migrate.cli import main
from dilated_attention_compat.migrate.files import migrate_file
from dilated_attention_compat.migrate.source import Outcome
from dilated_attention_compat.migrate.todo import MARK
from dilated_attention_compat.migrate.vocabulary import Vocabulary

CORPUS = Path(__file__).parent / "data" / "migrate"
EVERYTHING = Vocabulary()


def files_of(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (CORPUS / folder).rglob("*") if path.is_file()]
    return sorted(path.relative_to(CORPUS) for path in found)


BEFORE = files_of("migrated/before", "flagged/before", "left")
AFTER = files_of("migrated/after", "flagged/after", "left")


def after(path: Path) -> Path:
    return CORPUS / str(path).replace("/before/", "/after/")


@pytest.mark.parametrize("path", BEFORE, ids=str)
def test_a_program_becomes_what_it_should(path: Path) -> None:
    result = migrate_file(CORPUS / path, EVERYTHING, star=False)
    assert result.error == ""
    assert result.migration.source == after(path).read_bytes()
    assert str(result.migration.outcome) == path.parts[0]
    assert result.changes == (path.parts[0] != "left")


@pytest.mark.parametrize("path", AFTER, ids=str)
def test_a_second_run_changes_nothing(path: Path) -> None:
    result = migrate_file(CORPUS / path, EVERYTHING, star=False)
    assert not result.changes
    expected = Outcome.FLAGGED if path.parts[0] == "flagged" else Outcome.LEFT
    assert result.migration.outcome == expected


@pytest.mark.parametrize("path", AFTER, ids=str)
def test_what_comes_out_is_still_a_program(path: Path) -> None:
    source = (CORPUS / path).read_bytes()
    if path.suffix == ".ipynb":
        assert json.loads(source)["nbformat"] == 4
    else:
        ast.parse(source)


@pytest.mark.parametrize("path", files_of("flagged/after"), ids=str)
def test_a_flagged_program_says_why(path: Path) -> None:
    assert MARK in (CORPUS / path).read_text(encoding="utf-8")


def test_the_corpus_is_large_and_has_every_kind() -> None:
    outcomes = Counter(path.parts[0] for path in BEFORE)
    assert set(outcomes) == {"migrated", "flagged", "left"}
    assert sum(outcomes.values()) >= 60
    assert min(outcomes.values()) >= 10
    assert {path.suffix for path in BEFORE} == {".py", ".pyi", ".ipynb"}


def test_writing_a_whole_folder_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in BEFORE:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CORPUS / path, tmp_path / path)
    assert main(["--write", str(tmp_path)]) == 1
    for path in BEFORE:
        assert (tmp_path / path).read_bytes() == after(path).read_bytes(), path
    said = capsys.readouterr().err
    outcomes = Counter(path.parts[0] for path in BEFORE)
    print(said.splitlines()[-1])
    for outcome, count in outcomes.items():
        assert f"{count} {outcome}" in said
