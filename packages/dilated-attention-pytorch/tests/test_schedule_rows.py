"""`Rows`: slices where rows step evenly, arrays elsewhere, the same numbers either way."""

from __future__ import annotations

import numpy as np
import pytest

from dilated_attention_pytorch.schedule import Rows

EVEN = [[], [5], [3, 4], [0, 2, 4, 6], [7, 8, 9]]
UNEVEN = [[0, 1, 3], [4, 2], [3, 3], [0, 2, 3, 6], [6, 4, 2]]


@pytest.mark.parametrize("values", EVEN + UNEVEN, ids=str)
def test_rows_hold_the_numbers(values: list[int]) -> None:
    rows = Rows.of(np.array(values, dtype=np.int64))
    assert len(rows) == len(values)
    assert rows.asarray().tolist() == values
    found = rows.slice()
    assert (found is not None) == (values in EVEN)
    if found is not None:
        assert np.arange(20)[found].tolist() == values
    if values:
        assert (rows.first, rows.last) == (values[0], values[-1])
    for begin in range(len(values)):
        for end in range(begin, len(values) + 2):
            assert rows.part(begin, end).asarray().tolist() == values[begin:end]
