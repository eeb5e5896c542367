"""The pytest plugin: ``--attention-impl=module:object`` runs the kit on that object.

It imports nothing of the kit until an implementation is named, and does nothing without one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

FIXTURE = "attention_implementation"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("dilated attention").addoption(
        "--attention-impl",
        action="append",
        default=[],
        metavar="MODULE:OBJECT",
        help="run the dilated-attention conformance kit on this object; may be given repeatedly",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Find the named implementations; collect the kit where they are named but no tests are."""
    named = config.getoption("--attention-impl")
    for name in named:
        load(name)
    if named and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(Path(__file__).parent)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run of each contract per named implementation."""
    named = metafunc.config.getoption("--attention-impl")
    if named and FIXTURE in metafunc.fixturenames:
        metafunc.parametrize(FIXTURE, named, indirect=True, scope="session")


@pytest.fixture(scope="session", name=FIXTURE)
def attention_implementation(request: pytest.FixtureRequest) -> Any:
    """The implementation under test; a test module may override it by a fixture of its own."""
    if not hasattr(request, "param"):
        raise pytest.UsageError("name the implementation to test: --attention-impl=MODULE:OBJECT")
    return load(request.param)


def load(name: str) -> Any:
    """The object called ``module:object``.

    Args:
        name: Module path and attribute path, joined by a colon.

    Returns:
        The object.

    Raises:
        pytest.UsageError: If there is no such object, or it is no `Implementation`.
    """
    from dilated_attention_oracle.conformance.protocol import CAPABILITIES, RULES
    from dilated_attention_oracle.precision import DTYPES

    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"--attention-impl={name}: {error}") from error
    supports = getattr(found, "supports", None)
    if not callable(found) or not isinstance(supports, frozenset):
        raise pytest.UsageError(
            f"--attention-impl={name}: expected a callable with a frozenset `supports`, got "
            f"{found!r}"
        )
    unknown = sorted(supports.difference(CAPABILITIES))
    if unknown or not supports.intersection(RULES) or not supports.intersection(DTYPES):
        raise pytest.UsageError(
            f"--attention-impl={name}: expected at least one rule of {RULES} and one dtype of "
            f"{DTYPES} in `supports`, and nothing unknown; unknown: {unknown}"
        )
    return found
