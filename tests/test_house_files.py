"""What files may look like: their length, and what none of them may speak of."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from support.file_lengths import KERNEL_LIMIT, LIMIT, line_counts, summary, too_long
from support.offline_site import external_requests

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cfg", ".json", ".css", ".svg", ".sh"}
IGNORED = {".git", ".nox", ".venv", "venv", "site", "dist", "build"}
# What a reader of the project elsewhere cannot have: folders of one machine, addresses of package
# registries, the folder beside a checkout; and reminders that nobody is held to.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.\-/}])/(?:work|tmp|root|opt|home)/"),
    "a folder beside the checkout": re.compile(r"\.\./shared"),
    "a registry's host": re.compile(r"pypi\.org|pythonhosted|registry\.npm|deb\.debian"),
    "a reminder without an issue": re.compile(r"#\s*(?:TODO|FIXME|XXX)\b(?!\(\S+\))"),
}


def text_files() -> list[Path]:
    def kept(path: Path) -> bool:
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts[:-1])
        known = path.suffix in SUFFIXES or path.parent.name == ".ci"
        # This file spells out what it looks for.
        own = path == Path(__file__)
        return path.is_file() and known and not own and not hidden and not IGNORED & set(parts)

    return sorted(path for path in ROOT.rglob("*") if kept(path))


def faults_of(text: str) -> list[str]:
    return [name for name, pattern in FORBIDDEN.items() if pattern.search(text)]


def test_no_file_is_longer_than_its_limit() -> None:
    counts = line_counts()
    print(summary(counts))
    assert too_long(counts) == []


def test_the_median_file_is_short() -> None:
    lengths = [lines for path, lines in line_counts().items() if "src" in path.parts and lines >= 5]
    assert statistics.median(lengths) <= 150


def test_the_limits_bite(tmp_path: Path) -> None:
    for folder, lines in (
        ("a", LIMIT + 1),
        ("kernels", LIMIT + 1),
        ("kernels/b", KERNEL_LIMIT + 1),
    ):
        path = tmp_path / "packages" / folder / "x.py"
        path.parent.mkdir(parents=True)
        path.write_text("pass\n" * lines, encoding="utf-8")
    faults = too_long(line_counts(tmp_path))
    assert [fault.split(":")[0] for fault in faults] == [
        "packages/a/x.py",
        "packages/kernels/b/x.py",
    ]


def test_no_file_speaks_of_one_machine_or_of_nobodys_todo() -> None:
    files = text_files()
    assert ROOT / "README.md" in files
    faults = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := faults_of(path.read_text(encoding="utf-8")))
    }
    assert not faults


@pytest.mark.parametrize(
    "text",
    [
        "see /work/main",
        "open('/tmp/x')",
        "../shared/data",
        "https://pypi.org/simple",
        "x = 1  # TODO later",
    ],
)
def test_the_scan_bites(text: str) -> None:
    assert len(faults_of(text)) == 1


@pytest.mark.parametrize("text", ["n / R / work", "docs/work/", "a TODO list", "# TODO(#12): x"])
def test_the_scan_lets_plain_text_pass(text: str) -> None:
    assert faults_of(text) == []


def test_every_package_ships_the_licence() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for folder in (ROOT / "oracle", *sorted(ROOT.glob("packages/*"))):
        assert (folder / "LICENSE").read_text(encoding="utf-8") == licence, folder.name


def test_the_offline_check_bites(tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text("@font-face { src: url(https://fonts.example/a.woff) }")
    (tmp_path / "own.css").write_text("a { background: url(../b.svg) }")
    (tmp_path / "page.html").write_text(
        '<link rel="canonical" href="https://a.example/"><a href="https://b.example/">b</a>'
        '<link rel="stylesheet" href="own.css"><script src="//c.example/d.js"></script>'
    )
    assert external_requests(tmp_path) == [
        "page.html: <script src='//c.example/d.js'>",
        "style.css: https://fonts.example/a.woff",
    ]
