"""Old names and old module paths, as the main package answers for them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import subprocess
import sys
import warnings
from types import ModuleType

import pytest

import dilated_attention_compat as compat
import dilated_attention_pytorch as package
from dilated_attention_pytorch import _legacy
from dilated_attention_pytorch.factory import (
    create_dilated_attention,
    create_multihead_dilated_attention,
)

PACKAGE = "dilated_attention_pytorch"
EXPORTED = compat.exported()
SERVED = [name for name, record in EXPORTED.items() if record.fate == "compat"]
GONE = [name for name, record in EXPORTED.items() if record.fate == "gone"]
STAYING = [r for r in compat.RECORDS if r.is_imported and r.fate in ("kept", "corrected")]
HELD = [
    (path, record) for path, records in compat.old_modules().items() for record in records
]  # fmt: skip


def held_id(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "name", str(value))


def run_fresh(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False
    )


def assert_runs_silently(code: str) -> None:
    done = run_fresh(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def import_from(module: str, name: str) -> object:
    """What `from module import name` binds."""
    namespace: dict[str, object] = {}
    exec(f"from {module} import {name} as it", namespace)
    return namespace["it"]


@pytest.fixture
def without_compat(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dilated_attention_compat.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dilated_attention_compat", None)


@pytest.mark.parametrize("name", SERVED)
def test_importing_a_deprecated_name_is_silent(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        served = import_from(PACKAGE, name)
    assert served is getattr(package, name)
    assert served is compat.load(EXPORTED[name])
    assert name in dir(package)
    assert "RingAttentionDeprecationWarning" in dir(package)
    assert package.RingAttentionDeprecationWarning is compat.RingAttentionDeprecationWarning


@pytest.mark.parametrize("name", GONE)
def test_a_name_that_is_gone_says_what_to_use_instead(name: str) -> None:
    """Red where the library has the name again: then its record is out of date."""
    advice = EXPORTED[name].advice
    with pytest.raises(AttributeError) as missing:
        getattr(package, name)
    assert str(missing.value) == f"module '{PACKAGE}' has no attribute '{name}'; {advice}"
    with pytest.raises(ImportError) as refused:
        import_from(PACKAGE, name)
    assert str(refused.value) == f"cannot import name '{name}' from '{PACKAGE}'; {advice}"
    assert name not in dir(package)
    assert not hasattr(package, name)


@pytest.mark.parametrize("record", STAYING, ids=lambda record: record.name)
def test_a_name_that_stays_is_the_librarys_own(record: compat.LegacyRecord) -> None:
    here = vars(package)[record.identifier]
    home, _, attribute = record.target.partition(":")
    assert here is getattr(importlib.import_module(home), attribute)
    assert here.__module__.startswith(f"{PACKAGE}.")


@pytest.mark.parametrize(("path", "record"), HELD, ids=held_id)
def test_old_module_paths_hold_their_names(path: str, record: compat.LegacyRecord) -> None:
    name = record.identifier
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = importlib.import_module(path)
        if record.fate == "gone":
            with pytest.raises(ImportError) as refused:
                import_from(path, name)
            assert str(refused.value) == f"cannot import name '{name}' from '{path}'; " + (
                record.advice
            )
            with pytest.raises(AttributeError) as missing:
                getattr(module, name)
            assert str(missing.value).endswith(record.advice)
            assert name not in dir(module)
            return
        held = import_from(path, name)
    expected = compat.load(record) if record.fate == "compat" else getattr(package, name)
    assert held is getattr(module, name) is expected
    assert name in dir(module)


def test_the_package_imports_nothing_of_compat_until_it_is_asked_and_old_paths_are_silent() -> None:
    """In one fresh interpreter, for the time that importing torch takes."""
    assert_runs_silently(
        "import sys, dilated_attention_pytorch, dilated_attention_pytorch.core.factory\n"
        "assert not [m for m in sys.modules if m.startswith('dilated_attention_compat')]\n"
        # An old module is an attribute before it is imported.
        "module = dilated_attention_pytorch.ring_attention_correct\n"
        "assert module.RingAttentionCorrect\n"
        "import dilated_attention_pytorch.ring_dilated_attention\n"
        "from dilated_attention_pytorch.ring_dilated_attention import RingDilatedAttention as A\n"
        "from dilated_attention_pytorch import ring_multihead_dilated_attention as old\n"
        "from dilated_attention_pytorch.ring_multihead_dilated_attention import *\n"
        "from dilated_attention_pytorch.utils.sparse_pattern_utils import PatternType as T\n"
        "from dilated_attention_pytorch import utils\n"
        "from dilated_attention_pytorch.dilated_attention import DilatedAttention as D\n"
        "from dilated_attention_pytorch.core.config import RingAttentionConfig as C\n"
        "import dilated_attention_pytorch as package\n"
        "assert A is package.RingDilatedAttention\n"
        "assert old.RingMultiheadDilatedAttention is package.RingMultiheadDilatedAttention\n"
        "assert RingMultiheadDilatedAttention is old.RingMultiheadDilatedAttention\n"
        "assert package.ring_multihead_dilated_attention is old\n"
        "assert T is package.PatternType is utils.sparse_pattern_utils.PatternType\n"
        "assert D is package.DilatedAttention and callable(package.dilated_attention)\n"
        "assert C is package.core.RingAttentionConfig is package.core.config.RingAttentionConfig\n"
    )


def test_a_star_import_of_an_old_module_takes_what_is_left() -> None:
    namespace: dict[str, object] = {}
    exec("from dilated_attention_pytorch.core.config import *", namespace)
    exec("from dilated_attention_pytorch.core.memory_pool import *", namespace)
    assert set(namespace) - {"__builtins__"} == {
        "DilatedAttentionConfig",
        "MultiheadConfig",
        "RingAttentionConfig",
        "SparseAttentionConfig",
        "DistributedConfig",
        "MemoryPoolConfig",
    }


@pytest.mark.parametrize("name", ["ring_dilated_attention", "dilated_attention"])
def test_an_old_module_does_not_take_the_place_of_the_function(name: str) -> None:
    before = getattr(package, name)
    assert inspect.isfunction(before)
    module = importlib.import_module(f"{PACKAGE}.{name}")
    assert isinstance(module, ModuleType)
    assert any(record.identifier in dir(module) for record in compat.old_modules()[module.__name__])
    assert getattr(package, name) is before


@pytest.mark.parametrize("path", sorted(compat.old_modules()))
def test_an_old_module_holds_its_names_only(path: str) -> None:
    module = importlib.import_module(path)
    for name in ("RingAttentionMemory", "_private"):
        with pytest.raises(AttributeError, match=rf"module '{path}' has no attribute '{name}'$"):
            getattr(module, name)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        import_from(path, "nothing")


def test_unknown_names_and_modules_are_ordinary_errors() -> None:
    with pytest.raises(AttributeError) as caught:
        package.nothing_of_the_kind  # noqa: B018
    assert str(caught.value) == (
        "module 'dilated_attention_pytorch' has no attribute 'nothing_of_the_kind'"
    )
    assert not hasattr(package, "__wrapped__")
    # Known to the records, and never importable from the package itself.
    with pytest.raises(AttributeError, match=r"has no attribute 'RingAttentionCorrect'$"):
        package.RingAttentionCorrect  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        import_from(PACKAGE, "nothing")
    with pytest.raises(ModuleNotFoundError, match=r"No module named .*\.x'"):
        importlib.import_module("dilated_attention_pytorch.x")
    assert importlib.util.find_spec("dilated_attention_pytorch.x") is None


TYPES = [r for r in compat.RECORDS if r.kind == "attention type"]


@pytest.mark.parametrize("record", TYPES, ids=lambda record: record.name)
def test_every_old_attention_type_gets_an_answer(record: compat.LegacyRecord) -> None:
    function, _, quoted = record.name.partition("(")
    name = quoted.strip("')")
    create = getattr(package, function)
    if record.fate != "gone":
        assert create(name).pattern
        return
    with pytest.raises(ValueError, match=f"^Unknown attention type '{name}'") as caught:
        create(name)
    message = str(caught.value)
    assert "Available types: ['auto', 'distributed', " in message
    assert message.endswith(f". {record.advice}")


def test_an_attention_type_that_never_was_gets_no_advice() -> None:
    for create in (create_dilated_attention, create_multihead_dilated_attention):
        with pytest.raises(ValueError, match=r"^Unknown attention type 'x'.*'standard'\]$"):
            create("x")
    with pytest.raises(ValueError, match="create_block_sparse_attention with its old numbers"):
        create_multihead_dilated_attention("multihead_block_sparse_ring")


@pytest.mark.usefixtures("without_compat")
@pytest.mark.parametrize("name", [*SERVED, *GONE, "RingAttentionDeprecationWarning"])
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
    core = importlib.import_module("dilated_attention_pytorch.core")
    assert "RingAttentionConfig" not in dir(core)
    with pytest.raises(AttributeError, match=r"has no attribute 'RingAttentionConfig'$"):
        core.RingAttentionConfig  # noqa: B018
    with pytest.raises(ValueError, match=r"Unknown attention type 'block_sparse_ring'.*\]$"):
        create_dilated_attention("block_sparse_ring")
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
