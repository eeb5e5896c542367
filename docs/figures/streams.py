"""Draw docs/assets/streams.svg: what streams past a tile, from the stream tables themselves.

`nox -s figures` draws it; `python docs/figures/streams.py FOLDER` draws it elsewhere.
"""

from __future__ import annotations

import sys
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
    # Here a tile has as many pieces as branches cover it.
    shades = dict(zip((1, 2, 3), ("#cbd5e0", "#718096", "#1a202c"), strict=True))
    for i, (w, r) in enumerate(zip(SEGMENTS, RATES, strict=True)):
        selected = np.arange(offsets[i][0], N, r)
        upper.scatter(selected, np.full(len(selected), -i), marker="s", s=22, color=COLORS[i])
        for cut in range(0, N + 1, w):
            upper.plot([cut - 0.5] * 2, [-i - 0.4, -i + 0.4], color="#4a5568", lw=0.8)
    for tile in numbers:
        rows = rows_of_tile(table, tile)
        shade = shades[int(table.tiles[tile, 6] - table.tiles[tile, 5])]
        upper.scatter(rows, np.full(len(rows), -3.3), marker="s", s=22, color=shade)
    labels = [
        f"branch {i}: w = {w}, r = {r}"
        for i, (w, r) in enumerate(zip(SEGMENTS, RATES, strict=True))
    ]
    upper.set_yticks([0, -1, -2, -3.3], [*labels, "class of the row"])
    upper.set_title("head 0: rows that each branch selects, and rows that the same branches select")
    tile = max(numbers, key=lambda t: int(table.tiles[t, 6] - table.tiles[t, 5]))
    own = rows_of_tile(table, tile)
    place, scored, seen = 0.0, 0, 0
    begin, end = table.tiles[tile, 5:7]
    for first, blocks, rate, _, weights, period, _, _ in table.pieces[begin:end].tolist():
        branch = RATES.index(rate)
        for j in range(blocks):
            keys = first + rate * (j * BLOCK + np.arange(BLOCK))
            many = table.weights[weights + j * BLOCK % period :][:BLOCK]
            x = place + np.arange(BLOCK)
            scored, seen = scored + BLOCK, seen + int(many.sum())
            lower.bar(x, many, 0.8, color=COLORS[branch])
            for at, key, height in zip(x, keys, many, strict=True):
                lower.text(at, height + 0.06, str(key), ha="center", fontsize=7)
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
