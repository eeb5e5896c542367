"""Every Python block of the README and of the pages runs; every page is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import page_programs
from support.pages import Block, blocks, run_page

ROOT = Path(__file__).parents[1]
FRONT_PAGES = [
    ROOT / "README.md",
    ROOT / "oracle/README.md",
    ROOT / "packages/dilated-attention-pytorch/README.md",
    ROOT / "packages/dilated-attention-compat/README.md",
]
# Others at the root; the contributing page includes its text from there.
ROOT_PAGES = [page for page in sorted(ROOT.glob("*.md")) if page not in FRONT_PAGES]
PAGES = [
    page
    for page in (*FRONT_PAGES, *ROOT_PAGES, *sorted(ROOT.glob("docs/**/*.md")))
    if page.is_file()
]
WITH_BLOCKS = [page for page in PAGES if any(block.title is None for block in blocks(page))]
PROGRAMS = [(page, block) for page in PAGES for block in blocks(page) if block.title]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_the_python_blocks_of_a_page_run_in_one_namespace(page: Path) -> None:
    assert run_page(page) > 0


def program_of(page: Path, block: Block, folder: Path) -> Path:
    """A block as a file; line numbers in its tracebacks are those of the page."""
    assert block.title is not None
    program = folder / block.title
    program.write_text("\n" * (block.line - 1) + block.code, encoding="utf-8")
    return program


@pytest.mark.gloo
@pytest.mark.parametrize(
    ("page", "block"), PROGRAMS, ids=[f"{name(page)}-{block.title}" for page, block in PROGRAMS]
)
def test_a_titled_block_runs_on_two_ranks(page: Path, block: Block, tmp_path: Path) -> None:
    printed = page_programs.run(program_of(page, block, tmp_path))
    for rank, text in enumerate(printed):
        assert f"rank {rank}" in text


@pytest.mark.gloo
def test_the_first_program_runs_under_torchrun(tmp_path: Path) -> None:
    """As the page says to run it; the others get what torchrun sets, and start sooner."""
    page = ROOT / "docs/start.md"
    (block,) = (block for block in blocks(page) if block.title)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = program_of(page, block, tmp_path)
    done = subprocess.run(
        [*torchrun, str(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rank 0" in done.stdout
    assert "rank 1" in done.stdout


@pytest.mark.gloo
def test_a_program_that_fails_on_one_rank_is_found(tmp_path: Path) -> None:
    program = tmp_path / "fails.py"
    program.write_text("import os\nassert os.environ['RANK'] == '0', 'lost'\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"(?s)ended with \[0, 1\].*lost"):
        page_programs.run(program)


def test_the_front_pages_have_blocks() -> None:
    """A fence that the runner does not recognise would pass by not running."""
    for page in PAGES:
        fences = len(re.findall(r"^ *```python", page.read_text(encoding="utf-8"), re.M))
        assert len(blocks(page)) == fences, f"{name(page)}: a python fence is not closed"
    assert {"README.md", "docs/index.md", "docs/start.md"} <= {name(page) for page in WITH_BLOCKS}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    missing = [
        target
        for target in targets
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert not missing, f"{name(page)} links to {missing}, which do not exist"


def test_every_package_has_a_front_page() -> None:
    assert [name(page) for page in FRONT_PAGES if page not in PAGES] == []
    for page in FRONT_PAGES:
        assert page.read_text(encoding="utf-8").startswith("# ")
