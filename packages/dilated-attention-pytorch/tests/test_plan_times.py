"""Times: calibrated on one half of the measured cases, judged on the cases between them.

Of the cases of benchmarks/results/one_gpu.json, sorted by causality and width, 1, 3, 5, ...
calibrate and 0, 2, 4, ... judge, for each backend.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.cost import visible_pairs
from dilated_attention_pytorch.plan import calibration, tiles, work
from dilated_attention_pytorch.plan.tiles import BACKWARD, FORWARD, GLUON, TRITON
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.streams import stream_table

ROOT = Path(__file__).parents[3]
LIMIT = 0.15
LADDER = DilationPattern.longnet([2048, 4096], [1, 2])


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / "one_gpu.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def halves(report: dict[str, Any], backend: str) -> list[list[calibration.Measured]]:
    """The half that calibrates, and the one that judges."""
    return [calibration.measured(report, backend, judging=judging) for judging in (False, True)]


@pytest.mark.parametrize("backend", [GLUON, TRITON])
def test_the_halves_share_no_case_and_leave_none_out(report: dict[str, Any], backend: str) -> None:
    names = [{one.case for one in half} for half in halves(report, backend)]
    assert not names[0] & names[1]
    every = {one["case"] for one in report["results"]}
    assert names[0] | names[1] == every
    assert len(names[1]) >= 5


@pytest.mark.parametrize("backend", [GLUON, TRITON])
def test_a_case_of_every_kind_calibrates(report: dict[str, Any], backend: str) -> None:
    """Kernels are compiled for a width and for causality."""
    kinds = [
        {(one.problem.is_causal, tiles.padded(backend, one.head_dim)) for one in half}
        for half in halves(report, backend)
    ]
    assert kinds[1] <= kinds[0]


@pytest.mark.parametrize("backend", [GLUON, TRITON])
def test_the_judging_half_is_told_within_fifteen_percent(
    report: dict[str, Any], backend: str
) -> None:
    judged = calibration.judge(report, backend, work.fitted())
    assert len(judged) == len(halves(report, backend)[1])
    wrong = {(one.case, one.direction) for one in judged if not abs(one.error) <= LIMIT}
    assert not wrong


@pytest.mark.parametrize("backend", [GLUON, TRITON])
def test_the_page_shows_what_was_judged(report: dict[str, Any], backend: str) -> None:
    page = (ROOT / "docs" / "theory" / "cost.md").read_text(encoding="utf-8")
    for one in calibration.judge(report, backend, work.fitted()):
        row = (
            f"| {one.case} | {one.backend} | {one.direction} | {one.measured * 1e3:.3g} "
            f"| {one.predicted * 1e3:.3g} | {one.error:+.1%} |"
        )
        assert row in page, "run python -m benchmarks.calibrate"


@pytest.mark.parametrize("backend", [GLUON, TRITON])
@pytest.mark.parametrize("judging", [False, True])
def test_the_rates_come_from_the_calibrating_half(
    report: dict[str, Any], backend: str, judging: bool
) -> None:
    """The other half's times do not matter to them; its own do."""
    changed = json.loads(json.dumps(report))
    names = {one.case for one in halves(report, backend)[judging]}
    for one in changed["results"]:
        if one["case"] in names:
            for figure in one["backends"][backend].values():
                if "ms" in figure:
                    figure |= {name: 2 * figure[name] for name in ("ms", "busy_ms", "host_us")}
    shipped = json.loads(Path(work.__file__).with_name("rates.json").read_text(encoding="utf-8"))
    found = calibration.calibrate(changed)
    assert (found == shipped) == judging, "run python -m benchmarks.calibrate"


def test_a_slow_host_does_not_count() -> None:
    figure = {"ms": 3.0, "busy_ms": 2.0, "host_us": 1999.0}
    assert calibration.gpu_seconds(figure) == 3e-3
    assert calibration.gpu_seconds(figure | {"host_us": 2001.0}) == 2e-3


def test_programs_start_on_the_place_that_is_free_first() -> None:
    assert work.last_end(np.array([3.0, 1.0, 1.0, 1.0]), 2) == 3.0
    assert work.last_end(np.array([1.0, 1.0, 1.0, 3.0]), 2) == 4.0


def test_blocks_of_triton_are_those_of_the_pairs() -> None:
    """Where tiles divide evenly every block is unmasked, and they hold just the pairs."""
    problem = Problem(LADDER, 8192, 4, 4)
    (blocks,) = tiles.blocks_of(problem, TRITON, FORWARD, 64)
    (kernel,) = tiles.kernels(TRITON, FORWARD, 64)
    assert not blocks.masked.any()
    assert int(blocks.plain.sum()) * kernel.own * kernel.other == visible_pairs(problem)
    causal = Problem(problem.pattern, 8192, 4, 4, is_causal=True)
    assert tiles.blocks_of(causal, TRITON, BACKWARD, 64)[1].masked.any()


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
@pytest.mark.parametrize("is_causal", [False, True])
def test_blocks_of_gluon_are_those_that_it_executes(direction: str, is_causal: bool) -> None:
    """Fewer than the contract's pairs where branches share them."""
    problem = Problem(LADDER, 8192, 4, 2, is_causal)
    found = tiles.blocks_of(problem, GLUON, direction, 128)
    for number, kernel in enumerate(tiles.kernels(GLUON, direction, 128)):
        blocks = found[number]
        table = stream_table(problem, kernel.own, kernel.other, keys=number == 1)
        count = int(blocks.plain.sum() + blocks.masked.sum())
        assert count * kernel.own * kernel.other == table.executed
        assert len(blocks.plain) == len(table.programs)
        assert blocks.masked.any() == is_causal
        assert is_causal or table.executed < visible_pairs(problem)


def test_a_pair_of_two_branches_takes_gluon_half_the_time() -> None:
    twice = Problem(DilationPattern.longnet([1024, 1024], [1, 1]), 8192, 4, 4)
    bound = [
        work.least_seconds(twice, 10**9, backend, FORWARD, 64, work.fitted())
        / work.rate_of(work.fitted(), backend, FORWARD, 64).picoseconds
        for backend in (GLUON, TRITON)
    ]
    assert bound[0] == pytest.approx(bound[1] / 2)
    many = Problem(DilationPattern.longnet([1024, 1024], [1, 128]), 8192, 4, 4)
    assert work.least_seconds(many, 10**9, GLUON, FORWARD, 64, work.fitted()) == pytest.approx(
        work.least_seconds(twice, 10**9, GLUON, FORWARD, 64, work.fitted())
    )


@pytest.mark.parametrize(
    ("change", "head_dim", "backend"),
    [
        ({}, 64, GLUON),
        ({}, 136, TRITON),
        ({}, 36, TRITON),
        ({"pattern": DilationPattern.longnet([100], [1])}, 64, TRITON),
    ],
)
def test_rates_are_those_of_what_auto_takes(
    change: dict[str, Any], head_dim: int, backend: str
) -> None:
    problem = Problem(change.get("pattern", LADDER), 8192, 4, 4)
    assert work.backend_of(problem, torch.bfloat16, head_dim) == backend


def test_what_was_measured_was_what_auto_takes(report: dict[str, Any]) -> None:
    for one in report["results"]:
        rule = getattr(DilationPattern, one["rule"])
        pattern = rule(one["segment_lengths"], one["dilation_rates"])
        problem = Problem(pattern, one["n"], one["heads"], one["heads"], one["is_causal"])
        dtype = getattr(torch, one["dtype"])
        assert work.backend_of(problem, dtype, one["head_dim"]) == one["auto"]


def test_a_head_dimension_that_was_not_measured_has_no_time() -> None:
    problem = Problem(DilationPattern.longnet([64], [1]), 64, 1, 1)
    with pytest.raises(ValueError, match="head dimensions that pad to"):
        work.seconds(problem, TRITON, FORWARD, 256, 1, work.fitted())
