"""What the demo measures, and that its checks can fail."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dilated_attention_pytorch import DilationPattern, dilated_attention
from dilated_attention_pytorch.cli.accuracy import (
    DILATION_RATES,
    NAMES,
    SEGMENT_LENGTHS,
    attend,
    budget_shares,
    case,
)
from dilated_attention_pytorch.cli.memory import peak_bytes
from dilated_attention_pytorch.cli.pool import RankPool
from dilated_attention_pytorch.cli.results import DemoResults, DemoSettings
from dilated_attention_pytorch.cli.sample import write_sample
from dilated_attention_pytorch.cli.text import draw_batches, standard_library
from dilated_attention_pytorch.cli.train import Training, demo_config, train


@pytest.mark.gloo
@pytest.mark.timeout(120)
def test_one_process_and_two_measure_the_same(tmp_path: Path) -> None:
    config = demo_config(128)
    batches = draw_batches(standard_library(), 3, 2, 129, seed=0)
    reports: list[float] = []
    with RankPool(2, (1, 2), tmp_path) as pool:
        results = DemoResults(pool.backend)
        pool.start()
        for ring_size in (1, 2):
            reports.clear()
            ranks = pool.run(train, ring_size, config, batches, 0, on_report=reports.append)
            results.training[ring_size] = ranks[0]
            assert reports == ranks[0].losses
            for rank in ranks:
                assert rank.losses == ranks[0].losses
                for name, value in ranks[0].parameters.items():
                    assert np.array_equal(rank.parameters[name], value)
            results.shares[ring_size] = budget_shares(pool.run(attend, ring_size))
            results.peaks[ring_size] = max(pool.run(peak_bytes, ring_size, 4096))
    assert results.failures == []
    losses = results.training[1].losses
    assert losses[2] < losses[0]
    # q, k, v, out and the three gradients are alive together at the end, whatever else is.
    rows_of_all = 7 * 4096 * 4 * 32 * 4
    assert results.peaks[1] >= rows_of_all
    assert rows_of_all / 2 <= results.peaks[2] <= 0.75 * results.peaks[1]
    text = write_sample(config, results.training[2].parameters, b"import ", 20, seed=0)
    assert 0 < len(text) <= 20
    assert all(x.isprintable() or x == "\n" for x in text)


def exact_rows() -> list[np.ndarray]:
    query, key, value, dout = (torch.from_numpy(x) for x in case())
    inputs = [x.requires_grad_() for x in (query, key, value)]
    pattern = DilationPattern.longnet(SEGMENT_LENGTHS, DILATION_RATES)
    out = dilated_attention(query, key, value, pattern, is_causal=True)
    gradients = torch.autograd.grad(out, inputs, dout)
    return [x.detach().numpy() for x in (out, *gradients)]


@pytest.mark.parametrize("fault", [None, *NAMES])
def test_the_share_of_the_budget_shows_a_lost_row(fault: str | None) -> None:
    rows = exact_rows()
    halves = [[x[:, :100] for x in rows], [x[:, 100:].copy() for x in rows]]
    if fault is not None:
        halves[1][NAMES.index(fault)][:, -1] = 0
    shares = budget_shares(halves)
    assert [name for name, share in shares.items() if not share <= 1] == [fault] * bool(fault)


@pytest.mark.parametrize("factor", [1 + 2e-4, 1 - 2e-4, math.nan])
def test_losses_that_differ_are_a_failure(factor: float) -> None:
    losses = [5.0, 4.0, 3.0]
    results = DemoResults("gloo")
    results.training = {
        1: Training(losses, 0.0, {}),
        4: Training([5.0, 4.0 * factor, 3.0], 0.0, {}),
    }
    assert len(results.failures) == 1
    assert "losses differ" in results.failures[0]
    results.training[4] = Training([x * (1 + 0.5e-4) for x in losses], 0.0, {})
    assert results.failures == []


def test_an_error_above_its_budget_is_a_failure() -> None:
    results = DemoResults("gloo")
    results.training = {1: Training([1.0], 0.0, {}), 2: Training([1.0], 0.0, {})}
    results.shares = {1: {"out": 0.5, "dq": 1.5}, 2: {"out": math.nan, "dq": 1.0}}
    assert [failure.split(":")[0] for failure in results.failures] == ["R = 1", "R = 2"]


@pytest.mark.parametrize(("ranks", "sizes"), [(2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4))])
def test_rings_double_up_to_all_ranks(ranks: int, sizes: tuple[int, ...]) -> None:
    batches = np.zeros((5, 1, 65), dtype=np.uint8)
    settings = DemoSettings(b"", batches, ranks, 0, 64, Path("x.png"))
    assert settings.ring_sizes == sizes
    assert (settings.steps, settings.length) == (5, 64)


def test_the_text_is_real_and_repeats() -> None:
    text = standard_library()
    assert text == standard_library()
    assert b"def dataclass(" in text


def test_batches_are_windows_of_the_text() -> None:
    text = bytes(range(200))
    batches = draw_batches(text, 40, 2, 150, seed=3)
    assert batches.shape == (40, 2, 150)
    assert np.array_equal(
        batches - batches[..., :1], np.broadcast_to(np.arange(150), batches.shape)
    )
    assert len(np.unique(batches[..., 0])) > 20
    assert np.array_equal(batches, draw_batches(text, 40, 2, 150, seed=3))
    assert not np.array_equal(batches, draw_batches(text, 40, 2, 150, seed=4))
    assert draw_batches(text, 1, 1, 200, seed=0).shape == (1, 1, 200)
    with pytest.raises(ValueError, match="200 bytes, at least 201"):
        draw_batches(text, 1, 1, 201, seed=0)


def test_the_model_is_small() -> None:
    from dilated_attention_pytorch.models import DilatedDecoderLM

    model = DilatedDecoderLM(demo_config(2048))
    assert sum(p.numel() for p in model.parameters()) <= 300_000
