"""Times: calibrated on every second measured case, judged on the cases between them.

The calibrating half is cases 0, 2, 4, ... of benchmarks/results/one_gpu.json that the Triton
backend was timed on; the judging half is cases 1, 3, 5, ...
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.plan import calibration, work
from dilated_attention_pytorch.schedule import Problem

ROOT = Path(__file__).parents[3]
LIMIT = 0.15


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / "one_gpu.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_halves_share_no_case(report: dict[str, Any]) -> None:
    halves = [
        {one.case for one in calibration.measured(report, judging=judging)}
        for judging in (False, True)
    ]
    assert not halves[0] & halves[1]
    assert len(halves[0] | halves[1]) == len(report["results"])
    assert abs(len(halves[0]) - len(halves[1])) <= 1


def test_the_judging_half_is_told_within_fifteen_percent(report: dict[str, Any]) -> None:
    judged = calibration.judge(report, work.fitted())
    assert len(judged) > len(report["results"]) // 2
    wrong = [one for one in judged if not abs(one.error) <= LIMIT]
    assert not wrong


def test_the_page_shows_what_was_judged(report: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "theory" / "cost.md").read_text(encoding="utf-8")
    for one in calibration.judge(report, work.fitted()):
        row = (
            f"| {one.case} | {one.direction} | {one.measured * 1e3:.3g} "
            f"| {one.predicted * 1e3:.3g} | {one.error:+.1%} |"
        )
        assert row in page, "run python -m benchmarks.calibrate and copy its table"


@pytest.mark.parametrize("judging", [False, True])
def test_the_rates_come_from_the_calibrating_half(report: dict[str, Any], judging: bool) -> None:
    """The other half's times do not matter to them; its own do."""
    timed = [one for one in report["results"] if "forward" in one["backends"].get("triton", {})]
    changed = json.loads(json.dumps(report))
    names = {one["case"] for one in timed[judging::2]}
    for one in changed["results"]:
        if one["case"] in names:
            for figure in one["backends"]["triton"].values():
                if "ms" in figure:
                    figure["ms"] *= 2
    shipped = json.loads(Path(work.__file__).with_name("rates.json").read_text(encoding="utf-8"))
    found = calibration.calibrate(changed)
    assert (found == shipped) == judging, "run python -m benchmarks.calibrate"


def test_programs_start_on_the_place_that_is_free_first() -> None:
    import numpy as np

    assert work.last_end(np.array([3.0, 1.0, 1.0, 1.0]), 2) == 3.0
    assert work.last_end(np.array([1.0, 1.0, 1.0, 3.0]), 2) == 4.0


def test_blocks_are_those_of_the_pairs() -> None:
    """Where tiles divide evenly every block is unmasked, and they hold just the pairs."""
    problem = Problem(DilationPattern.longnet([2048, 4096], [1, 2]), 8192, 4, 4)
    ((inside, edges),) = work.blocks_of(problem, work.FORWARD, 64)
    (blocks,) = work.kernels(work.FORWARD, 64)
    from dilated_attention_pytorch.cost import visible_pairs

    assert not edges.any()
    assert int(inside.sum()) * blocks.own * blocks.other == visible_pairs(problem)
    causal = Problem(problem.pattern, 8192, 4, 4, is_causal=True)
    assert work.blocks_of(causal, work.BACKWARD, 64)[1][1].any()


def test_a_head_dimension_that_was_not_measured_has_no_time() -> None:
    problem = Problem(DilationPattern.longnet([64], [1]), 64, 1, 1)
    with pytest.raises(ValueError, match="head dimensions that pad to"):
        work.seconds(problem, work.FORWARD, 256, 1, work.fitted())
