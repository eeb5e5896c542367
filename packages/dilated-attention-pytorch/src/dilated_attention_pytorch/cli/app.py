"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .bench import bench
from .demo import run_demo
from .doctor import doctor
from .plan import plan
from .pool import RankFailedError
from .results import DemoSettings
from .text import draw_batches, standard_library
from .verify import verify

_BATCH = 1

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Dilated (LongNet) attention over a ring of devices."""


app.command()(bench)
app.command()(doctor)
app.command()(plan)
app.command()(verify)


@app.command()
def demo(
    text: Annotated[
        Path | None,
        typer.Option(help="Train on this file instead of Python's own standard library."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 60,
    ranks: Annotated[int, typer.Option(min=2, help="Processes of the ring.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and sample.")] = 0,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path(
        "dilated-attention-demo.png"
    ),
    length: Annotated[int, typer.Option(min=1, help="Bytes in a training sequence.")] = 2048,
    memory_length: Annotated[
        int, typer.Option(min=1, help="Sequence length at which memory is measured.")
    ] = 16_384,
) -> None:
    """Train a small LongNet on one process and on a ring of them, and compare.

    The same model is trained on the same text twice, on one process and on a ring over NCCL where
    there is a GPU for each process, over Gloo elsewhere. Then come the errors against the oracle,
    the measured memory, a sample of text and a picture. Exits with 1 where the losses of both
    trainings differ by 1e-4 or more, or an error exceeds its tolerance.
    """
    console = Console()
    if not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"no folder {out.absolute().parent}", param_hint="--out")
    try:
        source = standard_library() if text is None else text.read_bytes()
        batches = draw_batches(source, steps, _BATCH, length + 1, seed)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--text") from None
    settings = DemoSettings(source, batches, ranks, seed, memory_length, out)
    try:
        passed = run_demo(settings, console)
    except KeyboardInterrupt:
        console.print("interrupted; every process has ended")
        raise typer.Exit(130) from None
    except RankFailedError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if passed else 1)
