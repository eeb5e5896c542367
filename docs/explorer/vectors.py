"""Write docs/explorer/vectors.json: questions to the explorer's formulas, and Python's answers.

Run `python docs/explorer/vectors.py [FOLDER]` from the root of the repository. The mask is the
oracle's, by definition; bytes, FLOPs and memory are `dilated_attention_pytorch.cost`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.inputs import prepare
from dilated_attention_pytorch import cost
from dilated_attention_pytorch.layout import Layout, make_layout
from dilated_attention_pytorch.pattern import Branch, DilationPattern
from dilated_attention_pytorch.schedule import Problem, key_classes
from dilated_attention_pytorch.schedule.messages import message

HERE = Path(__file__).parent
SIDE = 48
RANDOM_QUESTIONS = 40
Question = dict[str, Any]


def question(**changes: Any) -> Question:
    """The page's first question, with changes."""
    first: Question = {
        "branches": [[16, 1], [32, 2], [64, 4]],
        "rule": "longnet",
        "n": 96,
        "heads": 4,
        "kvHeads": 4,
        "headDim": 64,
        "itemsize": 2,
        "ringSize": 4,
        "order": "contiguous",
        "causal": True,
        "head": 0,
    }
    return first | changes


def questions() -> list[Question]:
    """Edges by hand, then questions drawn with a fixed seed."""
    chosen = [
        question(),
        question(causal=False, order="zigzag"),
        question(n=1, ringSize=1),
        question(n=3, ringSize=5),
        question(branches=[[4, 7]], heads=8, kvHeads=2, head=5),
        question(branches=[[2**20, 1]], n=97, itemsize=8),
        question(rule="head_groups", heads=7, kvHeads=7, head=6),
        question(rule="torchscale", branches=[[10, 3], [50, 6]], heads=16, kvHeads=4),
        question(branches=[[256, 1], [512, 2], [1024, 4], [2048, 8]], n=2000, heads=8, kvHeads=8),
    ]
    draw = random.Random(0)
    for _ in range(RANDOM_QUESTIONS):
        kv_heads = draw.randint(1, 4)
        heads = kv_heads * draw.randint(1, 4)
        count = draw.randint(1, min(4, heads))
        chosen.append(
            question(
                branches=[[draw.randint(1, 80), draw.randint(1, 9)] for _ in range(count)],
                rule=draw.choice(["longnet", "torchscale", "head_groups"]),
                n=draw.randint(1, 150),
                heads=heads,
                kvHeads=kv_heads,
                headDim=draw.randint(1, 128),
                itemsize=draw.choice([2, 4, 8]),
                ringSize=draw.randint(1, 8),
                order=draw.choice(["contiguous", "zigzag"]),
                causal=draw.random() < 0.5,
                head=draw.randrange(heads),
            )
        )
    return chosen


def mask(asked: Question) -> list[str]:
    """C[p, k] of the first rows and keys of the asked head, one string of digits for each p."""
    branches = tuple((w, r) for w, r in asked["branches"])
    # Causality and segments look at no later row than those shown, except that n may cut w.
    n = min(asked["n"], SIDE)
    q, k = np.zeros((1, n, asked["heads"], 1)), np.zeros((1, n, asked["kvHeads"], 1))
    inputs = prepare(q, k, k, Pattern(branches, rule=asked["rule"]), is_causal=asked["causal"])
    counts = branch_counts(inputs)[:, 0, asked["head"]].sum(axis=0)
    return ["".join(str(int(c)) for c in row) for row in counts]


def row_heads(problem: Problem, layout: Layout) -> list[list[int]]:
    """`[target][source]`: (row, key/value head) pairs of each message."""
    classes = key_classes(problem)
    ranks = range(layout.ring_size)

    def size(source: int, target: int) -> int:
        if source == target:
            return 0
        rows = message(problem, layout, source, target).rows
        return sum(len(r) * len(c.heads) for r, c in zip(rows, classes, strict=True))

    return [[size(source, target) for source in ranks] for target in ranks]


def answer(asked: Question) -> dict[str, Any]:
    """What the page has to say to a question."""
    pattern = DilationPattern(tuple(Branch(w, r) for w, r in asked["branches"]), asked["rule"])
    problem = Problem(pattern, asked["n"], asked["heads"], asked["kvHeads"], asked["causal"])
    layout = make_layout(asked["n"], asked["ringSize"], asked["order"])
    size = {"batch": 1, "head_dim": asked["headDim"], "itemsize": asked["itemsize"]}
    ranks = []
    for rank in range(layout.ring_size):
        traffic = cost.rank_traffic(problem, layout, rank, replicated=False, **size)
        memory = cost.rank_memory(problem, layout, rank, **size)
        ranks.append([layout.lengths[rank], traffic.forward, traffic.backward, memory])
    flops = [
        cost.attention_flops(problem, 1, asked["headDim"], backward=backward)
        for backward in (False, True)
    ]
    return {
        "offsets": [list(row) for row in problem.offsets],
        "mask": mask(asked),
        # As strings: they may exceed the whole numbers that JavaScript's floats can tell apart.
        "pairs": str(cost.visible_pairs(problem)),
        "forward_flops": str(flops[0]),
        "backward_flops": str(flops[1]),
        "row_heads": row_heads(problem, layout),
        "ranks": ranks,
    }


def main(folder: Path = HERE) -> None:
    """Write vectors.json into ``folder``."""
    vectors = [{"question": asked, "answer": answer(asked)} for asked in questions()]
    text = ",\n".join(json.dumps(vector, separators=(",", ":")) for vector in vectors)
    (folder / "vectors.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
