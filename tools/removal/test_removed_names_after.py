"""Names that earlier versions had are gone, and asking for one says what to use instead."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.resources import files

import pytest

import dilated_attention_pytorch as package
from dilated_attention_pytorch import _legacy

PACKAGE = "dilated_attention_pytorch"
LINES = files(PACKAGE).joinpath("removed.tsv").read_text(encoding="utf-8").splitlines()
ADVICE = dict(line.split("\t", 1) for line in LINES)
PATHS = [path for path in ADVICE if path.startswith(f"{PACKAGE}.")]
EXPORTED = [path.rpartition(".")[2] for path in PATHS if path.count(".") == 1]
TYPES = [path for path in ADVICE if path.endswith("')")]


def test_the_table_has_names_paths_and_attention_types() -> None:
    assert len(ADVICE) == len(LINES) == len(PATHS) + len(TYPES)
    assert {"RingDilatedAttention", "RingAttentionDeprecationWarning"} <= set(EXPORTED)
    assert f"{PACKAGE}.core.DilatedAttentionConfig" in PATHS
    assert TYPES


def expected(path: str) -> str:
    """The advice on a path, or on the first module on the way to it that is gone."""
    parts = path.split(".")
    prefixes = (".".join(parts[: end + 1]) for end in range(1, len(parts)))
    return next(ADVICE[prefix] for prefix in prefixes if prefix in ADVICE)


@pytest.mark.parametrize("path", PATHS)
def test_importing_what_is_gone_says_what_to_use(path: str) -> None:
    with pytest.raises(ImportError) as refused:
        importlib.import_module(path)
    module, _, name = path.rpartition(".")
    if hasattr(sys.modules.get(module, package), "__path__"):
        assert expected(path) in str(refused.value)
    else:
        # Of a plain module, `from module import name` says less than the attribute does.
        with pytest.raises(AttributeError) as missing:
            getattr(sys.modules[module], name)
        assert expected(path) in str(missing.value)


@pytest.mark.parametrize("path", PATHS)
def test_a_from_import_fails_alike(path: str) -> None:
    module, _, name = path.rpartition(".")
    if name in vars(package) and module == PACKAGE:
        # A function of today has the name of a module of old.
        return
    with pytest.raises(ImportError) as refused:
        exec(f"from {module} import {name}", {})
    if hasattr(sys.modules.get(module, package), "__path__"):
        assert expected(path) in str(refused.value)


@pytest.mark.parametrize("name", EXPORTED)
def test_asking_the_package_says_what_to_use(name: str) -> None:
    if name in vars(package):
        # A function of today has the name of a module of old; importing the module was refused.
        return
    with pytest.raises(AttributeError) as missing:
        getattr(package, name)
    assert str(missing.value).endswith(ADVICE[f"{PACKAGE}.{name}"])
    assert missing.value.name == name
    assert name not in dir(package)


@pytest.mark.parametrize("entry", TYPES)
def test_the_factory_says_what_to_use(entry: str) -> None:
    function, _, rest = entry.partition("('")
    with pytest.raises(ValueError, match="Unknown attention type") as refused:
        getattr(package, function)(rest.removesuffix("')"))
    assert str(refused.value).endswith(ADVICE[entry])


def test_other_attributes_are_ordinary_errors() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        package.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute '__wrapped__'$"):
        package.__wrapped__  # noqa: B018
    with pytest.raises(
        ModuleNotFoundError, match=r"No module named 'dilated_attention_pytorch.no'"
    ):
        importlib.import_module(f"{PACKAGE}.no")
    assert _legacy.names() == []


def test_nothing_needs_the_compat_package() -> None:
    code = (
        "import sys; sys.modules['dilated_attention_compat'] = None\n"
        "import dilated_attention_pytorch as package\n"
        "from dilated_attention_pytorch import *\n"
        "from dilated_attention_pytorch.core import *\n"
        "assert dir(package) and not hasattr(package, 'RingDilatedAttention')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
