"""`dilated-attention demo`: the whole library at work, on real text, in about a minute."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import accuracy, memory
from .figure import draw
from .pool import RankPool
from .report import print_report
from .results import DemoResults, DemoSettings
from .sample import write_sample
from .train import demo_config, train

_PROMPT, _SAMPLE = 200, 160


def run_demo(settings: DemoSettings, console: Console) -> bool:
    """Train, measure, print and draw.

    Args:
        settings: What to do.
        console: Where to print.

    Returns:
        Whether every check passed.

    Raises:
        RankFailedError: A process raised or died.
    """
    start = time.perf_counter()
    config = demo_config(settings.length)
    with (
        _terminable(),
        tempfile.TemporaryDirectory(prefix="dilated-attention-") as folder,
        RankPool(settings.ranks, settings.ring_sizes, Path(folder)) as pool,
    ):
        results = DemoResults(pool.backend)
        with console.status(f"starting {settings.ranks} processes"):
            pool.start()
        for ring_size in (1, settings.ranks):
            with _progress(console, ring_size, settings.steps) as advance:
                results.training[ring_size] = pool.run(
                    train, ring_size, config, settings.batches, settings.seed, on_report=advance
                )[0]
        with console.status("comparing with the oracle, and measuring memory"):
            for ring_size in settings.ring_sizes:
                rows = pool.run(accuracy.attend, ring_size)
                results.shares[ring_size] = accuracy.budget_shares(rows)
                peaks = pool.run(memory.peak_bytes, ring_size, settings.memory_length)
                results.peaks[ring_size] = max(peaks)
    prompt = settings.text[:_PROMPT]
    trained = results.training[settings.ranks]
    with console.status("writing a sample"):
        sample = write_sample(config, trained.parameters, prompt, _SAMPLE, settings.seed)
    losses = {ring_size: run.losses for ring_size, run in results.training.items()}
    draw(losses, results.peaks, settings.memory_length, settings.out)
    return print_report(console, settings, results, prompt, sample, time.perf_counter() - start)


@contextmanager
def _progress(console: Console, ring_size: int, steps: int) -> Iterator[Callable[[float], None]]:
    """A bar for one training; call what it gives with each step's loss."""
    columns = (
        TextColumn("training, R = {task.fields[ring_size]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, ring_size=ring_size, loss=float("nan"))
        yield lambda loss: progress.update(task, advance=1, loss=loss)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exit that ends the processes and removes their folder."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
