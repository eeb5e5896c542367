"""Join reports of one machine and one state of the sources: `python -m benchmarks.merge OUT IN...`.

Where two hold a case, the later one's figures stay.
"""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path

from dilated_attention_pytorch.bench.report import load, merge, save


def main(arguments: list[str]) -> None:
    """Merge.

    Raises:
        ValueError: the reports were made in different environments or with different effort.
    """
    target, *sources = (Path(argument) for argument in arguments)
    save(reduce(merge, map(load, sources)), target)


if __name__ == "__main__":
    main(sys.argv[1:])
