"""Draw docs/assets/streams.svg: what streams past a tile, from the stream tables themselves.

`nox -s figures` draws it; `python docs/figures/streams.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from dilated_attention_pytorch.pattern import DilationPattern
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.streams import StreamTable, stream_table

ASSETS = Path(__file__).parents[1] / "assets"
STYLE = {"svg.hashsalt": "streams", "svg.fonttype": "path", "font.size": 9}
SEGMENTS, RATES, N, HALF, BLOCK = (16, 32, 64), (1, 2, 4), 64, 2, 4
COLORS = ("#2b6cb0", "#c05621", "#2f855a")


def tiles_of_head(table: StreamTable, head: int) -> list[int]:
    """Numbers of the tiles of one head, by first row."""
    tiles = [int(tile) for h, tile in table.programs if h == head]
    return sorted(tiles, key=lambda tile: int(table.tiles[tile, 0]))


def rows_of_tile(table: StreamTable, tile: int) -> np.ndarray:
    """Positions of a tile's rows."""
    first, rows, second, more, step = table.tiles[tile, :5]
    return np.concatenate([first + step * np.arange(rows), second + step * np.arange(more)])


def covering(rows: np.ndarray, offsets: Sequence[Sequence[int | None]]) -> list[int]:
    """Branches that select some rows, which the same branches select."""
    return [i for i, r in enumerate(RATES) if (rows[0] - offsets[i][0]) % r == 0]


def leader(rows: np.ndarray, key: int, offsets: Sequence[Sequence[int | None]]) -> int:
    """The branch of the smallest rate through which the rows meet a key."""
    both = set(covering(rows, offsets)) & set(covering(np.asarray([key]), offsets))
    return min(i for i in both if rows[0] // SEGMENTS[i] == key // SEGMENTS[i])


def main(folder: Path = ASSETS) -> None:
    """Write streams.svg into ``folder``."""
    with plt.rc_context(STYLE):
        draw(folder / "streams.svg")


def draw(path: Path) -> None:
    """Two panels: classes of rows, and the stream of the tile that most branches cover."""
    pattern = DilationPattern.longnet(SEGMENTS, RATES)
    table = stream_table(Problem(pattern, N, 4, 4), HALF, BLOCK)
    numbers = tiles_of_head(table, 0)
    offsets = pattern.offsets(4)
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 5.2), height_ratios=(1, 1.5))
    shades = dict(zip((1, 2, 3), ("#cbd5e0", "#718096", "#1a202c"), strict=True))
    for i, (w, r) in enumerate(zip(SEGMENTS, RATES, strict=True)):
        selected = np.arange(offsets[i][0], N, r)
        upper.scatter(selected, np.full(len(selected), -i), marker="s", s=22, color=COLORS[i])
        for cut in range(0, N + 1, w):
            upper.plot([cut - 0.5] * 2, [-i - 0.4, -i + 0.4], color="#4a5568", lw=0.8)
    for tile in numbers:
        rows = rows_of_tile(table, tile)
        shade = shades[len(covering(rows, offsets))]
        upper.scatter(rows, np.full(len(rows), -3.3), marker="s", s=22, color=shade)
    labels = [
        f"branch {i}: w = {w}, r = {r}"
        for i, (w, r) in enumerate(zip(SEGMENTS, RATES, strict=True))
    ]
    upper.set_yticks([0, -1, -2, -3.3], [*labels, "class of the row"])
    upper.set_title("head 0: rows that each branch selects, and rows that the same branches select")
    tile = max(numbers, key=lambda t: len(covering(rows_of_tile(table, t), offsets)))
    own = rows_of_tile(table, tile)
    place, scored, seen = 0.0, 0, 0
    begin, end = table.tiles[tile, 5:7]
    for blocks, many, _, _, residue, row, rate, _ in table.pieces[begin:end].tolist():
        for j in range(blocks):
            keys = residue + rate * (row + j * BLOCK + np.arange(BLOCK))
            x = place + np.arange(BLOCK)
            scored, seen = scored + BLOCK, seen + BLOCK * many
            lower.bar(x, many, 0.8, color=[COLORS[leader(own, key, offsets)] for key in keys])
            for at, key in zip(x, keys, strict=True):
                lower.text(at, many + 0.06, str(key), ha="center", fontsize=7)
            place += BLOCK + 0.6
    lower.set_xticks([])
    lower.set_yticks([1, 2, 3])
    lower.set_ylim(0, 3.7)
    lower.set_ylabel("multiplicity")
    shown = ", ".join(map(str, own))
    lower.set_title(f"the tile with rows {shown}: {seen} keys of its branches, {scored} to score")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    upper.set_xlim(-1, N)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
