"""The slide encoder's tables in the guide are what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import gigapath_page as page


def text() -> str:
    return page.PAGE.read_text(encoding="utf-8")


def test_the_page_is_that_of_the_results() -> None:
    assert page.render(text()) == text(), "run python -m benchmarks.gigapath_page"


def test_the_recorded_parity_is_rounding_where_compatible_and_another_operator_where_exact() -> (
    None
):
    (report,) = page.load("gigapath_parity")
    assert report["case"]["layers"] == 12
    for result in report["results"]:
        found = result["parity_with_torchscale"]
        for name in ("output", "gradient"):
            for compatible, exact in zip(
                found["compatible"][name], found["exact"][name], strict=True
            ):
                assert compatible["size"] == exact["size"] > 0
                # A thousandth of what the switches change is far above rounding.
                assert compatible["largest"] < exact["largest"] / 1000


def test_times_stand_in_the_page_as_soon_as_they_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parity,) = page.load("gigapath_parity")
    figure = {"ms": 1234.5, "peak_mib": 17.2}
    entries: dict[str, Any] = {
        "compatible": {"note": "", "forward": figure, "fine_tuning": {"ms": 7.0}},
        "torchscale": {"absent": "No module named 'torchscale'"},
        "dense": {"note": "", "out_of_memory": "CUDA out of memory."},
    }
    report = parity | {"results": [{"n": 10_001, "implementations": entries}]}
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    for name, content in (("gigapath_parity", parity), ("gigapath", report)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    found = page.render(text())
    assert page.ABSENT not in found
    assert "| 10,001 | compatible | 1,234 | 17 | 7 |  |" in found
    assert "| 10,001 | torchscale | No module named 'torchscale' | | | |" in found
    assert "| 10,001 | dense | CUDA out of memory. | | | |" in found


def test_a_page_without_a_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="the page needs one <!-- times -->"):
        page.render(text().replace("<!-- times -->", ""))
