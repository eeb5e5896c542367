"""Fit the rates of `dilated-attention plan` to the committed measurements and judge them.

`python -m benchmarks.calibrate` writes rates.json of the room `plan` and prints the table of
docs/theory/cost.md. Needs no GPU.
"""

from __future__ import annotations

import json
from pathlib import Path

from dilated_attention_pytorch.plan import calibration, work

REPORT = Path(__file__).parent / "results" / "one_gpu.json"
RATES = Path(work.__file__).with_name("rates.json")


def table(judged: list[calibration.Judged]) -> str:
    """Measured and predicted milliseconds in Markdown."""
    lines = ["| case | direction | measured ms | predicted ms | error |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.case} | {one.direction} | {one.measured * 1e3:.3g} | {one.predicted * 1e3:.3g} "
        f"| {one.error:+.1%} |"
        for one in judged
    ]
    return "\n".join(lines)


def main() -> None:
    """Fit, write and print."""
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    found = calibration.calibrate(report)
    RATES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(calibration.judge(report, work.read_rates(found))))


if __name__ == "__main__":
    main()
