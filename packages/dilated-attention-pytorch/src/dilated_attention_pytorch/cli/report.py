"""What the demo prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .accuracy import NAMES
from .results import LOSS_LIMIT, DemoResults, DemoSettings


def print_report(
    console: Console,
    settings: DemoSettings,
    results: DemoResults,
    prompt: bytes,
    sample: str,
    seconds: float,
) -> bool:
    """Print the sample, the table, and what failed.

    Args:
        console: Where to print.
        settings: What the demo was told.
        results: What it measured.
        prompt: What the sample continues.
        sample: What the model wrote.
        seconds: Wall time so far.

    Returns:
        Whether every check passed.
    """
    written = Text(prompt.decode("utf-8", errors="replace"), style="dim")
    written.append(sample, style="bold")
    console.print(Panel(written, title="prompt, and what the model writes after it"))
    console.print(_table(settings, results))
    console.print(f"picture: {settings.out}", soft_wrap=True)
    console.print(f"time: {seconds:.0f} s")
    for failure in results.failures:
        console.print(f"FAILED: {failure}", style="bold red")
    return not results.failures


def _table(settings: DemoSettings, results: DemoResults) -> Table:
    """One column for each ring size."""
    sizes = settings.ring_sizes
    table = Table(
        title=f"dilated attention over a ring of R processes ({results.backend})",
        caption="Difference: the largest of any step's loss. Errors: against the float64 oracle; "
        "above 1 is wrong. Memory: measured, attention forward and backward, n = "
        f"{settings.memory_length:,}, of the rank that needs most; tiles of a few MiB, the same "
        "for every R, are part of it.",
    )
    table.add_column("")
    for ring_size in sizes:
        table.add_column(f"R = {ring_size}", justify="right")

    def add(name: str, values: dict[int, str], *, end_section: bool = False) -> None:
        cells = (values.get(ring_size, "") for ring_size in sizes)
        table.add_row(name, *cells, end_section=end_section)

    training = results.training
    add("loss of the first step", {r: f"{run.losses[0]:.4f}" for r, run in training.items()})
    add("loss of the last step", {r: f"{run.losses[-1]:.4f}" for r, run in training.items()})
    difference = f"{results.loss_difference:.1e}"
    add(f"relative difference, limit {LOSS_LIMIT:.0e}", {settings.ranks: difference})
    add(
        f"seconds for {settings.steps} steps",
        {r: f"{run.seconds:.1f}" for r, run in training.items()},
        end_section=True,
    )
    for name in NAMES:
        add(
            f"error of {name}, share of budget",
            {r: f"{shares[name]:.2f}" for r, shares in results.shares.items()},
            end_section=name == NAMES[-1],
        )
    whole = results.peaks[1]
    add("peak memory per rank, MiB", {r: f"{x / 2**20:.1f}" for r, x in results.peaks.items()})
    add("as a share of R = 1", {r: f"{x / whole:.3f}" for r, x in results.peaks.items()})
    add("1/R", {r: f"{1 / r:.3f}" for r in sizes})
    return table
