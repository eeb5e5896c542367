"""examples/continue_pretraining.py: both copies begin as one model, and both learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dilated_attention_oracle import check

pytest.importorskip("transformers", reason="needs transformers: the extra huggingface")

from examples import continue_pretraining as example

SMALL = {
    "short": 32,
    "long": 128,
    "short-steps": 30,
    "long-steps": 15,
    "tokens": 256,
    "hidden-size": 32,
}


def run(out: Path, **changes: object) -> dict[str, example.Losses]:
    given = SMALL | changes | {"out": out}
    return example.run(
        example.parse([word for name, value in given.items() for word in (f"--{name}", str(value))])
    )


@pytest.mark.timeout(120)
def test_dense_and_dilated_train_side_by_side(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = run(tmp_path)
    assert list(found) == ["dense", "dilated"]
    for losses in found.values():
        assert len(losses.training) == 15
        assert losses.after < losses.before
    # The same weights and batches, another attention.
    assert found["dense"].training[0] != found["dilated"].training[0]
    assert found["dense"].before != found["dilated"].before
    saved = json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))
    assert saved["dilated"]["training"] == found["dilated"].training
    assert (tmp_path / "losses.svg").stat().st_size > 5000


@pytest.mark.timeout(120)
def test_one_undilated_segment_trains_as_dense_attention(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = run(tmp_path, segments=128, rates=1, **{"short-steps": 3, "long-steps": 1})
    # One step, so that rounding has no time to grow.
    for name in ("training", "before"):
        dense, dilated = (np.atleast_1d(getattr(found[key], name)) for key in ("dense", "dilated"))
        check(name, dilated, dense, dense, "float32")
