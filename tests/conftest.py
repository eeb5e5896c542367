"""What the tests across packages share: what a run says at its end, and the Gloo workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from support.oracle_shares import SharesReport
from support.run_notes import NOTES

if TYPE_CHECKING:
    from support.gloo_pool import GlooPool


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SharesReport(config), "oracle-shares")
    config.pluginmanager.register(NOTES, "run-notes")


@pytest.fixture(scope="session")
def gloo_pool() -> Iterator[GlooPool]:
    """Four Gloo processes that live as long as the run."""
    from support.gloo_pool import GlooPool

    with GlooPool(4) as pool:
        yield pool
