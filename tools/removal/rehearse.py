"""Rehearse the removal of the deprecated names in a copy: ``python tools/removal/rehearse.py``.

1. Copies what git tracks or would track into a temporary folder.
2. Bumps the version there and nothing else: the tests that hold names to their version turn red.
3. Removes the names there, and runs the suites: they are green.
4. Sees that the checkout is as it was.

Exits with 1 where any of these is otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REMOVE = "tools/removal/remove.py"
OUTLIVES = "tests/test_removal.py"
MAIN, COMPAT = "packages/dilated-attention-pytorch", "packages/dilated-attention-compat"
SOURCES = ("oracle/src", f"{COMPAT}/src", f"{MAIN}/src")
GREEN: dict[str, tuple[str, ...]] = {
    "names are gone": (OUTLIVES, f"{MAIN}/tests/test_removed_names.py"),
    "house": ("tests", "-k", "test_house_ and not test_house_pages"),
    "guide": ("tests/test_ring_attention_migration.py", "-k", "not measured_memory"),
    "factory and modules": (f"{MAIN}/tests", "-k", "test_factory_ or test_nn_"),
    "compat and migration": (f"{COMPAT}/tests", "tests/test_migrate_targets.py"),
}
"""Suites of step 3, by name: what pytest is given."""


def files() -> list[str]:
    """Return the files of the checkout that are, or would be, under version control."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def digest() -> str:
    """Return a digest of all files of the checkout."""
    state = hashlib.sha256()
    for name in files():
        state.update(f"{name}\0".encode() + hashlib.sha256((ROOT / name).read_bytes()).digest())
    return state.hexdigest()


def copy_to(target: Path) -> None:
    """Copy the checkout."""
    for name in files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def run(copy: Path, *command: str) -> tuple[int, str]:
    """Run a command in the copy; return its exit status and what it said."""
    # The copy's own packages, whatever is installed or on the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / s) for s in SOURCES)}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def pytest(copy: Path, *arguments: str) -> tuple[int, str]:
    """Run tests in the copy."""
    return run(copy, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def counts(said: str) -> str:
    """Return pytest's last line of counts."""
    found = re.findall(
        r"^=*\s*((?:\d+ (?:passed|failed|skipped|error|deselected)\w*[, ]*)+)", said, re.M
    )
    return found[-1].strip() if found else said.strip().splitlines()[-1]


def rehearse(copy: Path, version: str, more: Sequence[str]) -> list[str]:
    """Carry the rehearsal out; return what went otherwise than it should."""
    wrong: list[str] = []

    def step(name: str, expected: int, status: int, said: str, start: float) -> None:
        verdict = "as expected" if status == expected else "NOT AS EXPECTED"
        print(f"{name}: {counts(said)}, {time.perf_counter() - start:.0f} s, {verdict}", flush=True)
        if status != expected:
            wrong.append(name)
            print(said)

    start = time.perf_counter()
    copy_to(copy)
    status, said = run(copy, sys.executable, REMOVE, version, "--only-bump")
    step(f"version {version}, names still there", 0, status, said, start)
    start = time.perf_counter()
    step("  red", 1, *pytest(copy, OUTLIVES), start)
    start = time.perf_counter()
    copy_to(copy)
    status, said = run(copy, sys.executable, REMOVE, version)
    step("names removed", 0, status, said, start)
    written = [line for line in said.splitlines() if line.endswith((".py", ".md"))]
    for name, arguments in GREEN.items():
        start = time.perf_counter()
        step(f"  {name}", 0, *pytest(copy, *arguments, *more), start)
    for command in (("ruff", "check"), ("ruff", "format", "--check")):
        start = time.perf_counter()
        step(f"  {' '.join(command)}", 0, *run(copy, *command, *written), start)
    start = time.perf_counter()
    step("  lint-imports", 0, *run(copy, "lint-imports"), start)
    return wrong


def main() -> int:
    """Rehearse; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--version", default="0.3.0")
    parser.add_argument("more", nargs="*", help="for pytest, such as -n 2")
    options = parser.parse_args()
    before = digest()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        wrong = rehearse(Path(folder), options.version, options.more)
    if digest() != before:
        wrong.append("the checkout changed")
    verdict = f"FAILED: {', '.join(wrong)}" if wrong else "green, and the checkout is as it was"
    print(f"removal of {options.version}: {verdict}, {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
