"""Largest shares of the tolerance's budget that a run on a GPU has seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dilated_attention_oracle.tolerance import Report

from . import gpu_record

# backend -> dtype -> direction -> share
Shares = dict[str, dict[str, dict[str, float]]]


@pytest.fixture(scope="session")
def shares() -> Iterator[Shares]:
    """Collected by the tests of a session; written out where asked for."""
    found: Shares = {}
    yield found
    if os.environ.get("DILATED_ATTENTION_RECORD"):
        gpu_record.write(Path(os.environ["DILATED_ATTENTION_RECORD"]), found)


def note(shares: Shares, backend: str, dtype: str, reports: dict[str, Report]) -> None:
    """Keep the largest shares."""
    entry = shares.setdefault(backend, {}).setdefault(dtype, {})
    for direction, names in gpu_record.DIRECTIONS.items():
        worst = max(reports[name].share for name in names)
        entry[direction] = max(entry.get(direction, 0.0), worst)
