"""Everything this repository can do for itself: ``python -m nox --list`` names it.

Sessions that need torch use virtualenv and pip with the pins of ``constraints.txt``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = ["tests", "interpret", "lint", "types", "docs", "build"]

ROOT = Path(__file__).parent
ORACLE = "oracle"
COMPAT = "packages/dilated-attention-compat"
MAIN = "packages/dilated-attention-pytorch"
SOURCES = (
    f"{ORACLE}/src/dilated_attention_oracle",
    f"{COMPAT}/src/dilated_attention_compat",
    f"{MAIN}/src/dilated_attention_pytorch",
)
SEARCH_PATH = os.pathsep.join(str((ROOT / source).parent) for source in SOURCES)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


# pip takes the build of torch that it is shown; uv would fetch the index's CUDA build.
pip_session = nox.session(venv_backend="virtualenv")


def install(session: nox.Session, *requirements: str) -> None:
    """Install with pip under the project's pins."""
    session.install("-c", "constraints.txt", *requirements)


def install_packages(session: nox.Session, *requirements: str) -> None:
    """Install the three packages from this checkout, and more, in one pip call.

    One call, because the packages require each other at exactly this version: pip must see all
    three paths at once.
    """
    install(
        session,
        *("-e", f"./{ORACLE}[conformance]"),
        *("-e", f"./{COMPAT}[torch]"),
        *("-e", f"./{MAIN}[cli]"),
        *requirements,
    )


@pip_session
def demo(session: nox.Session) -> None:
    """Train a small LongNet on real text over a ring of four processes, and show the numbers."""
    install_packages(session)
    session.run("dilated-attention", "demo", *session.posargs)


@pip_session
def tests(session: nox.Session) -> None:
    """Run every test within the time budgets, or what is named after ``--``."""
    install_packages(session, "pytest", "pytest-xdist", "pytest-timeout")
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal", "--enforce-budgets"]
    session.run(
        *("python", "-m", "pytest", "--timeout", "300", "--durations", "10"),
        *arguments,
        env=ONE_THREAD,
    )


@pip_session
def interpret(session: nox.Session) -> None:
    """Run the Triton kernels on the CPU, under Triton's interpreter."""
    install(session, "torch")
    # Triton 3.6 is what GPU machines have; its interpreter needs a NumPy older than the pinned one.
    # It needs nothing of what this torch asks for, which is a newer Triton.
    session.install("--no-deps", "triton==3.6.0")
    session.install("numpy<2.4", "pytest==9.2.0")
    session.run(
        *("python", "-m", "pytest", f"{MAIN}/tests/test_triton_interpreted.py", *session.posargs),
        env=ONE_THREAD | {"TRITON_INTERPRET": "1"},
    )


@pip_session
def lint(session: nox.Session) -> None:
    """Check style, format, who imports whom, and the length of files."""
    install(session, "ruff", "import-linter")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": SEARCH_PATH})
    session.run("python", "tests/support/file_lengths.py")


@pip_session
def types(session: nox.Session) -> None:
    """Run mypy --strict on the three packages."""
    install_packages(session, "mypy")
    session.run("mypy", *SOURCES)


@pip_session
def docs(session: nox.Session) -> None:
    """Build the pages into site/; warnings and requests to other hosts are errors."""
    install(session, "mkdocs", "mkdocs-material", "mkdocstrings-python", "ruff")
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    if session.posargs:
        session.run("mkdocs", *session.posargs, env=quiet)
        return
    session.run("mkdocs", "build", "--strict", "--clean", env=quiet)
    session.run("python", "tests/support/offline_site.py", "site")


@pip_session
def build(session: nox.Session) -> None:
    """Build three wheels, and import each alone in a fresh environment without an index."""
    install(session, "build", "hatchling", "virtualenv")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in (ORACLE, COMPAT, MAIN):
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(dist), package)
    session.run(
        *("python", "tests/support/wheels.py", str(dist), session.create_tmp()),
        *("--constraints", "constraints.txt"),
        *session.posargs,
    )
