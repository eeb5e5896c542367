"""Fit the rates of `dilated-attention plan` to the committed measurements and judge them.

`python -m benchmarks.calibrate` writes rates.json of the room `plan` and the table between the
markers of docs/theory/cost.md. Needs no GPU.
"""

from __future__ import annotations

import json
from pathlib import Path

from dilated_attention_pytorch.plan import calibration, work
from dilated_attention_pytorch.plan.tiles import GLUON, TRITON

from . import markers

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "benchmarks" / "results" / "one_gpu.json"
PAGE = ROOT / "docs" / "theory" / "cost.md"
RATES = Path(work.__file__).with_name("rates.json")


def table(judged: list[calibration.Judged]) -> str:
    """Measured and predicted milliseconds in Markdown."""
    lines = ["| case | backend | direction | measured ms | predicted ms | error |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [
        f"| {one.case} | {one.backend} | {one.direction} | {one.measured * 1e3:.3g} "
        f"| {one.predicted * 1e3:.3g} | {one.error:+.1%} |"
        for one in judged
    ]
    return "\n".join(lines)


def render(page: str, table: str) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: a marker is missing.
    """
    return markers.fill(page, {"plan-times": table})


def main() -> None:
    """Fit, write and print."""
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    found = calibration.calibrate(report)
    RATES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    rates = work.read_rates(found)
    judged = [calibration.judge(report, backend, rates) for backend in (GLUON, TRITON)]
    lines = table([one for each in judged for one in each])
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
    print(lines)


if __name__ == "__main__":
    main()
