"""Every Python block of the README and of the pages runs; every page is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.pages import Block, blocks, run_page

ROOT = Path(__file__).parents[1]
FRONT_PAGES = [
    ROOT / "README.md",
    ROOT / "oracle/README.md",
    ROOT / "packages/dilated-attention-pytorch/README.md",
    ROOT / "packages/dilated-attention-compat/README.md",
]
PAGES = [page for page in (*FRONT_PAGES, *sorted(ROOT.glob("docs/**/*.md"))) if page.is_file()]
WITH_BLOCKS = [page for page in PAGES if any(block.title is None for block in blocks(page))]
PROGRAMS = [(page, block) for page in PAGES for block in blocks(page) if block.title]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_the_python_blocks_of_a_page_run_in_one_namespace(page: Path) -> None:
    assert run_page(page) > 0


@pytest.mark.gloo
@pytest.mark.parametrize(
    ("page", "block"), PROGRAMS, ids=[f"{name(page)}-{block.title}" for page, block in PROGRAMS]
)
def test_a_titled_block_runs_under_torchrun(page: Path, block: Block, tmp_path: Path) -> None:
    assert block.title is not None
    program = tmp_path / block.title
    program.write_text(block.code, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{name(page)}, line {block.line}:\n{done.stderr}"
    assert "rank 0" in done.stdout
    assert "rank 1" in done.stdout


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
