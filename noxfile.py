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
SITE_TOOLS = ("mkdocs", "mkdocs-material", "mkdocstrings-python", "ruff")
QUIET = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}


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
        *("-e", f"./{COMPAT}[torch,migrate,checkpoint]"),
        *("-e", f"./{MAIN}[cli]"),
        *requirements,
    )


def build_site(session: nox.Session) -> None:
    """Build the pages into site/; a warning is an error."""
    session.run("mkdocs", "build", "--strict", "--clean", env=QUIET)


@pip_session
def demo(session: nox.Session) -> None:
    """Train a small LongNet on real text over a ring of four processes, and show the numbers."""
    install_packages(session)
    session.run("dilated-attention", "demo", *session.posargs)


@pip_session
def tests(session: nox.Session) -> None:
    """Run every test within the time budgets, or what is named after ``--``."""
    install_packages(session, "pytest", "pytest-xdist", "pytest-timeout", "PyYAML")
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal", "--enforce-budgets"]
    session.run(
        *("python", "-m", "pytest", "--timeout", "300", "--durations", "10"),
        *arguments,
        env=ONE_THREAD,
    )


@pip_session
def interpret(session: nox.Session) -> None:
    """Run the Triton kernels on the CPU, under Triton's interpreter; compile the Hopper kernels."""
    install(session, "torch", "hypothesis")
    # Triton 3.6 is what GPU machines have; its interpreter needs a NumPy older than the pinned one.
    # It needs nothing of what this torch asks for, which is a newer Triton.
    session.install("--no-deps", "triton==3.6.0")
    session.install("numpy<2.4", "pytest==9.2.0")
    session.run(
        *("python", "-m", "pytest"),
        *(f"{MAIN}/tests/test_{name}_interpreted.py" for name in ("triton", "triton_ring", "sdpa")),
        *session.posargs,
        env=ONE_THREAD | {"TRITON_INTERPRET": "1"},
    )
    # Gluon is not interpreted; what the compiler makes of it is looked at instead.
    compiled = (
        f"{MAIN}/tests/test_{name}_compiled.py" for name in ("gluon", "gluon_launcher", "triton")
    )
    session.run("python", "-m", "pytest", *compiled, env=ONE_THREAD)


@nox.session(venv_backend="virtualenv", default=False)
def huggingface(session: nox.Session) -> None:
    """Run the tests of the Transformers integration, which the other sessions skip."""
    install_packages(session, "pytest", "pytest-timeout", "transformers")
    session.run(
        *("python", "-m", "pytest", f"{MAIN}/tests/test_integrations_huggingface.py"),
        *("tests/test_examples_continue_pretraining.py", *session.posargs),
        env=ONE_THREAD,
    )
    # Its block on Transformers is left out where that is not installed.
    page = "tests/test_house_pages.py"
    session.run("python", "-m", "pytest", page, "-k", "blocks and training", env=ONE_THREAD)


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
    """Run mypy --strict on the three packages, and on the snippets of the deprecation records."""
    install_packages(session, "mypy", "pytest")
    session.run("mypy", *SOURCES)
    session.run("python", "-m", "pytest", "tests/test_legacy_types.py")


@pip_session
def docs(session: nox.Session) -> None:
    """Build the pages into site/; warnings, dead links, requests to other hosts are errors."""
    install(session, *SITE_TOOLS)
    if session.posargs:
        session.run("mkdocs", *session.posargs, env=QUIET)
        return
    build_site(session)
    session.run("python", "tests/support/offline_site.py", "site")
    session.run("python", "tests/support/site_links.py", "site")


@pip_session
def figures(session: nox.Session) -> None:
    """Draw every figure of the pages again, and the explorer's test vectors."""
    install_packages(session)
    scripts = [*(ROOT / "docs/figures").glob("*.py"), ROOT / "docs/explorer/vectors.py"]
    for script in sorted(scripts):
        session.run("python", str(script), env={"MPLBACKEND": "svg"})
    # Tables and figures of what was measured on GPUs.
    session.run("python", "-m", "benchmarks.page")


@pip_session
def site_browser(session: nox.Session) -> None:
    """Build the pages and try them in the Chromium of this machine; keep screenshots in build/."""
    install(session, *SITE_TOOLS, "pytest", "pytest-timeout", "playwright", "axe-playwright-python")
    # The suite's conftest reads the oracle; pages are looked at without torch.
    install(session, "-e", f"./{ORACLE}")
    build_site(session)
    session.run("python", "-m", "pytest", "tests/test_site_browser.py", *session.posargs)


@pip_session
def publish_site(session: nox.Session) -> None:
    """Commit the pages of a version to branch gh-pages: ``nox -s publish_site -- 0.2 latest``."""
    if not session.posargs:
        session.error("expected a version, and aliases if any: nox -s publish_site -- 0.2 latest")
    install(session, *SITE_TOOLS, "mike")
    version, *aliases = session.posargs
    environment = QUIET | {"DOCS_VERSIONS": "mike"}
    session.run("mike", "deploy", "--push", "--update-aliases", version, *aliases, env=environment)
    if "latest" in aliases:
        session.run("mike", "set-default", "--push", "latest", env=environment)


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


@nox.session(venv_backend="virtualenv", default=False)
def rehearse_removal(session: nox.Session) -> None:
    """Carry out v0.3.0 in a copy: drop the deprecated names, run the suites, touch nothing here."""
    # Not the three packages: the copy's own are tested.
    install(
        session,
        *("torch", "numpy", "typing_extensions", "libcst", "safetensors", "typer", "rich"),
        *("matplotlib", "hypothesis", "pytest", "pytest-xdist", "pytest-timeout"),
        *("ruff", "import-linter"),
    )
    arguments = session.posargs or ["--", "-n", "2"]
    session.run("python", "tools/removal/rehearse.py", *arguments, env=ONE_THREAD)
