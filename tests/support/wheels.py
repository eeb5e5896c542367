"""Install each wheel alone into a fresh environment, without an index, and import it there.

Usage: ``python tests/support/wheels.py DIST TMP --constraints FILE``. Every dependency is first
gathered into one folder under the project's pins; the environments are then filled with
``--no-index --find-links`` from the wheels and that folder only, with pip's own settings off, so
that nothing but what the wheels declare can satisfy an import.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# What importing a package may not bring along.
PACKAGES = {
    "dilated-attention-oracle": ("torch", "hypothesis", "dilated_attention_pytorch"),
    "dilated-attention-compat": ("torch", "numpy", "dilated_attention_pytorch"),
    "dilated-attention-pytorch": ("typer", "rich", "matplotlib", "dilated_attention_oracle"),
}
CHECK = """
import importlib, importlib.metadata, pathlib, sys, sysconfig
dist, *forbidden = sys.argv[1:]
name = dist.replace("-", "_")
module = importlib.import_module(name)
home = pathlib.Path(module.__file__).parent
assert home.is_relative_to(sysconfig.get_paths()["purelib"]), f"imported from {home}"
assert (home / "py.typed").is_file(), "py.typed is not in the wheel"
assert module.__version__ == importlib.metadata.version(dist), module.__version__
brought = [other for other in forbidden if other in sys.modules]
assert not brought, f"importing {name} imported {brought}"
files = importlib.metadata.files(dist)
assert any(file.name == "LICENSE" for file in files), "LICENSE is not in the wheel"
print(f"{name} {module.__version__} imports alone")
"""


def pip_environment() -> dict[str, str]:
    """Return the environment variables less every setting that could name a package source."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    kept.pop("PYTHONPATH", None)
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def find_wheel(dist: Path, package: str) -> Path:
    """Return the one wheel of ``package`` in ``dist``."""
    found = list(dist.glob(f"{package.replace('-', '_')}-*.whl"))
    if len(found) != 1:
        raise ValueError(f"expected one wheel of {package} in {dist}, got {found}: build it first")
    return found[0]


def gather(dist: Path, wheelhouse: Path, constraints: str) -> None:
    """Download what the three wheels require into ``wheelhouse``, beside the wheels themselves."""
    wheels = [str(find_wheel(dist, package)) for package in PACKAGES]
    command = ["-m", "pip", "download", "-q", "-d", str(wheelhouse), "-c", constraints, *wheels]
    subprocess.run([sys.executable, *command], check=True)


def import_alone(package: str, wheelhouse: Path, home: Path) -> None:
    """Install ``package`` into a new environment at ``home`` from ``wheelhouse``; import it."""
    subprocess.run([sys.executable, "-m", "virtualenv", "-q", str(home)], check=True)
    python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    install = ["install", "-q", "--no-index", "--find-links", str(wheelhouse), package]
    environment = pip_environment()
    subprocess.run([python, "-m", "pip", *install], check=True, env=environment)
    subprocess.run([python, "-m", "pip", "check"], check=True, env=environment)
    check = [python, "-I", "-W", "error", "-c", CHECK, package, *PACKAGES[package]]
    subprocess.run(check, check=True, env=environment, cwd=home)


def main() -> int:
    """Check the three wheels; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("tmp", type=Path)
    parser.add_argument("--constraints", required=True)
    arguments = parser.parse_args()
    work = arguments.tmp.resolve() / "wheels"
    shutil.rmtree(work, ignore_errors=True)
    wheelhouse = work / "wheelhouse"
    wheelhouse.mkdir(parents=True)
    try:
        gather(arguments.dist.resolve(), wheelhouse, arguments.constraints)
        for package in PACKAGES:
            start = time.perf_counter()
            import_alone(package, wheelhouse, work / package)
            print(f"{package}: {time.perf_counter() - start:.0f} s", flush=True)
    except subprocess.CalledProcessError as error:
        # What the command said is above; its text would be longer than the reason.
        print(f"failed: {' '.join(map(str, error.cmd[:4]))} ...", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
