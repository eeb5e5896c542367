"""Deprecated names and old module paths, as the main package serves them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import dilated_attention_compat as compat
import dilated_attention_pytorch as package
from dilated_attention_pytorch import _legacy

NAMES = [record.name for record in compat.RECORDS]


def run_fresh(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False
    )


def assert_runs_silently(code: str) -> None:
    done = run_fresh(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.fixture
def without_compat(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dilated_attention_compat.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dilated_attention_compat", None)


@pytest.mark.parametrize("name", NAMES)
def test_importing_a_deprecated_name_is_silent(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        served = getattr(package, name)
    assert served is getattr(compat, name)
    assert name in dir(package)
    assert "RingAttentionDeprecationWarning" in dir(package)
    assert package.RingAttentionDeprecationWarning is compat.RingAttentionDeprecationWarning


def test_the_package_itself_imports_nothing_of_compat() -> None:
    assert_runs_silently(
        "import sys, dilated_attention_pytorch\n"
        "assert not [m for m in sys.modules if m.startswith('dilated_attention_compat')]\n"
    )


def test_old_module_paths_import_silently_in_every_form() -> None:
    assert_runs_silently(
        "import dilated_attention_pytorch.ring_dilated_attention\n"
        "from dilated_attention_pytorch.ring_dilated_attention import RingDilatedAttention as A\n"
        "from dilated_attention_pytorch import ring_multihead_dilated_attention as old\n"
        "from dilated_attention_pytorch.ring_multihead_dilated_attention import *\n"
        "import dilated_attention_pytorch as package\n"
        "assert A is package.RingDilatedAttention\n"
        "assert old.RingMultiheadDilatedAttention is package.RingMultiheadDilatedAttention\n"
        "assert RingMultiheadDilatedAttention is old.RingMultiheadDilatedAttention\n"
        "assert package.ring_multihead_dilated_attention is old\n"
    )


def test_an_old_module_is_an_attribute_before_it_is_imported() -> None:
    assert_runs_silently(
        "import dilated_attention_pytorch as package\n"
        "module = package.ring_multihead_dilated_attention\n"
        "assert module.RingMultiheadDilatedAttention\n"
    )


def test_an_old_module_does_not_take_the_place_of_the_function() -> None:
    before = package.ring_dilated_attention
    assert inspect.isfunction(before)
    module = importlib.import_module("dilated_attention_pytorch.ring_dilated_attention")
    assert isinstance(module, ModuleType)
    assert module.RingDilatedAttention is getattr(compat, "RingDilatedAttention")  # noqa: B009
    assert package.ring_dilated_attention is before


@pytest.mark.parametrize("path", sorted(compat.old_modules()))
def test_an_old_module_holds_its_names_only(path: str) -> None:
    module = importlib.import_module(path)
    held = {record.name for record in compat.old_modules()[path]}
    assert held <= set(dir(module))
    for name in {*NAMES, "RingAttentionMemoryPool", "_private"} - held:
        with pytest.raises(AttributeError, match=rf"module '{path}' has no attribute '{name}'"):
            getattr(module, name)


def test_unknown_names_and_modules_are_ordinary_errors() -> None:
    with pytest.raises(AttributeError) as caught:
        package.nothing_of_the_kind  # noqa: B018
    assert str(caught.value) == (
        "module 'dilated_attention_pytorch' has no attribute 'nothing_of_the_kind'"
    )
    assert not hasattr(package, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from dilated_attention_pytorch import nothing")
    with pytest.raises(ModuleNotFoundError, match=r"No module named .*\.x'"):
        importlib.import_module("dilated_attention_pytorch.x")
    assert importlib.util.find_spec("dilated_attention_pytorch.x") is None


@pytest.mark.usefixtures("without_compat")
@pytest.mark.parametrize("name", [*NAMES, "RingAttentionDeprecationWarning"])
def test_without_compat_the_error_says_what_to_install(name: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(package, name)
    message = str(caught.value)
    assert message.startswith(f"module 'dilated_attention_pytorch' has no attribute '{name}'; ")
    assert "install it" in message
    assert "'dilated-attention-compat'" in message
    assert compat.GUIDE in message


@pytest.mark.usefixtures("without_compat")
def test_without_compat_nothing_else_changes() -> None:
    assert _legacy.names() == []
    assert callable(package.dilated_attention)
    assert importlib.util.find_spec("dilated_attention_pytorch.ring_multihead") is None
    with pytest.raises(AttributeError) as caught:
        package._private  # noqa: B018
    assert str(caught.value) == "module 'dilated_attention_pytorch' has no attribute '_private'"


def test_a_broken_compat_package_is_not_taken_for_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'something_else'", name="something_else")

    monkeypatch.setattr(_legacy, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="something_else"):
        package.RingDilatedAttention  # noqa: B018


def test_the_finder_is_installed_once() -> None:
    count = sum(type(finder).__name__ == "_OldModuleFinder" for finder in sys.meta_path)
    _legacy.install_finder()
    assert sum(type(finder).__name__ == "_OldModuleFinder" for finder in sys.meta_path) == count


def test_the_guide_address_is_the_records_own() -> None:
    assert compat.GUIDE == _legacy._GUIDE


def test_warnings_can_be_errors_by_the_name_the_guide_gives(tmp_path: Path) -> None:
    test = tmp_path / "test_mine.py"
    test.write_text(
        "import warnings\n"
        "from dilated_attention_pytorch import RingDilatedAttention\n"
        "def test_old():\n"
        "    RingDilatedAttention([8], [1])\n"
        "def test_other_warnings_stay_warnings():\n"
        "    warnings.warn('other', DeprecationWarning)\n"
    )
    option = "error::dilated_attention_pytorch.RingAttentionDeprecationWarning"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", option, str(test)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 passed, 1 warning" in done.stdout
    assert "RingAttentionDeprecationWarning: RingDilatedAttention is deprecated" in done.stdout
